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
    sentences = [f"Better than the {MAJORITY}: {', '.join(trivial)}."] if trivial else []
    sentences += [_sentence(pair, result) for pair in (*others, *result.between)]
    return Verdict(_headline(result), sentences, _cautions(result))


def _headline(result: Result) -> str:
    macro_f1 = {name: scores["macro_f1"] for name, scores in result.scores.items()}
    best, *others = sorted((model.name for model in result.candidates), key=lambda name: -macro_f1[name].value)
    beaten = {pair.b for pair in result.between if pair.a == best and pair.is_better}
    tied = [name for name in others if name not in beaten]
    score = f"macro-F1 {macro_f1[best]} on {result.n_records} {result.split} records"
    if not others:
        text = f"{best} reaches {score}."
    elif not tied:
        text = f"{best} is the best: {score}, better than all others."
    else:
        text = (
            f"No model is shown to be the best: {best} has the highest score, {score}, but cannot be told apart from "
            f"{', '.join(tied)}."
        )
    better = [pair.a for pair in result.against if pair.b == best and pair.is_better]
    return text + "".join(f" But the {name} is better than {best}: macro-F1 {macro_f1[name]}." for name in better)


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
    few = ", ".join(f"{label} ({n})" for label, n in result.support.items() if 0 < n < FEW)
    none = ", ".join(label for label, n in result.support.items() if not n)
    single = ", ".join(model.name for model in result.candidates if len(model.predictions) == 1)
    cautions = {
        f"Fewer than {FEW} {result.split} records: {few}. Their recalls are hardly known.": few,
        f"No {result.split} records: {none}.": none,
        f"One seed only: {single}. Intervals do not hold the spread over seeds.": single,
        "Val was used for choosing, so its scores are too high. Test shows how good a model is.": result.split == "val",
    }
    return [text for text, applies in cautions.items() if applies]
