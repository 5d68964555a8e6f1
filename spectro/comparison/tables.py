"""The numbers of a comparison as rows: ``table.csv`` with all digits, ``table.md`` to be read and pasted."""

from collections.abc import Sequence
from typing import Any

from spectro.comparison.contenders import Contender
from spectro.comparison.numbers import Pair
from spectro.comparison.result import Result
from spectro.comparison.words import p_text, signed
from spectro.evaluation import METRICS
from spectro.evaluation.paired import Estimate

Table = tuple[list[str], list[list[str]]]


def csv_table(result: Result) -> tuple[list[str], list[list[Any]]]:
    """Header and one row for each contender, unrounded; what is not known is empty."""
    classes = result.contenders[0].classes
    groups = list(result.scores[result.contenders[0].name].pair_f1)
    header = ["contender", "role", "split", "n_records", "seeds"]
    for metric in result.scores[result.contenders[0].name].averages:
        header += [metric, f"{metric}_ci_low", f"{metric}_ci_high", f"{metric}_std_seeds"]
    for group in groups:
        header += [f"pair_f1/{group}", f"pair_f1_ci_low/{group}", f"pair_f1_ci_high/{group}"]
    for label in classes:
        header += [f"{key}/{label}" for key in ("recall", "recall_ci_low", "recall_ci_high", "support")]
    header += list(next(iter(result.cost.values())))
    rows: list[list[Any]] = []
    for one in result.contenders:
        own = result.scores[one.name]
        row: list[Any] = [one.name, "line" if one.is_reference else "model", result.split, len(one.rows)]
        row.append(" ".join(map(str, one.seeds)))
        for metric in result.scores[result.contenders[0].name].averages:
            found = own.averages[metric]
            row += [found.value, found.ci_low, found.ci_high, found.std_seeds]
        for group in groups:
            pair = own.pair_f1[group]
            row += [None, None, None] if pair is None else [pair.value, pair.ci_low, pair.ci_high]
        for label in classes:
            row += [own.recall[label][key] for key in ("recall", "ci_low", "ci_high", "support")]
        row += list(result.cost[one.name].values())
        rows.append(["" if value is None else value for value in row])
    return header, rows


def scores_table(result: Result) -> Table:
    """Averages with intervals, the spread over seeds and the look-alikes' F1."""
    groups = list(result.scores[result.contenders[0].name].pair_f1)
    header = [
        "",
        "seeds",
        *(METRICS[name].label for name in result.scores[result.contenders[0].name].averages),
        "± seeds",
        *(f"hard pair F1{f' of {group}' if len(groups) > 1 else ''}" for group in groups),
    ]
    rows = []
    for one in result.contenders:
        own = result.scores[one.name]
        cells = [_estimate(own.averages[metric]) for metric in own.averages]
        std = own.averages["macro_f1"].std_seeds
        pairs = [_estimate(own.pair_f1[group]) for group in groups]
        rows.append([one.name, seeds_text(one), *cells, "–" if std is None else f"{std:.2f}", *pairs])
    return header, rows


def _estimate(found: Estimate | None) -> str:
    return number(None, None, None) if found is None else number(found.value, found.ci_low, found.ci_high)


def recall_table(result: Result) -> Table:
    """Recall of each class by each contender, with its interval."""
    header = ["class", "n", *(one.name for one in result.contenders)]
    rows = []
    for label in result.contenders[0].classes:
        own = [result.scores[one.name].recall[label] for one in result.contenders]
        cells = [number(found["recall"], found["ci_low"], found["ci_high"]) for found in own]
        rows.append([label, str(own[0]["support"]), *cells])
    return header, rows


def pairs_table(pairs: Sequence[Pair]) -> Table:
    """Every paired test, with p after Holm's correction."""
    header = [
        "",
        "macro-F1",
        "p (Holm)",
        "smallest seen",
        "only the first right",
        "only the second",
        "McNemar p (Holm)",
    ]
    with_folds = any(pair.folds for pair in pairs)
    header += ["over folds", "t-test p (Holm)"] if with_folds else []
    rows = []
    for pair in pairs:
        found, exact = pair.difference, pair.mcnemar
        row = [f"{pair.a} − {pair.b}", signed(found.value, found.ci_low, found.ci_high)]
        row += [p_text(pair.holm["difference"]), "–" if found.smallest is None else f"{found.smallest:.2f}"]
        row += [str(exact.n_only_a), str(exact.n_only_b), p_text(pair.holm["mcnemar"])]
        if with_folds:
            test = pair.folds.test if pair.folds else None
            row += [signed(test.mean, test.ci_low, test.ci_high) if test else "–", p_text(pair.holm["folds"])]
        rows.append(row)
    return header, rows


def cost_table(result: Result) -> Table:
    """What contenders cost; a dash where it was not measured."""
    header = ["", "fit, s", "trained parameters", "records per s", "peak memory, MB"]
    rows = []
    for one in result.contenders:
        cost = result.cost[one.name]
        if any(value is not None for value in cost.values()):
            shown = [_amount(cost[key]) for key in ("fit_s", "trainable_parameters")]
            shown += [_amount(cost[key]) for key in ("predict_records_per_s", "peak_memory_mb")]
            rows.append([one.name, *shown])
    return header, rows


def markdown(result: Result) -> str:
    """The sentences and every table."""
    said = result.verdict
    parts = [said.headline, _list([*said.against, *said.between]), _list([*said.cautions, *result.notes])]
    parts.append(_as_markdown(scores_table(result)))
    parts.append(_as_markdown(recall_table(result)))
    for pairs in (result.between, result.against):
        if pairs:
            parts.append(_as_markdown(pairs_table(pairs)))
    parts.append(_as_markdown(cost_table(result)))
    return "\n\n".join(part for part in parts if part) + "\n"


def seeds_text(contender: Contender) -> str:
    """The seeds of a contender, runs of numbers shortened."""
    seeds = contender.seeds
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds)) or "–"


def number(value: float | None, low: float | None, high: float | None) -> str:
    """``0.89 [0.80, 0.97]``; a dash where there is no value."""
    if value is None:
        return "–"
    return f"{value:.2f}" + ("" if low is None or high is None else f" [{low:.2f}, {high:.2f}]")


def _amount(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_plain(line)}" for line in lines)


def _as_markdown(table: Table) -> str:
    header, rows = table
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text that ends no cell and starts no markup."""
    for mark in ("\\", "|", "*", "`", "<"):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
