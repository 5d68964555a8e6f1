"""What the numbers show, in sentences: which model is better, by how much, and what the records cannot show."""

from collections.abc import Sequence
from dataclasses import dataclass

from spectro.comparison.models import MAJORITY
from spectro.comparison.pairs import Pair
from spectro.comparison.statistics import Result
from spectro.evaluation.format import format_p

# With fewer records of a class next to nothing is known of it.
FEW = 5


@dataclass(frozen=True)
class Verdict:
    """The sentences at the top of a report.

    Attributes:
        headline: Which model is the best, if one is.
        pairs: A sentence for each pair of a model and a baseline, then of two models.
        cautions: What the numbers cannot show.
    """

    headline: str
    pairs: Sequence[str]
    cautions: Sequence[str]


def verdict(result: Result) -> Verdict:
    """Puts a comparison into words."""
    trivial = [pair.a for pair in result.against if pair.b == MAJORITY and pair.is_better]
    others = [pair for pair in result.against if pair.b != MAJORITY or not pair.is_better]
    sentences = [_sentence(pair, result) for pair in (*others, *result.between)]
    if trivial:
        sentences.insert(0, f"Better than the {MAJORITY}: {', '.join(trivial)}.")
    return Verdict(_headline(result), sentences, _cautions(result))


def _headline(result: Result) -> str:
    ranked = sorted(result.candidates, key=lambda model: -result.scores[model.name].metrics["macro_f1"].value)
    best, on = ranked[0].name, f"on {result.n_records} {result.split} records"
    beaten = {pair.b for pair in result.between if pair.a == best and pair.is_better}
    tied = [model.name for model in ranked[1:] if model.name not in beaten]
    if len(ranked) == 1:
        text = f"{best} reaches {_macro_f1(result, best)} {on}."
    elif not tied:
        text = f"{best} is the best: {_macro_f1(result, best)} {on}, better than all others."
    else:
        text = (
            f"No model is shown to be the best: {best} has the highest score, {_macro_f1(result, best)} {on}, but "
            f"cannot be told apart from {', '.join(tied)}."
        )
    for pair in result.against:
        if pair.b == best and pair.is_better:
            text += f" But the {pair.a} is better than {best}: {_macro_f1(result, pair.a)}."
    return text


def _sentence(pair: Pair, result: Result) -> str:
    size, low = str(pair.difference), pair.difference.ci_low
    over = f" over {pair.n_pairs} pairs" if pair.n_pairs > 1 else ""
    p = f"p {format_p(pair.holm['difference'])}".replace("p 0", "p = 0") + over
    if pair.is_better:
        return f"{pair.a} is better than {pair.b}: {size} ({p})."
    if low is None or pair.smallest is None:
        return f"{pair.a} and {pair.b} cannot be told apart."
    if low > 0:
        reason = f"not after Holm's correction ({p})" if pair.has_enough_records else "they differ on too few records"
        return f"{pair.a} looks better than {pair.b}: {size}, but {reason}."
    return (
        f"{pair.a} and {pair.b} cannot be told apart: {size}; {result.n_records} {result.split} records do not show "
        f"differences below {pair.smallest:.2f}."
    )


def _cautions(result: Result) -> list[str]:
    few = [f"{label} ({n})" for label, n in result.support.items() if 0 < n < FEW]
    none = [label for label, n in result.support.items() if not n]
    single = [model.name for model in result.candidates if len(model.predictions) == 1]
    cautions = []
    if few:
        cautions.append(f"Fewer than {FEW} {result.split} records: {', '.join(few)}. Their recalls are hardly known.")
    if none:
        cautions.append(f"No {result.split} records: {', '.join(none)}.")
    if single:
        cautions.append(f"One seed only: {', '.join(single)}. Intervals do not hold the spread over seeds.")
    if result.split == "val":
        cautions.append("Val was used for choosing, so its scores are too high. Test shows how good a model is.")
    return cautions


def _macro_f1(result: Result, name: str) -> str:
    return f"macro-F1 {result.scores[name].metrics['macro_f1']}"
