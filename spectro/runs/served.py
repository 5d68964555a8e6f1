"""A saved model that answers requests: images as bytes, base64, pixels or paths. Knows no MLflow."""

import base64
import binascii
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spectro.data import Images, ImageStore
from spectro.data.images import file_digest
from spectro.errors import DataError
from spectro.runs.predict import Predictor

_MOST_NAMED = 5


class ServedModel:
    """A model, from the ``model/`` folder of a run, for rows with an image each; threads may share it.

    An ``image`` is the bytes of an image file, the same as base64 text, or its pixels before any margin is cut off:
    uint8 ``(height, width)`` or ``(height, width, 3)``, as an array or as nested lists. A ``path`` is a file in
    ``folder``, relative to it or absolute; without a folder paths are refused, as whoever may send a request to a
    server could then read its files.

    Raises:
        ModelError: Not a saved model.
        DataError: The folder does not exist.
    """

    def __init__(self, model: Path, folder: str | None = None):
        self._predictor = Predictor(model)
        self._folder = None if folder is None else Path(folder).expanduser().resolve()
        if self._folder is not None and not self._folder.is_dir():
            raise DataError(f"image_folder: got {folder!r}; allowed: a folder that exists")

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """Classifies the images of some rows.

        Returns:
            Columns: ``prediction``, and ``p_<class>`` for each class; of a model with a review, whether a person should
            look at it, ``review``, and why, ``reason``.

        Raises:
            DataError: Rows without a usable image, by their number from 0; nothing was classified.
        """
        predictor = self._predictor
        store = ImageStore(crop=predictor.crop, max_megapixels=predictor.max_megapixels)
        digests, problems = [], []
        for number, row in enumerate(rows):
            try:
                data = self._bytes_of(row)
                digests.append(hashlib.sha256(data).hexdigest())
                store.put(digests[-1], data, predictor.classifier.specs)
            except (ValueError, OSError) as error:
                problems.append(f"row {number}: {error}")
        if problems:
            more = [f"and {len(problems) - _MOST_NAMED} more"] if len(problems) > _MOST_NAMED else []
            raise DataError("\n".join([*problems[:_MOST_NAMED], *more]))
        stages, features = predictor.classifier.outputs(Images(store, digests))
        classes, probabilities = stages[""]
        columns = {f"p_{label}": probabilities[:, i].tolist() for i, label in enumerate(classes)}
        if predictor.review is not None:
            reasons = predictor.review.reasons(classes, probabilities, features)
            columns |= {"review": [bool(reason) for reason in reasons], "reason": reasons}
        return {"prediction": classes[probabilities.argmax(axis=1)].tolist(), **columns}

    def _bytes_of(self, row: Mapping[str, Any]) -> bytes:
        """The image file of a row.

        Raises:
            ValueError: It has none, or two.
            OSError: It cannot be read.
        """
        given = {key: row[key] for key in ("image", "path") if not _is_missing(row.get(key))}
        if len(given) != 1:
            raise ValueError(f"got {' and '.join(given) or 'no image'}; allowed: one of image, path")
        if "path" in given:
            return self._read(given["path"])
        image = given["image"]
        if isinstance(image, bytes):
            return image
        if isinstance(image, str):
            try:
                return base64.b64decode(image, validate=True)
            except (binascii.Error, ValueError) as error:
                raise ValueError(f"image: text that is no base64 ({error})") from error
        return _as_png(image)

    def _read(self, path: Any) -> bytes:
        """The bytes of a file in the folder; of any other path nothing is reported, not even whether it exists."""
        if self._folder is None:
            raise ValueError("path: paths are refused; allowed: image, or a model loaded with image_folder")
        try:
            file = (self._folder / path).resolve()
            if not file.is_relative_to(self._folder):
                raise ValueError(f"outside {self._folder}")
            file_digest(file)  # refuses what is no regular file
            return file.read_bytes()
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise ValueError(f"path: got {path!r}; allowed: image files in image_folder") from error


def _is_missing(value: Any) -> bool:
    """Whether a cell of a table is empty: None or NaN."""
    return value is None or (isinstance(value, float) and np.isnan(value))


def _as_png(pixels: Any) -> bytes:
    """Pixels as an image file without loss, so that they take the way of all others."""
    array = np.array(pixels.tolist() if isinstance(pixels, np.ndarray) and pixels.dtype == object else pixels)
    shape, is_colour = array.shape, array.ndim == 3 and array.shape[2:] == (3,)
    if array.dtype.kind not in "iu" or (array.ndim != 2 and not is_colour) or array.size == 0:
        raise ValueError(f"image: got {array.dtype} {shape}; allowed: uint8 (height, width) or (height, width, 3)")
    if array.min() < 0 or array.max() > 255:
        raise ValueError(f"image: got pixels from {array.min()} to {array.max()}; allowed: 0 to 255")
    file = io.BytesIO()
    Image.fromarray(array.astype(np.uint8)).save(file, "PNG", compress_level=0)
    return file.getvalue()
