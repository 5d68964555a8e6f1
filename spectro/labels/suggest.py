"""Which images to label next: those that a model is least certain of, and that differ from one another."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectro.data import Images, ImageStore
from spectro.data.images import file_digest
from spectro.data.manifest import IMAGE_ENDINGS
from spectro.errors import DataError
from spectro.files import read_csv, write_csv
from spectro.labels.page import SIDE_PX, Card, Section, data_uri, write_page
from spectro.runs.predict import load_for_files

# Clusters are made of so many times as many images as are chosen.
_CANDIDATES = 10
_BATCH = 512


def margins(probabilities: np.ndarray) -> np.ndarray:
    """The largest probability minus the second largest, ``(n,)``: 0 where the model cannot decide."""
    ordered = np.sort(probabilities, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def choose(features: np.ndarray, probabilities: np.ndarray, n: int) -> np.ndarray:
    """Chooses images to label: margin within clusters.

    The images of the smallest margins, ten times as many as are chosen, are divided into as many clusters as are
    chosen, and of each cluster that of the smallest margin is taken. After G. Citovsky et al. (2021), "Batch active
    learning at scale", NeurIPS 34, and F. Zhdanov (2019), "Diverse mini-batch active learning", arXiv:1901.05954; here
    clusters are those of Ward's method, which are of similar sizes and depend on no seed.

    Args:
        features: ``(m, d)``.
        probabilities: ``(m, k)``, two classes or more.
        n: How many are chosen, at most ``m``.

    Returns:
        Their indices, ``(n,)``, the smallest margin first.
    """
    from scipy.cluster.hierarchy import cut_tree, linkage

    margin = margins(probabilities)
    candidates = np.argsort(margin, kind="stable")[: _CANDIDATES * n]
    if len(candidates) <= n:
        return candidates
    cluster = cut_tree(linkage(features[candidates], "ward"), n)[:, 0]
    # Candidates are ordered by margin: the first of a cluster has its smallest.
    return candidates[np.sort(np.unique(cluster, return_index=True)[1])]


@dataclass(frozen=True)
class Suggestion:
    """Images to label.

    Attributes:
        classes: The classes of the model, ``(k,)``.
        store: The chosen images.
        chosen: Their files and digests, ``n``, the smallest margin first.
        probabilities: Theirs, ``(n, k)``.
        n_images: Number of images that they were chosen from.
        n_known: Number of further images whose bytes are those of a record of the run, or of another image.
        bad: File that holds no image -> the reason.
    """

    classes: np.ndarray
    store: ImageStore
    chosen: Sequence[tuple[Path, str]]
    probabilities: np.ndarray
    n_images: int
    n_known: int
    bad: dict[Path, str]


def suggest(run: Path, paths: Sequence[Path], n: int) -> Suggestion:
    """Chooses images to label by the model of a run.

    Args:
        run: A run directory.
        paths: Images, or folders of them.
        n: How many at most.

    Raises:
        SpectroError: The run has no model, a path is not there, or no image is left to label.
    """
    classifier, crop, max_megapixels = load_for_files(run / "model")
    if len(classifier.classes_) < 2:
        raise DataError("RUN: got a model of one class; allowed: two or more")
    try:
        labelled = {row["sha256"] for row in read_csv(run / "records.csv")}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{run / 'records.csv'}: damaged or not there ({error})") from error
    bad: dict[Path, str] = {}
    new: dict[str, Path] = {}
    files = _files(paths)
    for path in files:
        try:
            digest = file_digest(path)
        except OSError as error:
            bad[path] = f"cannot be opened ({error.strerror or error})"
        else:
            if digest not in labelled:
                new.setdefault(digest, path)
    n_known, digests, parts = len(files) - len(new) - len(bad), list[str](), []
    # A batch at a time, in memory: there may be many of them.
    for batch in (list(new)[i : i + _BATCH] for i in range(0, len(new), _BATCH)):
        store = ImageStore(crop=crop, max_megapixels=max_megapixels)
        bad |= store.add([new[digest] for digest in batch], batch, classifier.specs)
        if good := [digest for digest in batch if new[digest] not in bad]:
            stages, features = classifier.outputs(Images(store, good))
            digests += good
            parts.append((stages[""].probabilities, features))
    if not digests:
        raise DataError(f"got no image to label in {', '.join(map(str, paths))}; {n_known} are labelled already")
    probabilities, features = (np.concatenate(part) for part in zip(*parts, strict=True))
    rows = choose(features, probabilities, n)
    chosen = [(new[digests[i]], digests[i]) for i in rows]
    store = ImageStore(crop=crop, max_megapixels=max_megapixels)
    store.add([path for path, _ in chosen], [digest for _, digest in chosen], [])
    return Suggestion(classifier.classes_, store, chosen, probabilities[rows], len(digests), n_known, bad)


def _files(paths: Sequence[Path]) -> list[Path]:
    """The image files in folders and below, and files themselves, each once; hidden ones are passed over."""
    found = set[Path]()
    for path in paths:
        if not path.exists():
            raise DataError(f"UNLABELLED_DIR: got {str(path)!r}; allowed: a folder or an image that exists")
        inside = path.rglob("*") if path.is_dir() else [path]
        found |= {file for file in inside if file.suffix.lower() in IMAGE_ENDINGS and file.name[0] != "."}
    return sorted(found)


def shown(path: Path) -> str:
    """A path as text; bytes of a name that are not UTF-8 as ``\\xff``."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def write(found: Suggestion, folder: Path, run: str) -> None:
    """Writes ``suggest.csv``, with an empty column ``label``, and ``suggest.html`` into a new folder.

    Args:
        found: What was chosen.
        folder: The folder.
        run: The name of the run, for the page.
    """
    classes, rows, cards = found.classes, list[list[Any]](), list[Card]()
    for rank, ((path, digest), p) in enumerate(zip(found.chosen, found.probabilities, strict=True), 1):
        first, second = np.argsort(-p, kind="stable")[:2]
        rows.append([rank, shown(path), "", classes[first], p[first] - p[second], *p])
        image = data_uri(found.store.thumbnail(digest, SIDE_PX)), shown(path)
        text = f"{rank}. {classes[first]} {p[first]:.2f}, {classes[second]} {p[second]:.2f}"
        cards.append(Card([image], [(text, ""), (shown(path), "muted")]))
    header = ["rank", "path", "label", "prediction", "margin", *(f"p_{label}" for label in classes)]
    write_csv(folder / "suggest.csv", header, rows)
    note = f"{len(cards)} of {found.n_images} images, by the model of {run}, with its two most probable classes."
    about = "The least certain image of each of as many clusters of uncertain images, so that they differ."
    write_page(folder / "suggest.html", "Label these next", note, [Section("Images", about, cards)])
