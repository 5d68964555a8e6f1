"""The gate of the registry: a run becomes a named model if it is shown to be better than what is there."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spectro.comparison.baselines import baseline_runs, load_dataset, majority_baseline
from spectro.comparison.load import Run, by_path, check_comparable, load_runs
from spectro.comparison.models import PIXELS, Model
from spectro.comparison.pairs import MIN_RECORDS, Pair, compare_pairs
from spectro.errors import DataError, SpectroError
from spectro.evaluation.format import format_p, markdown_text
from spectro.evaluation.paired import Estimate, score_over_seeds
from spectro.files import read_json
from spectro.paths import in_shell
from spectro.progress import status
from spectro.tracking import MLFLOW_ID, MlflowEntry
from spectro.tracking.lookup import download
from spectro.tracking.notes import result_table
from spectro.tracking.registry import champion_of, register

_RECORDS = {"cv": "out-of-fold", "val": "val"}


@dataclass(frozen=True)
class Promotion:
    """What `promote` did.

    Attributes:
        lines: The run, and what it was compared with, in sentences with numbers.
        refusals: Why the gate refuses it; empty where it passes.
        version: The version that has the alias now; None: nothing was registered.
    """

    lines: Sequence[str]
    refusals: Sequence[str]
    version: str | None


def promote(
    target: str, *, name: str, alias: str, outputs: Path, uri: str, force: bool = False, seed: int = 0
) -> Promotion:
    """Registers the best of some runs, if it is better than the pixels baseline and than the model with the alias.

    The best run has the highest macro-F1 out of fold, or on val where no run is cross-validated; test is not read.
    Better is as in a comparison, see `Pair.is_better`. It has to hold against both, and as the run was chosen by the
    same records, with Holm's correction over all runs that it was chosen from.

    Args:
        target: A run directory, a folder of several, an MLflow run id, or the name of an MLflow experiment.
        name: The registered model.
        alias: The alias that moves to the new version.
        uri: The MLflow store, the only one that is asked.
        force: Registers what the gate refuses, and records the reasons.

    Raises:
        SpectroError: No run that can be promoted, or MLflow cannot be asked.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        with status("reading runs"):
            runs, notes, split = _load(target, outputs, scratch, uri)
            score = {run.origin: _score(run, split, seed) for run in runs}
            best = max(runs, key=lambda run: score[run.origin].value)
            champion = champion_of(uri, name, alias)
        n, where = len(best.predictions.records), f"{len(best.predictions.records)} {_RECORDS[split]} records"
        of = f", the highest of {len(runs)} runs" if len(runs) > 1 else ""
        lines = [*notes, f"{_name(best)}: macro-F1 {score[best.origin]} on {where}{of}"]
        run_id = _id(best)
        if champion is not None and champion.run_id == run_id:
            return Promotion([*lines, f"It is {name}@{alias} already."], [], champion.number)
        refusals, others = [], list[tuple[str, Model]]()
        try:
            others.append(("the baseline", _baseline(best, runs, split, outputs, uri)))
        except DataError as error:
            refusals.append(f"the baseline cannot be compared: {error}")
        if champion is not None:
            what = f"today's {alias}, version {champion.number}"
            try:
                others.append((what, _model(_champion(champion.run_id, best, outputs, scratch, uri, split), split)))
            except SpectroError as error:  # its run may be deleted
                reason = str(error).removesuffix("; allowed: finished runs")
                refusals.append(f"{what}, cannot be compared: {reason}")
        with status("comparing"):
            for what, other in others:
                # The best first: a correction for the number of runs that could have been it.
                candidates = [best, *(run for run in runs if run is not best)]
                pairs = [(m, other) for m in (_model(run, split) for run in candidates) if m.name != other.name]
                pair = compare_pairs(pairs, seed)[0]
                line = f"against {what}, {other.name}: {_sentence(pair)}"
                lines.append(line)
                refusals += [] if pair.is_better else [line]
        lines += [refusal for refusal in refusals if refusal not in lines]
        if refusals and not force:
            return Promotion(lines, refusals, None)
        with status("registering"):
            is_local = not best.is_fetched
            source = best.info.folder if is_local else download(uri, run_id, ["metrics.json"], scratch)
            tags = {"split": split, "n_records": str(n), f"forced.{alias}": str(bool(refusals)).lower()}
            gate = f"- {alias}: " + ("**forced**, the gate refused it" if refusals else "the gate was passed")
            table = result_table(read_json(source / "metrics.json") or {})
            text = "\n".join([gate, *(f"- {markdown_text(line)}" for line in lines), "", *table])
            run_dir = best.info.folder if is_local else None
            return Promotion(lines, refusals, register(uri, run_id, run_dir, name, alias, text, tags))


def _load(target: str, outputs: Path, scratch: Path, uri: str) -> tuple[list[Run], list[str], str]:
    """The runs, notes on those that were left out, and the split by which one is chosen."""
    is_named = Path(target).expanduser().is_dir() or (outputs / "runs" / target).is_dir() or MLFLOW_ID.fullmatch(target)
    names, experiment = ([target], None) if is_named else ([], target)
    reasons = []
    for split in _RECORDS:
        (scratch / split).mkdir()
        try:
            runs, notes = load_runs(
                names,
                outputs=outputs,
                scratch=scratch / split,
                experiment=experiment,
                tracking_uri=uri,
                split=split,
            )
        except DataError as error:
            reasons.append(str(error))
        else:
            return runs, notes, split
    raise DataError("\n".join(["got no run that can be chosen by cross-validation or by val", *reasons]))


def _id(run: Run) -> str:
    """The id of a run in MLflow.

    Raises:
        DataError: It was never sent.
    """
    run_id = run.info.folder.name if run.is_fetched else run.info.mlflow.run_id
    if not run_id:
        raise DataError(
            f"{run.origin}: MLflow does not have it; allowed: after {in_shell(['spectro', 'resend', run.origin])}"
        )
    return run_id


def _name(run: Run) -> str:
    return f"{run.info.run_name} ({run.origin})"


def _model(run: Run, split: str) -> Model:
    """A run as a model of a comparison; the repeats of a cross-validation take the place of seeds."""
    return Model(_name(run), [by_path(p) for p in run.out_of_fold] if split == "cv" else [run.predictions], runs=[run])


def _score(run: Run, split: str, seed: int) -> Estimate:
    first, predicted = run.predictions, _model(run, split).predicted
    return score_over_seeds(first.y_true, predicted, first.classes, sources=first.sources, seed=seed)["macro_f1"]


def _baseline(best: Run, runs: Sequence[Run], split: str, outputs: Path, uri: str) -> Model:
    """The pixels baseline of the best run; of a run of pixels the majority class.

    Raises:
        DataError: It was not fitted, and cannot be.
    """
    if best.model == PIXELS:
        return majority_baseline(best)
    simple = [run for run in runs if run.model == PIXELS]
    if not simple:
        problem = ""
        try:
            load_dataset(best, outputs)
        except DataError as error:
            problem = str(error)
        simple, notes = baseline_runs([best], outputs, split, MlflowEntry.new(uri, outputs), problem, only=PIXELS)
        if not simple:
            raise DataError("; ".join(notes))
    return max((_model(run, split) for run in simple), key=lambda model: _score(model.runs[0], split, 0).value)


def _champion(run_id: str | None, best: Run, outputs: Path, scratch: Path, uri: str, split: str) -> Run:
    """The run of the present version.

    Raises:
        SpectroError: It is gone, or was evaluated on other records.
    """
    if not run_id:
        raise DataError("it comes from no run")
    (scratch / "champion").mkdir()
    (run,), _ = load_runs([run_id], outputs=outputs, scratch=scratch / "champion", tracking_uri=uri, split=split)
    check_comparable([best, run], split)
    return run


def _sentence(pair: Pair) -> str:
    """The difference of macro-F1, and whether it is shown."""
    over = f" over {pair.n_pairs} runs" if pair.n_pairs > 1 else ""
    p = f"p {format_p(pair.holm['difference'])}{over}".replace("p 0", "p = 0").replace("p 1", "p = 1")
    text = f"{pair.difference}, {p}"
    if pair.is_better:
        return f"better by {text}"
    n = pair.mcnemar.n_only_a + pair.mcnemar.n_only_b
    few = f"; exactly one of them is right on {n} records, fewer than {MIN_RECORDS}" if n < MIN_RECORDS else ""
    return f"not shown to be better: {text}{few}"
