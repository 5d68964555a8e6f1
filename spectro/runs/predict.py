"""A fitted model on new image files."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectro.classifiers import load
from spectro.data import Crop, Images, ImageStore
from spectro.data.images import file_digest
from spectro.data.manifest import IMAGE_ENDINGS
from spectro.errors import DataError, ModelError

_BATCH = 512


@dataclass(frozen=True)
class Predictions:
    """A table of predictions.

    Attributes:
        rows: The header and one row an image: path, predicted label, probability of every class.
        bad: Files that give no image, with the reason.
    """

    rows: Sequence[Sequence[Any]]
    bad: Mapping[Path, str]


def predict_files(model: Path, paths: Iterable[Path]) -> Predictions:
    """Sorts image files with a saved model, cropped as its training images were.

    Args:
        model: The ``model/`` folder of a run.
        paths: Image files, or folders that are searched through.

    Returns:
        The predictions, ordered by path.

    Raises:
        ModelError: Not a saved model.
        DataError: A path that is not there, or no images at all.
    """
    classifier = load(model)
    try:
        use = json.loads((model / "use.json").read_text(encoding="utf-8"))
        crop, max_megapixels = Crop(**use["crop"]), float(use["max_megapixels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{model / 'use.json'}: damaged or not there ({error})") from error
    files = _files(list(paths))
    rows: list[Sequence[Any]] = [("path", "predicted", *(f"p_{label}" for label in classifier.classes_))]
    bad: dict[Path, str] = {}
    # A batch at a time, in memory: new images are seen once, and there may be many of them.
    for start in range(0, len(files), _BATCH):
        batch = files[start : start + _BATCH]
        store = ImageStore(crop=crop, max_megapixels=max_megapixels)
        digests: dict[Path, str] = {}
        for path in batch:
            try:
                digests[path] = file_digest(path)
            except OSError as error:
                bad[path] = f"cannot be opened ({error.strerror or error})"
        bad |= store.add(list(digests), list(digests.values()), classifier.specs)
        good = [(path, digest) for path, digest in digests.items() if path not in bad]
        if good:
            probabilities = classifier.predict_proba(Images(store, [digest for _, digest in good]))
            predicted = classifier.classes_[probabilities.argmax(axis=1)]
            for (path, _), label, row in zip(good, predicted, probabilities, strict=True):
                rows.append((path.as_posix(), label, *map(float, row)))
    return Predictions(rows, bad)


def _files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            for folder, folders, names in os.walk(path, followlinks=True):
                folders[:] = [name for name in folders if not name.startswith(".")]
                inside = [Path(folder, name) for name in names if not name.startswith(".")]
                found += [p for p in inside if p.suffix.lower() in IMAGE_ENDINGS]
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file or folder")
    if not found:
        raise DataError(f"no images found in {', '.join(map(str, paths))}")
    return sorted(dict.fromkeys(found))
