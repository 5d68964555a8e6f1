"""A fitted model on new image files."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from spectro.classifiers import ImageClassifier, load
from spectro.data import Crop, Images, ImageStore, Record
from spectro.data.images import file_digest
from spectro.data.manifest import IMAGE_ENDINGS
from spectro.errors import ConfigError, DataError, ModelError
from spectro.knobs import validate
from spectro.runs.predictions import Predictions

_BATCH = 512


def predict_files(model: Path, paths: Iterable[Path]) -> tuple[Predictions, dict[Path, str]]:
    """Classifies image files with a saved model, cropped as its training images were.

    Args:
        model: The ``model/`` folder of a run.
        paths: Image files, or folders that are searched through.

    Returns:
        Predictions without labels, ordered by path, and files that hold no image with the reason.

    Raises:
        ModelError: Not a saved model.
        DataError: A path that is not there, or no images at all.
    """
    classifier, crop, max_megapixels = load_for_files(model)
    files = _files(list(paths))
    records: list[Record] = []
    probabilities = [np.empty((0, len(classifier.classes_)))]
    bad: dict[Path, str] = {}
    # A batch at a time, in memory: new images are read once, and there may be many of them.
    for start in range(0, len(files), _BATCH):
        store = ImageStore(crop=crop, max_megapixels=max_megapixels)
        digests: dict[Path, str] = {}
        for path in files[start : start + _BATCH]:
            try:
                digests[path] = file_digest(path)
            except OSError as error:
                bad[path] = f"cannot be opened ({error.strerror or error})"
        bad |= store.add(list(digests), list(digests.values()), classifier.specs)
        batch = [Record(path, "", "", path.stem, digest) for path, digest in digests.items() if path not in bad]
        if batch:
            probabilities.append(classifier.predict_proba(Images(store, [record.digest for record in batch])))
            records += batch
    y_true = np.full(len(records), "", dtype=object)
    return Predictions(records, y_true, classifier.classes_, np.concatenate(probabilities)), bad


def load_for_files(model: Path) -> tuple[ImageClassifier, Crop, float]:
    """A saved model, and how its images are read: the margins that are cut off, and the most megapixels.

    Raises:
        ModelError: Not a saved model.
    """
    classifier = load(model)
    try:
        use = json.loads((model / "use.json").read_text(encoding="utf-8"))
        crop, max_megapixels = validate(Crop, use["crop"], "crop."), use["max_megapixels"]
        if type(max_megapixels) not in (int, float) or not 0 < max_megapixels <= 1e6:
            raise ValueError(f"max_megapixels: got {max_megapixels}; allowed: above 0, at most 1e6")
        if list(use["classes"]) != list(classifier.classes_):
            raise ValueError(f"classes: got {use['classes']}; the model has {list(classifier.classes_)}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ConfigError) as error:
        raise ModelError(f"{model / 'use.json'}: damaged or not there ({error})") from error
    return classifier, crop, max_megapixels


def _files(paths: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            visited: set[tuple[int, int]] = set()
            for folder, folders, names in os.walk(path, followlinks=True):
                # A link to a folder above would give its images again and again.
                place = os.stat(folder)
                is_new = (place.st_dev, place.st_ino) not in visited
                visited.add((place.st_dev, place.st_ino))
                folders[:] = [name for name in folders if is_new and not name.startswith(".")]
                names = names if is_new else []
                inside = [Path(folder, name) for name in names if not name.startswith(".")]
                files += [p for p in inside if p.suffix.lower() in IMAGE_ENDINGS]
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"{path}: no such file or folder")
    if not files:
        raise DataError(f"no images found in {', '.join(map(str, paths))}")
    return sorted(dict.fromkeys(files))
