"""Which images to label next: those that a model is least certain of, and that differ from one another."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectro.comparison.page import data_uri
from spectro.data.decode import BadImageError
from spectro.data.inputs import ImageInput, find_inputs
from spectro.errors import DataError
from spectro.files import read_csv, write_csv
from spectro.labels.page import SIDE_PX, Card, Section, write_page
from spectro.runs.predict import Predictor

# Clusters are made of so many times as many images as are chosen.
_CANDIDATES = 10


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
        predictor: The model.
        chosen: The images, ``n``, the smallest margin first.
        probabilities: Theirs, ``(n, k)``.
        n_images: Number of images that they were chosen from.
        n_known: Number of further images whose bytes are those of a record of the run, or of another image.
        bad: File that holds no image -> the reason.
    """

    predictor: Predictor
    chosen: Sequence[ImageInput]
    probabilities: np.ndarray
    n_images: int
    n_known: int
    bad: dict[str, str]


def suggest(run: Path, paths: Sequence[Path], n: int) -> Suggestion:
    """Chooses at most ``n`` images to label by the model of a run directory.

    Raises:
        SpectroError: The run has no model, a path is not there, or no image is left to label.
    """
    predictor = Predictor(run / "model")
    if len(predictor.classifier.classes_) < 2:
        raise DataError("RUN: got a model of one class; allowed: two or more")
    try:
        seen = {row["sha256"] for row in read_csv(run / "records.csv")}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{run / 'records.csv'}: damaged or not there ({error})") from error
    inputs = find_inputs(paths)
    new: list[ImageInput] = []
    bad: dict[str, str] = {}
    for item in inputs:
        try:
            digest = hashlib.sha256(item.read(predictor.max_megapixels)).hexdigest()
        except BadImageError as error:
            bad[item.name] = str(error)
            continue
        if digest not in seen:
            new.append(item)
        seen.add(digest)
    n_known, items, parts = len(inputs) - len(new) - len(bad), list[ImageInput](), []
    for batch in predictor.stream(new):
        bad |= {batch.inputs[row].name: reason for row, reason in batch.bad.items()}
        items += [batch.inputs[row] for row in batch.good]
        if batch.good:  # else the features have no columns
            parts.append((batch.stages[""].probabilities, batch.features))
    if not items:
        raise DataError(f"got no image to label in {', '.join(map(str, paths))}; {n_known} are labelled already")
    probabilities, features = (np.concatenate(part) for part in zip(*parts, strict=True))
    rows = choose(features, probabilities, n)
    return Suggestion(predictor, [items[i] for i in rows], probabilities[rows], len(items), n_known, bad)


def write(found: Suggestion, folder: Path, run: str) -> None:
    """Writes ``suggest.csv``, with an empty column ``label``, and ``suggest.html`` into a new folder."""
    classes, p = found.predictor.classifier.classes_, found.probabilities
    rows, cards = list[list[Any]](), list[Card]()
    for rank, (item, of_image) in enumerate(zip(found.chosen, p, strict=True), 1):
        first, second = np.argsort(-of_image, kind="stable")[:2]
        rows.append([rank, item.name, "", classes[first], of_image[first] - of_image[second], *of_image])
        image = data_uri(found.predictor.thumbnail(item, SIDE_PX)), item.name
        text = f"{rank}. {classes[first]} {of_image[first]:.2f}, {classes[second]} {of_image[second]:.2f}"
        cards.append(Card([image], [(text, ""), (item.name, "muted")]))
    header = ["rank", "path", "label", "prediction", "margin", *(f"p_{label}" for label in classes)]
    write_csv(folder / "suggest.csv", header, rows)
    note = f"{len(cards)} of {found.n_images} images, by the model of {run}, with its two most probable classes."
    about = "The least certain image of each of as many clusters of uncertain images, so that they differ."
    write_page(folder / "suggest.html", "Label these next", note, [Section("Images", about, cards)])
