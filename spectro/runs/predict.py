"""A fitted model on new image files."""

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectro.classifiers import CascadeClassifier, ImageClassifier, load
from spectro.classifiers.base import StageOutput
from spectro.data import Crop, Images, ImageStore, Record
from spectro.data.decode import BadImageError, decode
from spectro.data.inputs import ImageInput, find_inputs
from spectro.data.look import QUANTITIES, checked_ranges, look_of
from spectro.errors import ConfigError, ModelError
from spectro.knobs import validate
from spectro.paths import cores
from spectro.runs.predictions import Predictions
from spectro.runs.review import load_review

# Images that are classified, and then written, together: a multiple of what all families compute at a time.
_BATCH = 192
# The last columns: whether a person should look at the image (empty where the model has no rule for it), and why.
_REVIEW = ("review", "reason")


def predict_files(model: Path, paths: Iterable[Path]) -> tuple[Predictions, dict[Path, str]]:
    """Classifies image files with a saved model, cropped as its training images were.

    Args:
        model: The ``model/`` folder of a run.
        paths: Image files, folders that are searched through, globs, or zip archives.

    Returns:
        Predictions without labels, ordered by path, and files that hold no image with the reason.

    Raises:
        ModelError: Not a saved model.
        DataError: A path that is not there, or no images at all.
    """
    predictor = Predictor(model)
    inputs = find_inputs(paths)
    records: list[Record] = []
    probabilities = [np.empty((0, len(predictor.classifier.classes_)))]
    bad: dict[Path, str] = {}
    for batch in predictor.stream(inputs):
        files = [item.path / item.entry for item in batch.inputs]
        bad |= {files[row]: reason for row, reason in batch.bad.items()}
        records += [Record(files[row], "", "", files[row].stem) for row in batch.good]
        probabilities.append(batch.stages[""].probabilities)
    y_true = np.full(len(records), "", dtype=object)
    return Predictions(records, y_true, predictor.classifier.classes_, np.concatenate(probabilities)), bad


@dataclass(frozen=True)
class Batch:
    """Some images, classified.

    Attributes:
        inputs: Where they come from, ``n``.
        bad: Row of an input that holds no image -> the reason.
        good: The other rows, ``m`` of them.
        stages: The outputs for the good ones, by the names of `ImageClassifier.outputs`, each ``(m, k)``.
        features: Theirs, ``(m, d)``, see `ImageClassifier.features`.
        looks: Theirs, ``(m, 7)``, see `spectro.data.look`.
    """

    inputs: Sequence[ImageInput]
    bad: dict[int, str]
    good: list[int]
    stages: dict[str, StageOutput]
    features: np.ndarray
    looks: np.ndarray


class Predictor:
    """A saved model, from the ``model/`` folder of a run, with all that is needed to apply it to image files.

    Attributes:
        classifier: The fitted classifier.
        review: Which predictions a person should look at; None: it has no rule for that.
        stages: The classes of the classifier, whose name is empty, and of each stage of a cascade.
        crop: The margins that are cut off.
        max_megapixels: Larger images are refused.
        ranges: What its training images look like, see `spectro.data.look`; None: an older model.

    Raises:
        ModelError: Not a saved model.
    """

    def __init__(self, model: Path):
        self.classifier, use = load_for_files(model)
        self.crop, self.max_megapixels, self.ranges = use["crop"], use["max_megapixels"], use["training_images"]
        self.review = load_review(model, list(self.classifier.classes_))
        classifiers = {"": self.classifier}
        if isinstance(self.classifier, CascadeClassifier):
            classifiers |= self.classifier.stages_
        self.stages = {name: classifier.classes_ for name, classifier in classifiers.items()}

    @property
    def columns(self) -> list[str]:
        """The columns of a table of predictions, see `rows_of`."""
        stages = [(f"{stage}/" if stage else "", classes) for stage, classes in self.stages.items()]
        return ["path", "prediction", *(f"{s}p_{label}" for s, classes in stages for label in classes), *_REVIEW]

    def rows_of(self, batch: Batch) -> list[list[Any]]:
        """A row for each image: path, prediction, probabilities of the whole and of the stages, review and reason.

        A file that holds no image has neither prediction nor probabilities, and its reason.
        """
        outputs = [batch.stages[stage].probabilities for stage in self.stages]
        probabilities = np.concatenate(outputs, axis=1).tolist()
        predicted = self.classifier.classes_[outputs[0].argmax(axis=1)].tolist()
        reasons: Sequence[str | None] = [None] * len(predicted)
        if self.review is not None and predicted:
            reasons = self.review.reasons(list(self.classifier.classes_), outputs[0], batch.features)
        empty = [None] * len(self.columns[1 : -len(_REVIEW)])
        rows = [[item.name, *empty, True, batch.bad.get(i, "")] for i, item in enumerate(batch.inputs)]
        for row, label, values, reason in zip(batch.good, predicted, probabilities, reasons, strict=True):
            rows[row][1:] = [label, *values, None if reason is None else bool(reason), reason or ""]
        return rows

    def thumbnail(self, item: ImageInput, most_px: int) -> np.ndarray:
        """An image in colour and in its shape, cropped, no side longer than ``most_px``: uint8 (h, w, 3).

        Raises:
            BadImageError: It cannot be read or decoded.
        """
        image = decode(item.read(self.max_megapixels), self.crop, self.max_megapixels).convert("RGB")
        image.thumbnail((most_px, most_px))
        return np.asarray(image)

    def stream(self, inputs: Sequence[ImageInput]) -> Iterator[Batch]:
        """Batches in the order of ``inputs``. The next one is decoded, on all cores, while one is classified."""
        chunks = [inputs[i : i + _BATCH] for i in range(0, len(inputs), _BATCH)]
        with ThreadPoolExecutor(cores()) as pool, warnings.catch_warnings():
            # Pillow warns of large images and of odd metadata; the size is checked before a pixel is decoded.
            warnings.filterwarnings("ignore", module=r"PIL\.")

            def start(chunk: Sequence[ImageInput]) -> tuple[ImageStore, list[Future]]:
                store = ImageStore(crop=self.crop, max_megapixels=self.max_megapixels)
                return store, [pool.submit(self._decode, store, str(i), item) for i, item in enumerate(chunk)]

            try:
                decoding = start(chunks[0]) if chunks else None
                for number, chunk in enumerate(chunks):
                    assert decoding is not None
                    store, futures = decoding
                    decoding = start(chunks[number + 1]) if number + 1 < len(chunks) else None
                    yield self._classify(chunk, store, [future.result() for future in futures])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _decode(self, store: ImageStore, key: str, item: ImageInput) -> np.ndarray | str:
        """Puts an image into the store; returns what it looks like, or why it is none."""
        try:
            return look_of(store.put(key, item.read(self.max_megapixels), self.classifier.specs))
        except BadImageError as error:
            return str(error)

    def _classify(self, inputs: Sequence[ImageInput], store: ImageStore, decoded: Sequence[np.ndarray | str]) -> Batch:
        bad = {row: result for row, result in enumerate(decoded) if isinstance(result, str)}
        good = [row for row in range(len(inputs)) if row not in bad]
        stages, features = self.classifier.outputs(Images(store, [str(row) for row in good]))
        looks = np.array([decoded[row] for row in good]).reshape(-1, len(QUANTITIES))
        return Batch(inputs, bad, good, stages, features, looks)


def load_for_files(model: Path) -> tuple[ImageClassifier, dict[str, Any]]:
    """A saved model and the checked content of its ``use.json``, which has how images are read.

    Its entry ``training_images`` is None where there is none, as of older models.

    Raises:
        ModelError: Not a saved model.
    """
    classifier, path = load(model), model / "use.json"
    try:
        use = json.loads(path.read_text(encoding="utf-8"))
        use["crop"], max_megapixels = validate(Crop, use["crop"], "crop."), use["max_megapixels"]
        if type(max_megapixels) not in (int, float) or not 0 < max_megapixels <= 1e6:
            raise ValueError(f"max_megapixels: got {max_megapixels}; allowed: above 0, at most 1e6")
        use["training_images"] = checked_ranges(use.get("training_images"))
        if list(use["classes"]) != list(classifier.classes_):
            raise ValueError(f"classes: got {use['classes']}; the model has {list(classifier.classes_)}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ConfigError) as error:
        raise ModelError(f"{path}: damaged or not there ({error})") from error
    return classifier, use
