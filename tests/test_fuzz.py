"""Files of runs, searches and comparisons, edited at random: the same result as before, or one message."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_network_runs import tiny
from test_sweeps import sweep

from spectro import beside
from spectro.cli import main as cli
from spectro.cli.explain import explain
from spectro.cli.resend import resend
from spectro.cli.resume import resume
from spectro.comparison import compare
from spectro.runs import results
from spectro.runs.predict import predict_files
from spectro.sweeps import report

EDITS = ("flip", "cut", "insert", "delete", "swap", "number", "empty")
# What is edited, the more often the less a try takes.
SUBJECTS = ("cascade", "cascade", "cascade", "network", "network", "sweep", "resume", "comparison")


class _StopError(Exception):
    pass


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Any:
    """Of each subject its folder, and what is read from a copy of it."""
    from spectro.runs.run import run

    outputs = tmp_path_factory.mktemp("fuzz")
    given = [f"data.demo_dir={demo_root}", "data.scale=0.1", "tracking.uri=null", f"outputs={outputs}", "figures=none"]
    images = sorted((demo_root / "test").rglob("*.png"))
    words = {"cascade": ["model=pixels"], "network": [*tiny("resnet18", epochs=2), "cascade_stage=flat"]}
    words["resume"] = words["network"]

    def make(name: str, **arguments: Any) -> Path:
        folder = outputs / "runs" / name
        (folder / ".hydra").mkdir(parents=True)
        config = cli.composed([*given, *words[name]])
        # JSON is YAML.
        (folder / ".hydra" / "config.yaml").write_text(json.dumps(config.raw, indent=1))
        (folder / ".hydra" / "hydra.yaml").write_text('{"hydra": {"runtime": {"cwd": "/", "config_sources": []}}}')
        run(config, folder, **arguments)
        return folder

    def predicted(folder: Path) -> Any:
        predictions, bad = predict_files(folder / "model", images)
        return list(predictions.classes), predictions.probabilities.tolist(), bad

    def compared(folder: Path) -> Any:
        result, _ = compare([folder], outputs=folder.parent / "outputs")
        return json.dumps(next(iter(result.as_json()["models"].values()))["scores"])  # the others are baselines

    def stop(stage: str, history: Any) -> None:
        if len(history) == 1:
            raise _StopError

    def resumed(folder: Path) -> Any:
        resume([f"resume={folder}", f"outputs={outputs}"])
        return (folder / "predictions.csv").read_bytes()

    def searched(folder: Path) -> Any:
        place = folder.parent
        (place / "sweeps").mkdir(exist_ok=True)
        folder.rename(place / "sweeps" / "s")
        for file in outputs.glob("studies.db*"):
            shutil.copy(file, place)
        sweep(*search, f"outputs={place}")
        return [compared(place / "sweeps" / "s"), json.loads((place / "sweeps/s/metrics.json").read_text())["final"]]

    def sent(folder: Path) -> Any:
        return "sent" if resend([folder], outputs=outputs, uri=f"sqlite:///{outputs}/sent.db") == 0 else None

    search = [*given[:3], "figures=none", "study=s", "sweeper=pixels", "model=pixels", "cascade_stage=flat"]
    search += ["validation=holdout", "n_trials=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "draw", lambda *_: list)
        patch.setattr(report, "draw", lambda *_: list)
        patch.setattr(beside, "start", lambda work, *args: lambda: work(*args))
        folders = {"cascade": make("cascade"), "network": make("network")}
        with pytest.raises(_StopError):
            make("resume", on_epoch=stop)
        sweep(*search, f"outputs={outputs}")
        _, comparison = compare([folders["cascade"]], outputs=outputs)
        yield {
            **{name: (folder, [predicted, compared]) for name, folder in folders.items()},
            "resume": (outputs / "runs" / "resume", [resumed]),
            "sweep": (outputs / "sweeps" / "s", [searched]),
            "comparison": (comparison, [sent]),
        }


def edit(path: Path, kind: str, rng: random.Random, others: list[Path]) -> None:
    """Damages a file, as a disk, a broken copy or a person may."""
    content = bytearray(path.read_bytes())
    place = rng.randrange(max(1, len(content)))
    if kind == "flip" and content:
        content[place] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[place:]
    elif kind == "insert":
        content[place:place] = rng.choice([b"\x00", b"NaN", b"\xff", b'"', b"{", b"1e999", b"../../x", b"\n"])
    elif kind == "swap":
        content = bytearray(rng.choice(others).read_bytes())
    elif kind == "empty":
        content = bytearray()
    elif kind == "number":
        digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
        if digits:
            content[rng.choice(digits)] = ord(rng.choice("0123456789-"))
    if kind == "delete":
        path.unlink()
    else:
        path.write_bytes(bytes(content))


def outcome(read: Callable[[Path], Any], folder: Path) -> Any:
    """What is read; None where it ends in a message, as the command would."""
    try:
        return read(folder)
    except Exception as error:
        if explain(error, ()) is None:
            raise
        return None


def attack(subjects: dict, name: str, seed: int, kind: str, place: Path) -> str:
    """Edits a file of a copy, and returns which one, and whether there was a message."""
    folder, readings = subjects[name]
    rng, copy, messages = random.Random(seed), place / "run", 0
    for read in readings:
        if (key := (name, read)) not in _expected:
            shutil.copytree(folder, place / "whole" / "run")
            _expected[key] = read(place / "whole" / "run")
            shutil.rmtree(place / "whole")
    shutil.copytree(folder, copy)
    files = sorted(path for path in copy.rglob("*") if path.is_file() and path.suffix not in (".png", ".lock"))
    rng.shuffle(files)
    edited = files[0].relative_to(copy)
    edit(files[0], kind, rng, files)
    for read in readings:
        found = outcome(read, copy)
        messages += found is None
        assert found in (None, _expected[name, read]), edited
    return f"{edited}{' message' * bool(messages)}"


_expected: dict[Any, Any] = {}


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(EDITS), name=st.sampled_from(SUBJECTS))
def test_a_damaged_run_gives_the_same_or_a_message(
    seed: int, kind: str, name: str, subjects: dict, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Never a traceback, and never another label or score without a word."""
    place = tmp_path_factory.mktemp("edited")
    attack(subjects, name, seed, kind, place)
    shutil.rmtree(place)
