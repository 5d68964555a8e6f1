"""A fitted model as one ONNX file, which gets its name once it gives the probabilities of the original."""

import json
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectro import __version__
from spectro.classifiers import ImageClassifier
from spectro.classifiers.cascade import merge
from spectro.data import Images, ImageStore
from spectro.data.decode import ImageSpec
from spectro.data.images import file_digest, pixels_of
from spectro.errors import DataError, ModelError
from spectro.evaluation import score
from spectro.evaluation.format import format_amount, format_number
from spectro.evaluation.paired import differences
from spectro.files import drafted, read_csv
from spectro.progress import status
from spectro.runs.predict import load_for_files
from spectro.runs.runinfo import RunInfo

# The largest difference of a probability from the original's.
TOLERANCE = 1e-4
_BATCH = 32
# Random images that are compared where those of the run are not there any more.
_N_RANDOM = 64


@dataclass(frozen=True)
class Measured:
    """A model on the images that it is compared on.

    Attributes:
        name: ``original``, ``onnx`` or ``int8``.
        n_bytes: Size of its files.
        images_per_s: From decoded images to probabilities.
        probabilities: ``(n, k)``.
    """

    name: str
    n_bytes: int
    images_per_s: float
    probabilities: np.ndarray


def export_onnx(run: Path, out: Path, *, int8: bool = False) -> list[str]:
    """Writes the model of a run as an ONNX file, and with ``int8`` a second one with 8-bit weights beside it.

    Its inputs are uint8 images in the geometries that the model reads, its output is ``probabilities``; everything
    between is in it. The geometries, the crop and the classes are in its metadata, see docs/how-to/export.md.

    Args:
        run: The run directory.
        out: The file; the one of 8 bits is called ``<stem>.int8.onnx``.
        int8: Whether weights are quantised as well.

    Returns:
        Lines for a person: a table of size, speed and macro-F1 of the models, and what is to be known about it.

    Raises:
        SpectroError: No run with a model, a family without a graph, a file that exists, or probabilities that differ
            from the original's by more than `TOLERANCE`; then nothing is written.
        ModuleNotFoundError: The extra ``export`` is not installed.
    """
    import onnx
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    small = out.with_name(f"{out.stem}.int8.onnx")
    for path in (out, small) if int8 else (out,):
        if path.exists() or not path.absolute().parent.is_dir():
            wrong = "exists already" if path.exists() else f"lies in {path.parent}, which does not exist"
            raise DataError(f"--out: got {path}, which {wrong}; allowed: a new file in a folder that exists")
    info, model = RunInfo.read(run), run / "model"
    info.check_files()
    classifier, use = load_for_files(model)

    from spectro.classifiers.whole_graph import WholeGraph, parts_of, to_fp32

    if int8 and not any(part.facts for part in parts_of(classifier)):
        raise ModelError(f"--int8: got a model without a network ({classifier.family}); allowed: cnn, vpt, embed")
    to_fp32(classifier)
    graph = WholeGraph(classifier).eval()
    images, y_true, sources, notes = _images(info, classifier, ImageStore(None, use["crop"], use["max_megapixels"]))
    if any(part.facts.get("precision") == "bf16" for part in parts_of(classifier)):
        notes.append("the network was trained in bf16; all models are computed in fp32 here")
    classifier.predict_proba(images[:1])  # what is loaded with the first call is not timed
    start = time.perf_counter()
    probabilities = classifier.predict_proba(images)
    speed = len(images) / (time.perf_counter() - start)
    n_bytes = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    models = [Measured("original", n_bytes, speed, probabilities)]
    about = {
        "classes": classifier.classes_.tolist(),
        "crop": asdict(use["crop"]),
        "inputs": [
            {"name": name, "mode": spec.mode, "width": spec.shape[1], "height": spec.shape[0], "fit": spec.fit}
            for name, spec in _named(classifier.specs).items()
        ],
        "spectro": __version__,
    }
    with drafted(out) as draft:
        with status("exporting"):
            content = _onnx(graph, classifier.specs)
            onnx.helper.set_model_props(content, {"spectro": json.dumps(about, ensure_ascii=False)})
            onnx.save(content, draft)
        models.append(_measured("onnx", draft, classifier.specs, images))
        if not (largest := _difference(*models)) <= TOLERANCE:
            other = (models[1].probabilities.argmax(axis=1) != probabilities.argmax(axis=1)).sum()
            raise ModelError(
                f"onnx: got probabilities that differ by up to {largest:.1e} from the original's, and {other} of "
                f"{len(images)} labels that differ; allowed: {TOLERANCE:g}. Nothing was written"
            )
        if int8:
            with drafted(small) as small_draft:
                _quantise(draft, small_draft)
                models.append(_measured("int8", small_draft, classifier.specs, images))
    return [*_table(models, about["classes"], y_true, sources), *notes]


def _table(models: Sequence[Measured], classes: list[Any], y_true: np.ndarray | None, sources: list[str]) -> list[str]:
    """The lines of a table with a row for each model, the original first; without labels it has no macro-F1."""
    original = models[0]
    rows = [["", "MB", "images/s", "macro-F1", "loss", "largest difference"]]
    labels = [np.array(classes, dtype=object)[model.probabilities.argmax(axis=1)] for model in models]
    for model, predicted in zip(models, labels, strict=True):
        cells = [model.name, format_amount(model.n_bytes / 1e6), format_amount(model.images_per_s), "", "", ""]
        if y_true is not None:
            scores = score(y_true, predicted, classes, sources=sources)
            cells[3] = format_number(scores["macro_f1"], scores["macro_f1_ci_low"], scores["macro_f1_ci_high"])
        if model is not original:
            if y_true is not None and (predicted != labels[0]).any():
                cells[4] = str(differences(y_true, labels[0], predicted, classes, sources=sources)["macro_f1"])
            elif y_true is not None:
                cells[4] = f"no label of {len(labels[0])} differs"
            cells[5] = f"{_difference(original, model):.1e}"
        rows.append(cells)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _difference(original: Measured, model: Measured) -> float:
    return float(abs(model.probabilities - original.probabilities).max(initial=0))


def _named(specs: Sequence[ImageSpec]) -> dict[str, ImageSpec]:
    return {f"images_{number}": spec for number, spec in enumerate(specs, 1)}


def _images(
    info: RunInfo, classifier: ImageClassifier, store: ImageStore
) -> tuple[Images | np.ndarray, np.ndarray | None, list[str], list[str]]:
    """The val records of a run, or those of train where there are none: images, labels, sources and notes.

    Where a file is gone or was changed they are random images, without labels.
    """
    rows = read_csv(info.folder / "records.csv")
    split = "val" if any(row["split"] == "val" for row in rows) else "train"
    labels = np.array([row["label"] for row in rows], dtype=object)
    if info.tags.get("stage") == "easy":
        labels = merge(labels, info.config["mapping"].get("look_alikes") or {})
    chosen = [i for i, row in enumerate(rows) if row["split"] == split and labels[i] in classifier.classes_]
    root, reason = Path(info.data.root if info.data else ""), "no records"
    paths, digests = [root / rows[i]["path"] for i in chosen], [rows[i]["sha256"] for i in chosen]
    try:
        changed = [path for path, digest in zip(paths, digests, strict=True) if file_digest(path) != digest]
        bad = {**dict.fromkeys(changed, "changed since"), **store.add(paths, digests, classifier.specs)}
        reason = next((f"{path}: {text}" for path, text in bad.items()), "" if paths else "no records")
    except OSError as error:
        reason = f"{error.filename or root}: {error.strerror or error}"
    if reason:
        note = f"compared on {_N_RANDOM} random images, as those of {split} are not there ({reason})"
        return np.random.default_rng(0).integers(0, 256, (_N_RANDOM, 64, 64, 3), dtype=np.uint8), None, [], [note]
    fitted = " (the model was fitted to them)" if split == "train" or info.config["validation"].get("refit") else ""
    notes = [f"compared on the {len(paths)} records of {split}{fitted}; differences are those of probabilities"]
    return Images(store, digests), labels[chosen], [rows[i]["source"] for i in chosen], notes


def _onnx(graph: Any, specs: Sequence[ImageSpec]) -> Any:
    """The ONNX model of a module, whose first axis has any size."""
    import torch
    from onnx_ir.passes import common

    n = torch.export.Dim("n")
    with _quiet():
        program: Any = torch.onnx.export(
            graph,
            tuple(torch.zeros(3, *spec.shape, dtype=torch.uint8) for spec in specs),
            input_names=list(_named(specs)),
            output_names=["probabilities"],
            dynamic_shapes=(tuple({0: n} for _ in specs),),
            dynamo=True,
            verbose=False,
        )
        # Stages and members that have the same backbone or the same features are computed once.
        common.DeduplicateInitializersPass(size_limit=1 << 40)(program.model)
        common.CommonSubexpressionEliminationPass()(program.model)
    content = program.model_proto
    for part in (*content.graph.node, *content.graph.value_info, *content.graph.initializer, content.graph):
        del part.metadata_props[:]  # paths of this machine
        part.doc_string = ""
    return content


def _measured(name: str, path: Path, specs: Sequence[ImageSpec], images: Images | np.ndarray) -> Measured:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    seconds, parts = 0.0, []
    # One image first: what is loaded with the first call is not timed.
    for start, stop in [(0, 1), *((i, i + _BATCH) for i in range(0, len(images), _BATCH))]:
        inputs = {key: pixels_of(images[start:stop], spec) for key, spec in _named(specs).items()}
        began = time.perf_counter()
        parts += session.run(None, inputs)
        seconds += time.perf_counter() - began if stop > 1 else 0.0
    return Measured(name, path.stat().st_size, len(images) / seconds, np.concatenate(parts[1:]))


def _quantise(path: Path, out: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        # The principal components of an SVM stay as they are: 8 bits of them change most predictions.
        tail = [n.name for n in onnx.load(path).graph.node if any(name.endswith("_matrix") for name in n.input)]
        quantize_dynamic(path, out, per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=tail)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the libraries say of each node."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
