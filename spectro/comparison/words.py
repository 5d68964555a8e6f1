"""What the numbers say, in sentences: who is better than whom, by how much, and what the test set cannot show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spectro.comparison.contenders import MAJORITY, Contender
from spectro.comparison.gather import listed
from spectro.comparison.numbers import LEVEL, Pair, Scores

# With fewer records in a class nothing much is known of it.
FEW = 5


@dataclass(frozen=True)
class Verdict:
    """The sentences on top of a report.

    Attributes:
        headline: Which model is the best, if one is.
        between: A sentence for every two models.
        against: A sentence for every model and reference line that it may or may not beat.
        cautions: What the numbers cannot bear.
    """

    headline: str
    between: Sequence[str]
    against: Sequence[str]
    cautions: Sequence[str]


def verdict(
    contenders: Sequence[Contender],
    scores: Mapping[str, Scores],
    between: Sequence[Pair],
    against: Sequence[Pair],
    split: str,
) -> Verdict:
    """Puts the comparison into words.

    Args:
        contenders: Models and reference lines.
        scores: Their scores, by name.
        between: The tests of two models.
        against: Those of a model and a reference line.
        split: The split that is compared.
    """
    models = [one for one in contenders if not one.is_reference]
    n = len(contenders[0].rows)
    cautions = []
    support = {label: own["support"] for label, own in scores[models[0].name].recall.items()}
    few = [f"{label} ({count})" for label, count in support.items() if 0 < count < FEW]
    none = [label for label, count in support.items() if not count]
    if few:
        cautions.append(
            f"Fewer than {FEW} {split} records of {listed(few)}: hardly anything is known of them, as the Wilson "
            "intervals of their recall say."
        )
    if none:
        cautions.append(f"No {split} records of {listed(none)}: nothing is known of them.")
    single = [one.name for one in models if len(one.predicted) == 1]
    if single:
        cautions.append(f"One seed only of {listed(single)}: how much another seed changes is not in the interval.")
    if split == "val":
        cautions.append("Val was used for choosing: scores on it flatter. Test says how good a model is.")
    headline = _headline(models, scores, between, split, n)
    best = max(models, key=lambda one: scores[one.name].averages["macro_f1"].value).name
    for pair in against:
        if pair.b == best and pair.is_better:
            headline += f" But the {_line(pair.a)} is better than {best}: {_reached(scores[pair.a])}."
    return Verdict(
        headline,
        [told(pair, split, n) for pair in between],
        _all_against(against, models, split, n),
        cautions,
    )


def told(pair: Pair, split: str, n: int) -> str:
    """A sentence on two models, and what the test set cannot show."""
    a, b, found = pair.a, pair.b, pair.difference
    size = signed(found.value, found.ci_low, found.ci_high)
    if found.ci_low is None:
        return f"{a} and {b} cannot be told apart: there is one class only."
    if pair.is_better:
        said = f"{a} is better than {b}: {size}{_corrected(pair)}"
    elif found.ci_low > 0 and not pair.enough:
        said = f"{a} looks better than {b}, {size}, but differs from it on too few records to show it"
    elif found.ci_low > 0:
        said = f"{a} looks better than {b}, {size}, but not after Holm's correction{_corrected(pair)}"
    else:
        said = f"{a} and {b} cannot be told apart: {size}"
    return (
        f"{said}; with {n} {split} records this test cannot see differences under {found.smallest:.2f}. {_exact(pair)}"
    )


def signed(value: float, low: float | None, high: float | None) -> str:
    """``+0.08 [0.01, 0.15]``."""
    return f"{value:+.2f}" + ("" if low is None or high is None else f" [{low:.2f}, {high:.2f}]")


def p_text(value: float | None) -> str:
    """A p-value with two digits."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _p(value: float | None) -> str:
    text = p_text(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _corrected(pair: Pair) -> str:
    over = f" over {pair.of} pairs" if pair.of > 1 else ""
    return f" ({_p(pair.holm['difference'])}{over})"


def _exact(pair: Pair) -> str:
    """What the other tests say."""
    only_a, only_b, p = pair.mcnemar.n_only_a, pair.mcnemar.n_only_b, pair.holm["mcnemar"]
    counts = f"{only_a} record{'s' * (only_a != 1)} only {pair.a} gets right, {only_b} only {pair.b}"
    agrees = p is not None and p < LEVEL and only_a > only_b
    if pair.is_better:
        said = "agrees" if agrees else "does not confirm it"
        text = f"McNemar's exact test on the records {said} ({counts}; {_p(p)})."
    else:
        text = f"McNemar's exact test on the records: {counts}; {_p(p)}."
    if pair.folds is None:
        return text
    test = pair.folds.test
    size = signed(test.mean, test.ci_low, test.ci_high)
    where = f"{pair.folds.repeats} x {pair.folds.k} folds" if pair.folds.repeats > 1 else f"{pair.folds.k} folds"
    return f"{text} Over {where} of train and val: {size}, corrected resampled t-test {_p(pair.holm['folds'])}."


def _reached(scores: Scores) -> str:
    """``macro-F1 0.70 [0.60, 0.76]``."""
    found = scores.averages["macro_f1"]
    low, high = found.ci_low, found.ci_high
    return f"macro-F1 {found.value:.2f}" + ("" if low is None else f" [{low:.2f}, {high:.2f}]")


def _headline(
    models: Sequence[Contender], scores: Mapping[str, Scores], between: Sequence[Pair], split: str, n: int
) -> str:
    """Which model is the best, if one is."""
    order = sorted(models, key=lambda one: -scores[one.name].averages["macro_f1"].value)
    best = order[0].name
    reached = _reached(scores[best])
    on = f"on {n} {split} records"
    if len(models) == 1:
        return f"{best} reaches {reached} {on}."
    beaten = {pair.b for pair in between if pair.a == best and pair.is_better}
    tied = [one.name for one in order[1:] if one.name not in beaten]
    if not tied:
        others = "the other" if len(models) == 2 else "all others"
        return f"{best} is the best: {reached} {on}, better than {others}."
    least = (
        f"No model is shown to be the best: {best} has the highest score, {reached} {on}, but "
        f"{_and(tied)} cannot be told apart from it"
    )
    return f"{least}; {_and(sorted(beaten))} {'is' if len(beaten) == 1 else 'are'} worse." if beaten else f"{least}."


def _all_against(against: Sequence[Pair], models: Sequence[Contender], split: str, n: int) -> list[str]:
    """A sentence for each model and line, but of those that beat the majority class one for all."""
    names = [one.name for one in models]
    trivial = [pair.a for pair in against if pair.b == MAJORITY and pair.is_better and pair.a in names]
    lines = [_against(pair, models, split, n) for pair in against if not (pair.b == MAJORITY and pair.a in trivial)]
    if trivial:
        lines.append(f"{_and(trivial)} beat{'s' if len(trivial) == 1 else ''} the majority class.")
    return lines


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _against(pair: Pair, models: Sequence[Contender], split: str, n: int) -> str:
    """Whether a model beats a reference line."""
    a_is_model = any(one.name == pair.a for one in models)
    model, line = (pair.a, pair.b) if a_is_model else (pair.b, pair.a)
    found = pair.difference
    size = (
        signed(found.value, found.ci_low, found.ci_high)
        if a_is_model
        else signed(-found.value, *((None, None) if found.ci_high is None else (-found.ci_high, -(found.ci_low or 0))))
    )
    if pair.is_better and a_is_model:
        return f"{model} beats the {_line(line)}: {size}{_corrected(pair)}."
    if pair.is_better:
        return f"{model} does not beat the {_line(line)}, it is worse: {size}{_corrected(pair)}."
    if found.ci_low is not None and found.ci_low > 0:
        looks = "better" if a_is_model else "worse"
        why = f"not after Holm's correction{_corrected(pair)}" if pair.enough else "differs from it on too few records"
        return f"{model} looks {looks} than the {_line(line)}, {size}, but {why}. {_exact(pair)}"
    missing = (
        ""
        if found.smallest is None
        else f"; with {n} {split} records differences under {found.smallest:.2f} are not seen"
    )
    return f"{model} does not beat the {_line(line)}: {size}{missing}."


def _line(name: str) -> str:
    """A reference line in a sentence."""
    return name if name.endswith(("class", "line")) else f"{name} line"
