"""The run whose labels are looked at, and the commands that make another one of it."""

import json
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import numpy as np
import yaml

from spectro.comparison.load import Run, read_run
from spectro.config.schema import Common
from spectro.errors import DataError
from spectro.paths import flatten, in_shell, new_folder
from spectro.runs.predictions import Predictions
from spectro.runs.runinfo import RunInfo

# Groups and keys of a search, which a run has not.
_OF_SEARCH = "sweeper|sweep|n_trials|study|storage|n_jobs|hydra"


def find_run(name: str, outputs: Path) -> Path:
    """The directory of a run: a path, or the name of a folder in ``outputs/runs``; of a search its one final run.

    Raises:
        DataError: It is none.
    """
    folders = [path for path in (Path(name).expanduser(), outputs / "runs" / name) if (path / "run.json").is_file()]
    if not folders:
        raise DataError(f"RUN: got {name!r}; allowed: a run directory, which holds run.json")
    finals = [file.parent for file in folders[0].glob("final_*/run.json")]
    return finals[0] if len(finals) == 1 else folders[0]


def read_kfold_run(folder: Path, stages: Collection[str], needed: Sequence[str]) -> Run:
    """A finished run with out-of-fold predictions of the whole task, and with one of some stages, such as ``flat``.

    Raises:
        DataError: It is another one; the message has the command that makes such a run of it, with the words
            ``needed``.
    """
    info = RunInfo.read(folder)
    if info.data is None or not {"model", "cascade_stage"} <= info.config.keys():
        raise DataError(f"RUN: got {str(folder)!r}, a search, a trial of one, or a comparison; allowed: a finished run")
    stage = info.config["cascade_stage"]["name"]
    if not (folder / "oof_predictions.csv").is_file() or stage not in stages:
        got = f"cascade_stage={stage}" if stage not in stages else "no out-of-fold predictions"
        raise DataError(f"RUN: got {str(folder)!r} ({got}); allowed: the run of\n  {train_command(info, needed)}")
    try:
        return read_run(folder, "test")
    except DataError as error:
        raise DataError(f"RUN: {folder}: {error}; allowed: a finished run") from error


def train_command(
    info: RunInfo, needed: Sequence[str], without: Collection[str] = (), brought: Collection[str] = ()
) -> str:
    """The command line of a run with other words.

    Args:
        info: The content of its ``run.json``.
        needed: Words; they take the place of those with the same key, and of the run's name.
        without: Groups, such as ``data``, whose words are left out.
        brought: Groups whose option is added where the command line has none, as another option brought it.
    """
    if info.config.get("ensemble", {}).get("runs"):
        return f"spectro ensemble RUN RUN ...  with runs of {' '.join(needed)}"
    # The final run of a search has no words but its settings beside those of the search.
    typed = [word for word in info.command[1:] if re.match(rf"(?!({_OF_SEARCH})[=.])[\w.]+=", word)]
    settings = {key: value for key, value in info.config.items() if key not in Common.model_fields}
    typed += [f"{key}={json.dumps(value)}" for key, value in flatten(settings).items()]
    choices: dict[str, str] = {}
    with suppress(OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        files = [info.folder / ".hydra" / name for name in ("overrides.yaml", "hydra.yaml")]
        words, hydra = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in files)
        typed, choices = [str(word) for word in words], hydra["hydra"]["runtime"]["choices"]
    keys = {"name", *(word.split("=")[0] for word in needed)}
    key_of = {word: word.lstrip("+~").split("=")[0] for word in typed}
    same = [word for word, key in key_of.items() if key not in keys and key.split(".")[0] not in without]
    more = [f"{key}={choices[key]}" for key in brought if key in choices and key not in key_of.values()]
    return in_shell(["spectro", "train", *same, *needed, *more])


def mean_probabilities(repeats: list[Predictions]) -> np.ndarray:
    """Out-of-fold probabilities, mean over the repeats, ``(n, k)``."""
    return np.mean([predictions.probabilities for predictions in repeats], axis=0)


def result_folder(outputs: Path, kind: str, run: Path) -> Path:
    """A new folder ``outputs/<kind>/<date>_<time>_<run>``."""
    return new_folder(outputs / kind / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{run.resolve().name[-60:]}")
