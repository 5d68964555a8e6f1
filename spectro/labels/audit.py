"""Records whose label may be wrong, near-duplicates, records unlike all others; and a corrected copy of the labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from spectro.classifiers import load
from spectro.comparison.baselines import load_dataset
from spectro.comparison.load import Run
from spectro.data import Dataset, ImageStore, Record
from spectro.errors import DataError
from spectro.files import as_csv, read_csv, write_csv, write_text
from spectro.knobs import did_you_mean
from spectro.labels.page import Card, Section, thumbnail, write_page
from spectro.labels.runs import mean_probabilities
from spectro.runs.predictions import Predictions

# From this cosine on two records are near-duplicates; docs/how-to/labels.md has what it finds.
NEAR = 0.985
_NEIGHBOURS = 5
# What the page shows at most; the tables have everything.
_SHOWN = {"labels": 60, "duplicates": 40, "unlike": 24}
_COLUMNS = ("rank", "path", "split", "source", "label", "suggested", "p_label", "p_suggested", "issue")
_MORE_COLUMNS = ("distance", "unlike_all_others", "near_duplicates", "new_label")


@dataclass(frozen=True)
class Duplicate:
    """Two records of different sources that are nearly the same image; indices of records."""

    a: int
    b: int
    cosine: float


@dataclass(frozen=True)
class Audit:
    """What an audit finds.

    Attributes:
        records: All records, ``n``; ``path`` is relative.
        order: Indices of the records of train and val, that of the least probable label first.
        suggested: Index -> the most probable class out of fold, of train and val.
        p: Index -> out-of-fold probabilities of its label and of ``suggested``.
        issues: Indices that cleanlab finds to be label issues.
        distance: Mean distance to the 5 nearest records of other sources, divided by its median over all, ``(n,)``.
        unlike: Whether it is far out, ``(n,)``.
        duplicates: Near-duplicates, those that differ in class or split first.
    """

    records: Sequence[Record]
    order: Sequence[int]
    suggested: dict[int, str]
    p: dict[int, tuple[float, float]]
    issues: set[int]
    distance: np.ndarray
    unlike: np.ndarray
    duplicates: Sequence[Duplicate]

    def differs(self, pair: Duplicate) -> str:
        """In what two near-duplicates differ: ``class``, ``split``, ``class and split`` or nothing."""
        a, b = self.records[pair.a], self.records[pair.b]
        return " and ".join(["class"] * (a.label != b.label) + ["split"] * (a.split != b.split))


def label_issues(predictions: Predictions, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which labels are wrong by confident learning, with cleanlab.

    C. Northcutt, L. Jiang and I. Chuang (2021), "Confident learning: estimating uncertainty in dataset labels", Journal
    of Artificial Intelligence Research 70, 1373-1411. It assumes probabilities out of fold, and that whether a label is
    wrong depends on the true class and not on the image.

    Args:
        predictions: The records and their labels, ``n``.
        probabilities: Out-of-fold probabilities, ``(n, k)``.

    Returns:
        The probability of each label, ``(n,)``, by which records are ranked, as cleanlab's self-confidence does; and
        whether it is a label issue.
    """
    from cleanlab.filter import find_label_issues

    y = np.searchsorted(predictions.classes, predictions.y_true)
    return probabilities[np.arange(len(y)), y], find_label_issues(y, probabilities, n_jobs=1)


def read_features(run: Run, outputs: Path) -> tuple[Dataset, np.ndarray]:
    """The data of a run, and the features of all records by its model, ``(n, d)``.

    Raises:
        SpectroError: The images are no longer there or have changed, or the run has no model.
    """
    dataset = load_dataset(run, outputs)
    return dataset, load(run.info.folder / "model").features(dataset.images(dataset.records))


def audit(run: Run, dataset: Dataset, features: np.ndarray) -> Audit:
    """Looks for doubtful records; the labels of test are compared with no prediction.

    Args:
        run: A run with out-of-fold predictions of the whole task.
        dataset: Its data.
        features: Of ``dataset.records``, by the run's model, ``(n, d)``.
    """
    records = [replace(record, path=Path(dataset.name_of(record))) for record in dataset.records]
    index = {record.path: i for i, record in enumerate(records)}
    first, probabilities = run.out_of_fold[0], mean_probabilities(run.out_of_fold)
    if len(first.classes) < 2:
        raise DataError("RUN: got one class; allowed: two or more")
    rows = [index[record.path] for record in first.records]
    p_label, is_issue = label_issues(first, probabilities)
    best = probabilities.argmax(axis=1)
    p = np.stack([p_label, probabilities.max(axis=1)], axis=1).tolist()
    sources = np.unique([record.source for record in records], return_inverse=True)[1]
    kinds = np.unique([f"{record.split}/{record.label}" for record in records], return_inverse=True)[1]
    found = near_duplicates(features, sources, kinds)
    distance, unlike = unlike_others(features, sources)
    return Audit(
        records,
        [rows[i] for i in sorted(range(len(rows)), key=lambda i: (p_label[i], str(first.records[i].path)))],
        {row: str(first.classes[best[i]]) for i, row in enumerate(rows)},
        {row: (p[i][0], p[i][1]) for i, row in enumerate(rows)},
        {row for row, flag in zip(rows, is_issue, strict=True) if flag},
        distance,
        unlike,
        sorted(found, key=lambda pair: (kinds[pair.a] == kinds[pair.b], -pair.cosine, pair.a, pair.b)),
    )


def near_duplicates(features: np.ndarray, sources: np.ndarray, kinds: np.ndarray) -> list[Duplicate]:
    """Pairs of different sources whose features have a cosine of 0.985 or more.

    Of each record the nearest one of its kind and the nearest one of another kind are looked at, so that many equal
    images give no square of pairs.

    Args:
        features: ``(n, d)``.
        sources: Number of each record's source, ``(n,)``.
        kinds: Number of each record's class and split, ``(n,)``.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    nearest: dict[tuple[int, int], float] = {}
    for rows in _chunks(len(unit)):
        cosine = unit[rows] @ unit.T
        cosine[sources[rows][:, None] == sources] = -1
        same = kinds[rows][:, None] == kinds
        for of_kind in (np.where(same, cosine, -1), np.where(same, -1, cosine)):
            for row, column in zip(rows.tolist(), of_kind.argmax(axis=1).tolist(), strict=True):
                nearest[min(row, column), max(row, column)] = float(of_kind[row - rows[0], column])
    return [Duplicate(a, b, min(c, 1.0)) for (a, b), c in nearest.items() if c >= NEAR]


def unlike_others(features: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean Euclidean distance to the 5 nearest records of other sources, over its median, and whether it is far out.

    Far out: above the third quartile by more than three interquartile ranges (J. Tukey, 1977, "Exploratory data
    analysis").

    Args:
        features: ``(n, d)``.
        sources: Number of each record's source, ``(n,)``.
    """
    squares, mean = (features**2).sum(axis=1), np.zeros(len(features))
    for rows in _chunks(len(features)):
        distance = np.sqrt(np.maximum(squares[rows][:, None] + squares - 2 * features[rows] @ features.T, 0))
        distance[sources[rows][:, None] == sources] = np.inf
        nearest = np.sort(distance, axis=1)[:, :_NEIGHBOURS]
        is_there = np.isfinite(nearest)
        mean[rows] = np.where(is_there, nearest, 0).sum(axis=1) / np.maximum(is_there.sum(axis=1), 1)
    low, middle, high = np.quantile(mean, [0.25, 0.5, 0.75])
    return mean / max(middle, 1e-12), mean > high + 3 * (high - low)


def _chunks(n: int, size: int = 500) -> Iterator[np.ndarray]:
    return (np.arange(start, stop) for start, stop in pairwise([*range(0, n, size), n]) if stop > start)


def write(audit: Audit, store: ImageStore, folder: Path, title: str, note: str) -> None:
    """Writes ``audit.csv``, a row for each record, ``duplicates.csv`` and ``audit.html``.

    Args:
        audit: What was found.
        store: The images.
        folder: A new folder.
        title: Of the page.
        note: Below it.
    """
    records, twins = audit.records, [list[str]() for _ in audit.records]
    for pair in audit.duplicates:
        twins[pair.a].append(records[pair.b].path.as_posix())
        twins[pair.b].append(records[pair.a].path.as_posix())
    rank = {row: number for number, row in enumerate(audit.order, 1)}
    rows: list[list[Any]] = []
    for row in [*audit.order, *(i for i in range(len(records)) if i not in rank)]:
        record = records[row]
        named = [record.path.as_posix(), record.split, record.source, record.label]
        scores = [audit.suggested[row], *audit.p[row], row in audit.issues] if row in rank else []
        about = [float(audit.distance[row]), bool(audit.unlike[row]), " | ".join(twins[row]), ""]
        rows.append([rank.get(row, ""), *named, *(scores or [""] * 4), *about])
    write_csv(folder / "audit.csv", [*_COLUMNS, *_MORE_COLUMNS], rows)
    header = ["path_a", "path_b", "label_a", "label_b", "split_a", "split_b", "cosine", "differs_in"]
    pairs = []
    for pair in audit.duplicates:
        a, b = records[pair.a], records[pair.b]
        names = [a.path.as_posix(), b.path.as_posix(), a.label, b.label, a.split, b.split]
        pairs.append([*names, pair.cosine, audit.differs(pair)])
    write_csv(folder / "duplicates.csv", header, pairs)
    write_page(folder / "audit.html", title, note, _sections(audit, store))


def _sections(audit: Audit, store: ImageStore) -> list[Section]:
    def image(row: int) -> tuple[str, str]:
        return thumbnail(store, audit.records[row].digest), audit.records[row].path.as_posix()

    def place(row: int) -> tuple[str, str]:
        return audit.records[row].path.as_posix(), "muted"

    n_shown = min(max(len(audit.issues), -(-len(audit.order) // 10)), _SHOWN["labels"])
    labels = [
        Card(
            [image(row)],
            [
                (f"{rank}. label {audit.records[row].label}, p = {audit.p[row][0]:.2f}", "true"),
                (f"suggested {audit.suggested[row]}, p = {audit.p[row][1]:.2f}", "wrong"),
                ("label issue" if row in audit.issues else "", "muted"),
                place(row),
            ],
        )
        for rank, row in enumerate(audit.order[:n_shown], 1)
    ]
    across = [pair for pair in audit.duplicates if audit.differs(pair)]
    duplicates = [
        Card(
            [image(pair.a), image(pair.b)],
            [
                (f"cosine {pair.cosine:.4f}; differ in {audit.differs(pair)}", "wrong"),
                *(
                    line
                    for row in (pair.a, pair.b)
                    for line in ((f"{audit.records[row].split}, {audit.records[row].label}", ""), place(row))
                ),
            ],
        )
        for pair in across[: _SHOWN["duplicates"]]
    ]
    far = [row for row in np.argsort(-audit.distance).tolist() if audit.unlike[row]]
    unlike = [
        Card(
            [image(row)],
            [
                (f"{audit.distance[row]:.1f} times the median distance", "wrong"),
                (audit.records[row].label, ""),
                place(row),
            ],
        )
        for row in far[: _SHOWN["unlike"]]
    ]
    inside = len(audit.duplicates) - len(across)
    return [
        Section(
            "Labels that the predictions contradict",
            f"The first {len(labels)} of {len(audit.order)} records of train and val, that of the least probable label "
            f"first, by models that were not fitted to it. cleanlab finds {len(audit.issues)} label issues. It assumes "
            "that labels are wrong by class and not by image: records that are hard to classify stand here as well.",
            labels,
        ),
        Section(
            "Near-duplicates across classes and splits",
            f"{len(across)} pairs of different sources, {len(duplicates)} shown. In two classes: one label may be "
            f"wrong. In two splits: a leak. {inside} more pairs, within one class and split, are in duplicates.csv.",
            duplicates,
        ),
        Section(
            "Records unlike all others",
            f"{len(far)} records, {len(unlike)} shown: their mean distance to the {_NEIGHBOURS} nearest records of "
            "other sources is far out (Tukey's outer fence).",
            unlike,
        ),
    ]


def write_corrected(run: Run, table: Path, out: Path) -> tuple[int, int]:
    """Writes a copy of a run's labels with the corrections of an edited ``audit.csv``; a table for ``data=table``.

    Args:
        run: The run that was audited.
        table: A row for each record that stays; a cell ``new_label`` that is not empty is the class it gets.
        out: A new file with the columns path, label, split, source. Labels are folders, as the run's mapping has them.

    Returns:
        How many labels were changed, and how many records were left out.

    Raises:
        DataError: A line for each mistake; nothing was written.
    """
    try:
        rows = [row for row in read_csv(table) if any(row.values())]
        given = [(row["path"], row["label"], row["new_label"].strip()) for row in rows]
    except KeyError as error:
        raise DataError(
            f"--apply: got {str(table)!r} without a column {error}; allowed: an edited audit.csv"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"--apply: got {str(table)!r} ({error}); allowed: an edited audit.csv") from error
    record_of = {record.path.as_posix(): record for record in run.records}
    folders = run.info.config["mapping"].get("classes") or {}
    classes = sorted({record.label for record in run.records})
    problems, corrected, seen = [], [], set[str]()
    for path, label, new in given:
        if path in seen or path not in record_of:
            problems.append(f"path: got {path!r} {'twice' if path in seen else ''}; allowed: each record of RUN once")
        elif label != record_of[path].label:
            problems.append(
                f"label of {path}: got {label!r}; RUN has {record_of[path].label!r}; fill new_label instead"
            )
        elif new and new not in classes:
            problems.append(
                f"new_label of {path}: got {new!r}; allowed: {', '.join(classes)}{did_you_mean(new, classes)}"
            )
        else:
            is_new = bool(new) and new != label
            folder = (folders.get(new) or [new])[0] if is_new else record_of[path].folder
            corrected.append((is_new, [path, folder, record_of[path].split, record_of[path].source]))
        seen.add(path)
    if problems or not corrected:
        more = f"\n  and {len(problems) - 20} more" * (len(problems) > 20)
        raise DataError("\n  ".join([f"--apply: got {str(table)!r}", *(problems[:20] or ["no rows"])]) + more)
    write_text(out, as_csv(["path", "label", "split", "source"], [row for _, row in corrected]))
    return sum(is_new for is_new, _ in corrected), len(run.records) - len(corrected)
