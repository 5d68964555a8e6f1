"""Records whose label may be wrong, near-duplicates, records unlike all others; and a corrected copy of the labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectro.classifiers import load
from spectro.comparison.baselines import load_dataset
from spectro.comparison.load import Run
from spectro.comparison.page import data_uri
from spectro.data import Dataset
from spectro.errors import DataError
from spectro.files import read_csv, write_csv, write_rows
from spectro.knobs import did_you_mean
from spectro.labels.page import SIDE_PX, Card, Section, write_page
from spectro.labels.runs import mean_probabilities
from spectro.runs.predictions import Predictions

# From this cosine on two records are near-duplicates; docs/how-to/labels.md has what it finds.
NEAR = 0.985
_NEIGHBOURS = 5
# Records that are compared with all others at a time.
_CHUNK = 500
# What the page shows at most; the tables have everything.
_MAX_LABELS, _MAX_PAIRS, _MAX_UNLIKE = 60, 40, 24


@dataclass(frozen=True)
class Audit:
    """What an audit finds.

    Attributes:
        dataset: The data of the run.
        rows: Of ``audit.csv``: records of train and val, that of the least probable label first, then those of test.
        pairs: Of ``duplicates.csv``: those that differ in class or split first.
    """

    dataset: Dataset
    rows: list[dict[str, Any]]
    pairs: list[dict[str, Any]]


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


def audit(run: Run, outputs: Path) -> Audit:
    """Looks for doubtful records; the labels of test are compared with no prediction.

    Raises:
        SpectroError: The images are no longer there or have changed, or the run has no model, or one class.
    """
    first, probabilities = run.out_of_fold[0], mean_probabilities(run.out_of_fold)
    if len(first.classes) < 2:
        raise DataError("RUN: got one class; allowed: two or more")
    p_label, is_issue = label_issues(first, probabilities)
    best = probabilities.argmax(axis=1)
    order = sorted(range(len(p_label)), key=lambda i: (p_label[i], str(first.records[i].path)))
    scores: dict[str, list[Any]] = {
        first.records[i].path.as_posix(): [
            *(rank, str(first.classes[best[i]]), float(p_label[i]), float(probabilities[i, best[i]]), bool(is_issue[i]))
        ]
        for rank, i in enumerate(order, 1)
    }
    dataset = load_dataset(run, outputs)
    records, names = dataset.records, [dataset.name_of(record) for record in dataset.records]
    features = load(run.info.folder / "model").features(dataset.images(records))
    sources = np.unique([record.source for record in records], return_inverse=True)[1]
    kinds = np.unique([f"{record.split}/{record.label}" for record in records], return_inverse=True)[1]
    distance, is_unlike = unlike_others(features, sources)
    pairs, twins = [], [list[str]() for _ in records]
    for a, b, cosine in near_duplicates(features, sources, kinds):
        twins[a].append(names[b])
        twins[b].append(names[a])
        pair: dict[str, Any] = {"path_a": names[a], "path_b": names[b]}
        differs = []
        for key in ("label", "split"):
            pair |= {f"{key}_{end}": getattr(records[i], key) for end, i in (("a", a), ("b", b))}
            differs += [key] * (pair[f"{key}_a"] != pair[f"{key}_b"])
        pairs.append({**pair, "cosine": cosine, "differs_in": " and ".join(differs)})
    rows = []
    for i, record in enumerate(records):
        rank, *of_label = scores.get(names[i], [""] * 5)
        named = {"rank": rank, "path": names[i], "split": record.split, "source": record.source, "label": record.label}
        scored = dict(zip(("suggested", "p_label", "p_suggested", "issue"), of_label, strict=True))
        about = {"distance": float(distance[i]), "unlike_all_others": bool(is_unlike[i])}
        rows.append({**named, **scored, **about, "near_duplicates": " | ".join(twins[i]), "new_label": ""})
    rows.sort(key=lambda row: (row["rank"] == "", row["rank"], row["path"]))
    pairs.sort(key=lambda pair: (pair["differs_in"] == "", -pair["cosine"], pair["path_a"], pair["path_b"]))
    return Audit(dataset, rows, pairs)


def near_duplicates(features: np.ndarray, sources: np.ndarray, kinds: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs of different sources whose features have a cosine of 0.985 or more.

    Of each record the nearest one of its kind and the nearest one of another kind are looked at, so that many equal
    images give no square of pairs.

    Args:
        features: ``(n, d)``.
        sources: Number of each record's source, ``(n,)``.
        kinds: Number of each record's class and split, ``(n,)``.

    Returns:
        Two records and their cosine.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    nearest: dict[tuple[int, int], float] = {}
    for rows in np.array_split(np.arange(len(unit)), -(-len(unit) // _CHUNK)):
        cosine = unit[rows] @ unit.T
        cosine[sources[rows][:, None] == sources] = -1
        same = kinds[rows][:, None] == kinds
        for of_kind in (np.where(same, cosine, -1), np.where(same, -1, cosine)):
            for row, column in zip(rows.tolist(), of_kind.argmax(axis=1).tolist(), strict=True):
                nearest[min(row, column), max(row, column)] = float(of_kind[row - rows[0], column])
    return [(a, b, min(c, 1.0)) for (a, b), c in nearest.items() if c >= NEAR]


def unlike_others(features: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean Euclidean distance to the 5 nearest records of other sources, over its median, and whether it is far out.

    Far out: above the third quartile by more than three interquartile ranges (J. Tukey, 1977, "Exploratory data
    analysis").

    Args:
        features: ``(n, d)``.
        sources: Number of each record's source, ``(n,)``.
    """
    squares, mean = (features**2).sum(axis=1), np.zeros(len(features))
    for rows in np.array_split(np.arange(len(features)), -(-len(features) // _CHUNK)):
        distance = np.sqrt(np.maximum(squares[rows][:, None] + squares - 2 * features[rows] @ features.T, 0))
        distance[sources[rows][:, None] == sources] = np.inf
        nearest = np.sort(distance, axis=1)[:, :_NEIGHBOURS]
        is_there = np.isfinite(nearest)
        mean[rows] = np.where(is_there, nearest, 0).sum(axis=1) / np.maximum(is_there.sum(axis=1), 1)
    low, middle, high = np.quantile(mean, [0.25, 0.5, 0.75])
    return mean / max(middle, 1e-12), mean > high + 3 * (high - low)


def write(audit: Audit, folder: Path, title: str, note: str) -> None:
    """Writes ``audit.csv``, ``duplicates.csv`` and ``audit.html``, with a title and a note, into a new folder."""
    write_rows(folder / "audit.csv", audit.rows)
    names = ["path_a", "path_b", "label_a", "label_b", "split_a", "split_b", "cosine", "differs_in"]
    write_rows(folder / "duplicates.csv", audit.pairs, names)
    write_page(folder / "audit.html", title, note, _sections(audit))


def _sections(audit: Audit) -> list[Section]:
    store, digest_of = audit.dataset.store, {audit.dataset.name_of(r): r.digest for r in audit.dataset.records}

    def card(paths: list[str], *lines: tuple[str, str]) -> Card:
        return Card([(data_uri(store.thumbnail(digest_of[path], SIDE_PX)), path) for path in paths], lines)

    ranked = [row for row in audit.rows if row["rank"] != ""]
    n_issues = sum(row["issue"] for row in ranked)
    labels = [
        card(
            [row["path"]],
            (f"{row['rank']}. label {row['label']}, p = {row['p_label']:.2f}", "true"),
            (
                f"suggested {row['suggested']}, p = {row['p_suggested']:.2f}" * (row["suggested"] != row["label"]),
                "wrong",
            ),
            ("label issue" * row["issue"], "muted"),
            (row["path"], "muted"),
        )
        for row in ranked[: min(max(n_issues, -(-len(ranked) // 10)), _MAX_LABELS)]
    ]
    across = [pair for pair in audit.pairs if pair["differs_in"]]
    pairs = [
        card(
            [pair["path_a"], pair["path_b"]],
            (f"cosine {pair['cosine']:.4f}; differ in {pair['differs_in']}", "wrong"),
            (f"{pair['split_a']}, {pair['label_a']}", ""),
            (pair["path_a"], "muted"),
            (f"{pair['split_b']}, {pair['label_b']}", ""),
            (pair["path_b"], "muted"),
        )
        for pair in across[:_MAX_PAIRS]
    ]
    far = sorted((row for row in audit.rows if row["unlike_all_others"]), key=lambda row: -row["distance"])
    unlike = [
        card(
            [row["path"]],
            (f"{row['distance']:.1f} times the median distance", "wrong"),
            (row["label"], ""),
            (row["path"], "muted"),
        )
        for row in far[:_MAX_UNLIKE]
    ]
    return [
        Section(
            "Labels that may be wrong",
            f"The first {len(labels)} of {len(ranked)} records of train and val, that of the least probable label "
            f"first, by models that were not fitted to it. cleanlab finds {n_issues} label issues. It assumes that "
            "labels are wrong by class and not by image: records that are hard to classify stand here as well.",
            labels,
        ),
        Section(
            "Near-duplicates across classes and splits",
            f"{len(across)} pairs of different sources, {len(pairs)} shown. In two classes: one label may be wrong. In "
            f"two splits: a leak. {len(audit.pairs) - len(across)} more, within one class and split: duplicates.csv.",
            pairs,
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
    got, allowed = f"--apply: got {str(table)!r}", "allowed: an edited audit.csv"
    try:
        rows = [row for row in read_csv(table) if any(row.values())]
        given = [(row["path"], row["label"], row["new_label"].strip()) for row in rows]
    except KeyError as error:
        raise DataError(f"{got} without a column {error}; {allowed}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{got} ({error}); {allowed}") from error
    record_of = {record.path.as_posix(): record for record in run.records}
    folders = run.info.config["mapping"].get("classes") or {}
    mapped = {*folders, *(label for group in run.look_alikes.values() for label in group)}
    classes = sorted({record.label for record in run.records})
    problems, corrected, seen, left = [], [], set[str](), set[str]()
    for path, label, new in given:
        if path in seen or path not in record_of:
            problems.append(f"path: got {path!r} {'twice' if path in seen else ''}; allowed: each record of RUN once")
        elif label != record_of[path].label:
            before = record_of[path].label
            problems.append(f"label of {path}: got {label!r}; RUN has {before!r}; fill new_label instead")
        elif new and new not in classes:
            names = f"{', '.join(classes)}{did_you_mean(new, classes)}"
            problems.append(f"new_label of {path}: got {new!r}; allowed: {names}")
        else:
            is_new = bool(new) and new != label
            folder = (folders.get(new) or [new])[0] if is_new else record_of[path].folder
            corrected.append((is_new, [path, folder, record_of[path].split, record_of[path].source]))
        seen.add(path)
        left.add(new or label)
    problems += [
        f"label {label!r}: got no row; allowed: one or more, as RUN has it in its mapping"
        for label in classes
        if given and label in mapped - left
    ]
    if problems or not corrected:
        more = f"\n  and {len(problems) - 20} more" * (len(problems) > 20)
        raise DataError("\n  ".join([got, *(problems[:20] or ["no rows"])]) + more)
    write_csv(out, ["path", "label", "split", "source"], [row for _, row in corrected])
    return sum(is_new for is_new, _ in corrected), len(run.records) - len(corrected)
