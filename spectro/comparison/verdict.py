"""What the numbers show, in sentences: which model to use, and what the records cannot show."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from spectro.comparison.models import Model
from spectro.comparison.names import MAJORITY
from spectro.comparison.pairs import Pair
from spectro.comparison.statistics import Result
from spectro.evaluation.format import format_amount, format_p
from spectro.paths import redact, short

# With fewer records of a class next to nothing is known of it.
FEW = 5
# Scores that differ by less are the same to a person: then the cheaper model is used.
SAME = 0.01
_MAX_NAMED = 3


@dataclass(frozen=True)
class Verdict:
    """The sentences at the top of a report.

    Attributes:
        headline: Which model to use, and which others cannot be told apart from it.
        command: How it is applied to new images; empty where none is recommended.
        pairs: A sentence for each pair of models, then of a model and a baseline.
        cautions: What the numbers cannot show.
    """

    model: Model
    headline: str
    command: str
    pairs: Sequence[str]
    cautions: Sequence[str]


def verdict(result: Result) -> Verdict:
    """Puts a comparison into words.

    The model to use is the one with the highest macro-F1, whether baseline or not. Among models whose scores differ
    from the highest by less than 0.01, and that are not shown to be worse, it is the one whose fit is clearly shorter.
    The majority class is no model to use: what is not shown to be better is not recommended.
    """
    usable = [model for model in result.ranked if model.runs]
    best = usable[0]
    equal = [model for model in usable if not result.is_better(best, model)]
    score = {model.name: result.scores[model.name]["macro_f1"] for model in result.models}
    majority = next(model for model in result.models if model.name == MAJORITY)
    is_useful = result.is_better(best, majority)
    same = [model for model in equal if score[best.name].value - score[model.name].value < SAME]
    same = [model for model in same if model is best or result.is_better(model, majority)]
    chosen = min([best, *(model for model in same if _is_cheaper(model, best))], key=_fit_s)
    name = chosen.name
    on = f"on {result.n_records} {result.split} records"
    others = [model for model in equal if model is not chosen]
    if not is_useful:
        text = (
            f"Use none yet: {best.name} has the highest macro-F1, {score[best.name]} {on}, and is not shown to be "
            f"better than the {MAJORITY}, {score[MAJORITY]}."
        )
    elif len(usable) == 1:
        text = f"Use {name}: macro-F1 {score[name]} {on}; there is no other model to compare it with."
    elif not others:
        text = f"Use {name}: macro-F1 {score[name]} {on}; it is better than all others."
    elif len(same) > 1:
        apart = _listed([f"{model.name} {score[model.name]}" for model in same])
        lower = _listed([f"{m.name} ({score[m.name].value:.2f})" for m in equal if m not in same])
        cost = _cheapest(chosen, next(model for model in same if model is not chosen))
        nor = f", nor from {lower}" if lower else ""
        text = f"{apart} cannot be told apart{nor} (macro-F1 {on}){cost}: use {name}."
    else:
        apart = _listed([f"{model.name} ({score[model.name].value:.2f})" for model in others])
        cost = _cheapest(cheapest, chosen) if (cheapest := min(equal, key=_fit_s)) is not chosen else ""
        text = (
            f"Use {name}: macro-F1 {score[name]} {on}; no other model is shown to be better, "
            f"and {apart} cannot be told apart from it{cost}."
        )
    above = [p.a for p in result.against if p.b == MAJORITY and p.is_better]
    rest = [p for p in result.against if p.b != MAJORITY or not p.is_better]
    sentences = [_sentence(pair, result) for pair in (*result.between, *rest)]
    sentences += [f"Better than the {MAJORITY}: {', '.join(above)}."] if above else []
    return Verdict(chosen, text, _command(chosen) if is_useful else "", sentences, _cautions(result, best, is_useful))


def _fit_s(model: Model) -> float:
    return float("inf") if model.cost.fit_s is None else model.cost.fit_s


def _is_cheaper(model: Model, other: Model) -> bool:
    """Whether a fit takes half the time of another's or less, and a second less: nobody chooses a model for less."""
    return _fit_s(model) <= _fit_s(other) / 2 and _fit_s(other) - _fit_s(model) > 1


def _cheapest(cheap: Model, other: Model) -> str:
    if not _is_cheaper(cheap, other) or other.cost.fit_s is None:
        return ""
    amounts = f"fit {format_amount(cheap.cost.fit_s)} s, {other.name} {format_amount(other.cost.fit_s)} s"
    return f"; {cheap.name} is the cheapest ({amounts})"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMED
    shown = [*names[:_MAX_NAMED], f"{more} more"] if more > 0 else list(names)
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _command(model: Model) -> str:
    """How to classify new images with a model; of several seeds with the first one, as test may choose nothing."""
    run = model.runs[0]
    if run.is_fetched:
        uri = shlex.quote(redact(str(run.info.mlflow.tracking_uri)))
        return f"spectro predict {run.info.folder.name} new_images/ --tracking-uri {uri} --out predictions.csv"
    return f"spectro predict {shlex.quote(short(run.info.folder))} new_images/ --out predictions.csv"


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


def _cautions(result: Result, best: Model, is_useful: bool) -> list[str]:
    n_sources = len(set(best.predictions[0].sources))
    few = ", ".join(f"{label} ({n})" for label, n in result.support.items() if 0 < n < FEW)
    none = ", ".join(label for label, n in result.support.items() if not n)
    # Other families give the same with any seed.
    random = [model for model in result.candidates if model.cost.trainable_parameters]
    single = ", ".join(model.name for model in random if len(model.predictions) == 1)
    has_several = sum(bool(model.runs) for model in result.models) > 2
    cautions = {
        f"The {result.n_records} {result.split} records come from {n_sources} source{'s' * (n_sources > 1)}: next to "
        "nothing is known of others. validation=leave_one_group_out evaluates each in turn.": n_sources < FEW,
        f"Fewer than {FEW} {result.split} records: {few}. Their recalls are hardly known.": few,
        f"No {result.split} records: {none}.": none,
        f"One seed only: {single}. Intervals do not hold the spread over seeds.": single,
        "Val was used for choosing, so its scores are too high. Test shows how good a model is.": result.split == "val",
        "The highest of several scores is a little too high: the same records decided which one it is.": has_several,
        f"{best.name} has the highest score: with few records simple models are hard to beat. {_tip(result)}": (
            is_useful and best.is_baseline and len(result.candidates) > 0
        ),
        _tip(result): not is_useful and n_sources >= FEW,
    }
    return [text for text, applies in cautions.items() if applies]


def _tip(result: Result) -> str:
    """What to try where the models are not shown to be good."""
    tried = {run.model for model in result.models for run in model.runs}
    places = [f"model={name}" for name in ("hog_svm_grid", "embed") if name not in tried]
    not_refit = [model.name for model in result.candidates if not all(run.is_refit for run in model.runs)]
    hints = (
        [f"{' and '.join(places)}, which keep{'s' * (len(places) == 1)} where something is in the image"]
        if places
        else []
    )
    hints += ["validation=kfold, which fits the models to val as well"] if not_refit else []
    hints += [] if any("trial" in run.info.tags for run in result.runs) else ["a search (sweeper=NAME)"]
    return f"Try {'; '.join(hints)}." if hints else "More labels may help: spectro learning-curve."
