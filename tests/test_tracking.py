"""What reaches MLflow is what the run directory holds, once, whatever happens to the store on the way."""

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import read_json
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spectro.cli.resend import resend
from spectro.paths import CONF
from spectro.runs.runinfo import Cost, DataInfo, RunInfo
from spectro.tracking import MlflowEntry, store
from spectro.tracking import open_run as open_in_mlflow
from spectro.tracking.notes import NOTE, note_tags
from spectro.tracking.values import flatten_metrics, flatten_params, safe_name

CLASSES = ["brak_Empty zone", "шум", "a[1].b", "a[b", "a]b"]


def make_run(outputs: Path, *, uri: str = "", name: str = "one", **changes: Any) -> Path:
    """Writes a run directory as it is before the run is opened in MLflow."""
    run_dir = outputs / "runs" / name
    run_dir.mkdir(parents=True)
    content: dict[str, Any] = {
        "run_name": f"hog_svm full {name}",
        "experiment": "field",
        "started_at": 1700000000.25,
        "tags": {"model": "hog_svm", "git_commit": "0123abc", "seed": "0"},
        "config": {
            "svm": {"C": 1.5, "gamma": None},
            "text": "x" * 7000,
            "mapping": {"classes": {"a[1].b": ["x", "y"]}},
        },
        "data": DataInfo(
            name="demo", root="/records", fingerprint="0123456789abcdef", records={"train": dict.fromkeys(CLASSES, 3)}
        ),
        "wall_s": {"fit": 1.5},
        "mlflow": MlflowEntry.new(uri or f"sqlite:///{outputs / 'mlflow.db'}", outputs),
    }
    RunInfo.start(run_dir, **{**content, **changes}).write()
    return run_dir


def finish(run_dir: Path, status: str = "FINISHED", reason: str | None = None) -> None:
    """Adds the results and the final status."""
    per_class = {
        label: {"precision": 0.1 * i, "recall": 0.2 * i, "f1": None, "support": i} for i, label in enumerate(CLASSES)
    }
    table = {"macro_f1": 0.5, "accuracy": None, "n_records": 15, "classes": CLASSES, "per_class": per_class}
    stages = {"easy": {"val": table}, "hard": {"test": table}, "hard/a + b": {"test": table}}
    (run_dir / "metrics.json").write_text(json.dumps({"val": table, "test": table, "stages": stages, "objective": 0.5}))
    (run_dir / "history.csv").write_text("stage,epoch,train_loss,best\neasy,0,0.9,False\neasy,1,0.4,True\nhard,0,,\n")
    for part in (".hydra/config.yaml", "figures/confusion_test.png", "model/model.safetensors"):
        (run_dir / part).parent.mkdir(exist_ok=True)
        (run_dir / part).write_bytes(part.encode())
    info = RunInfo.read(run_dir)
    info.status, info.reason, info.ended_at, info.peak_memory_mb = status, reason, 1700000009.5, 512.25
    info.write()


def read(run_dir: Path) -> dict[str, Any]:
    return read_json(run_dir / "run.json")


def open_run(run_dir: Path) -> bool:
    """Opens the MLflow run of a run directory; whether the store took it."""
    info = RunInfo.read(run_dir)
    info.mlflow = open_in_mlflow(run_dir, info.content())
    info.write()
    return info.mlflow.run_id is not None


def send(run_dir: Path) -> bool:
    """Sends a run directory; whether the store took all of it."""
    info = RunInfo.read(run_dir)
    info.send_to_mlflow()
    return info.mlflow.sent


def client_of(run_dir: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=read(run_dir)["mlflow"]["tracking_uri"])


def stored(run_dir: Path) -> Any:
    """The MLflow run of a run directory."""
    return client_of(run_dir).get_run(read(run_dir)["mlflow"]["run_id"])


def files_below(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of every file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def artifacts(run_dir: Path) -> dict[str, bytes]:
    """Relative path -> content of every artifact of the run."""
    return files_below(Path(stored(run_dir).info.artifact_uri.removeprefix("file://")))


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings that spectro gave."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_opened_run_is_running_and_complete_so_far(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The run is visible while it runs, under its name, with parameters and tags."""
    run_dir = make_run(database.parent)
    assert open_run(run_dir)
    run = stored(run_dir)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "hog_svm full one"
    assert run.info.start_time == 1700000000250
    assert run.data.tags.items() >= {"model": "hog_svm", "mlflow.source.name": "train.py"}.items()
    assert run.data.tags["mlflow.source.git.commit"] == "0123abc"
    assert run.data.params["svm.C"] == "1.5"
    assert run.data.params["svm.gamma"] == "null"
    assert len(run.data.params["text"]) == 6000
    assert run.data.params["text"].endswith("[cut]")
    assert '["x","y"]' in run.data.params.values()
    assert not read(run_dir)["mlflow"]["sent"]
    assert not warnings_in(caplog)
    assert open_run(run_dir)
    assert stored(run_dir).info.run_id == run.info.run_id


def test_the_store_equals_the_run_directory_also_after_a_resend(
    database: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Metrics, files, data set and status arrive; sending again changes nothing."""
    run_dir = make_run(database.parent)
    open_run(run_dir)
    finish(run_dir)
    assert send(run_dir)
    first, files = stored(run_dir), artifacts(run_dir)
    metrics = first.data.metrics
    assert first.info.status == "FINISHED"
    assert first.info.end_time == 1700000009500
    assert metrics["val/macro_f1"] == metrics["hard/test/macro_f1"] == metrics["objective"] == 0.5
    assert metrics["test/recall/шум"] == metrics["hard/a _ b-" + safe_name("a + b")[-8:] + "/test/recall/шум"] == 0.2
    assert metrics["test/n_records"] == 15
    assert metrics["wall_s/fit"] == 1.5
    assert metrics["peak_memory_mb"] == 512.25
    assert not any("accuracy" in name or "support" in name or "f1/" in name for name in metrics)
    assert sum(name.startswith("test/recall/") for name in metrics) == len(CLASSES)
    assert files == files_below(run_dir)
    assert read(run_dir)["mlflow"]["sent"]
    (data,) = first.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("demo", "0123456789abcdef")
    assert json.loads(data.dataset.profile)["train"]["шум"] == 3
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "training")]
    curve = client_of(run_dir).get_metric_history(first.info.run_id, "easy/history/train_loss")
    assert [(point.step, point.value) for point in curve] == [(0, 0.9), (1, 0.4)]

    assert resend([run_dir], outputs=database.parent) == 0
    assert stored(run_dir).to_dictionary() == first.to_dictionary()
    assert artifacts(run_dir) == files
    assert len(client_of(run_dir).get_metric_history(first.info.run_id, "val/macro_f1")) == 1
    assert len(client_of(run_dir).search_runs([first.info.experiment_id])) == 1
    assert not warnings_in(caplog)
    assert capsys.readouterr().err == ""


def test_files_are_on_the_disk_once_and_stay_when_the_run_directory_goes(database: Path) -> None:
    """A second copy would double what an hour of trying leaves; who deletes a run directory must not lose it."""
    run_dir = make_run(database.parent)
    finish(run_dir)
    assert send(run_dir)
    folder = Path(stored(run_dir).info.artifact_uri.removeprefix("file://"))
    model = folder / "model" / "model.safetensors"
    assert model.samefile(run_dir / "model" / "model.safetensors")
    (run_dir / "metrics.json").unlink()
    (run_dir / "metrics.json").write_text("{}")
    assert send(run_dir)
    assert (folder / "metrics.json").read_text() == "{}"
    assert not [path for path in folder.rglob(".*") if path.name != ".hydra"]
    shutil.rmtree(run_dir)
    assert model.read_bytes() == b"model/model.safetensors"


def test_the_reason_of_a_bad_end_is_a_tag(database: Path) -> None:
    """A failed run is in the store with its reason, and with what it had by then."""
    run_dir = make_run(database.parent)
    finish(run_dir, "FAILED", "loss is not a number in epoch 3\nat step 7")
    (run_dir / "metrics.json").unlink()
    assert send(run_dir)
    assert stored(run_dir).info.status == "FAILED"
    assert stored(run_dir).data.tags["reason"] == "loss is not a number in epoch 3\nat step 7"


def test_a_run_that_died_silently_is_sent_as_killed(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a process behind it, RUNNING means killed; a living one is left alone."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = make_run(database.parent, name="dead", pid=gone.pid)
    recycled = make_run(database.parent, name="recycled")  # this test's process started after the run
    alive = make_run(database.parent, name="alive", started_at=time.time())
    assert resend([], outputs=database.parent) == 0
    assert "left alone" in next(line for line in capsys.readouterr().out.splitlines() if "alive" in line)
    for run_dir in (dead, recycled):
        assert stored(run_dir).info.status == "KILLED"
        assert "without reporting" in stored(run_dir).data.tags["reason"]
    assert read(alive)["mlflow"]["run_id"] is None
    assert not send(alive)

    finish(dead)  # it lived after all, somewhere else
    assert send(dead)
    assert stored(dead).info.status == "FINISHED"
    assert "reason" not in stored(dead).data.tags


def test_what_was_lost_or_deleted_comes_back(database: Path) -> None:
    """An id that a stale copy of run.json lacks, and what a person deleted in the UI, make no second run."""
    run_dir = make_run(database.parent)
    stale = (run_dir / "run.json").read_text()
    open_run(run_dir)
    client, info = client_of(run_dir), stored(run_dir).info
    (run_dir / "run.json").write_text(stale)
    finish(run_dir)
    assert send(run_dir)
    assert stored(run_dir).info.run_id == info.run_id
    client.delete_run(info.run_id)
    assert send(run_dir)
    client.delete_experiment(info.experiment_id)
    assert open_run(make_run(database.parent, name="two"))
    assert send(run_dir)
    assert stored(run_dir).info.lifecycle_stage == "active"


class Late:
    """A client that does what another process does just before: once, then it is an ordinary client."""

    def __init__(self, client: Any, before: str) -> None:
        self.client, self.before = client, before

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == self.before:
                self.before = ""
                getattr(self.client, name)(*args, **kwargs)
                if name == "log_inputs":
                    from mlflow.exceptions import MlflowException

                    raise MlflowException("UNIQUE constraint failed: datasets.experiment_id")
            return getattr(self.client, name)(*args, **kwargs)

        return call


def test_losing_a_race(database: Path) -> None:
    """Another process may create the experiment, or add the same data set, between the question and the creation."""
    client = store.connect(f"sqlite:///{database}")
    with store.settings(store.PROBE):
        made = store.experiment_id(Late(client, "create_experiment"), "contested", None)
    assert client.get_experiment_by_name("contested").experiment_id == made
    run_dir = make_run(database.parent)
    open_run(run_dir)
    run_id = stored(run_dir).info.run_id
    store.log_dataset(Late(client, "log_inputs"), run_id, read(run_dir)["data"])
    assert len(stored(run_dir).inputs.dataset_inputs) == 1


@pytest.mark.parametrize("kind", ["refuses", "silent", "folder", "garbage", "below a file"])
def test_a_dead_store_costs_one_warning_and_little_time(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with the address, the reason and the command to send later."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    (tmp_path / "garbage.db").write_text("not a database")
    with socket.create_server(("127.0.0.1", 0)) as server:  # it never answers
        uri = {
            "refuses": "http://user:secret@127.0.0.1:9",
            "silent": f"http://127.0.0.1:{server.getsockname()[1]}",
            "folder": f"sqlite:///{tmp_path}",
            "garbage": f"sqlite:///{tmp_path / 'garbage.db'}",
            "below a file": f"sqlite:///{tmp_path / 'garbage.db' / 'mlflow.db'}",
        }[kind]
        run_dir = make_run(tmp_path / "outputs", uri=uri)
        import mlflow  # noqa: F401  its import is not what is measured

        start = time.monotonic()
        assert not open_run(run_dir)
        finish(run_dir)
        assert not send(run_dir)
        assert time.monotonic() - start < 5
    (warning,) = warnings_in(caplog)
    assert "secret" not in warning
    assert uri.replace("user:secret", "***") in warning
    assert f"spectro resend {run_dir}" in warning
    assert "\n" not in warning
    assert read(run_dir)["mlflow"] == {**read(run_dir)["mlflow"], "run_id": None, "sent": False}


def test_a_user_s_own_settings_win_and_ours_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is as before afterwards; telemetry is off unless the user wants it."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    before = dict(os.environ)
    with store.settings(store.PROBE):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert dict(os.environ) == before


def test_resend_delivers_once_the_store_is_back(database: Path, spectro: Callable[..., Any]) -> None:
    """The command sends what is unsent, prints a line for each, and has an exit code for each outcome."""
    outputs = database.parent
    away = database.rename(database.with_name("away.db"))
    database.write_text("broken")
    run_dir = make_run(outputs)
    finish(run_dir)
    assert not send(run_dir)
    for restore, arguments, code, line in (
        (False, [], 1, f"{run_dir}: not sent: DatabaseError"),
        (True, [run_dir, outputs], 2, f"{outputs}: not a run directory: expected"),
        (False, [], 0, f"{run_dir}: sent to sqlite:"),
        (False, [], 0, "nothing to send: MLflow has all 1 runs"),
    ):
        if restore:
            away.replace(database)
        done = spectro("resend", "--outputs", outputs, *arguments)
        assert done.returncode == code
        assert line in done.stdout
    assert stored(run_dir).info.status == "FINISHED"
    assert artifacts(run_dir) == files_below(run_dir)


def test_resend_to_a_store_that_moved(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was meant for a server under its old address; nothing lands in the current folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    run_dir = make_run(tmp_path, uri="http://127.0.0.1:9")
    finish(run_dir)
    assert resend([run_dir], outputs=tmp_path, uri=f"sqlite:///{database}") == 0
    assert stored(run_dir).info.status == "FINISHED"
    assert artifacts(run_dir) == files_below(run_dir)
    assert not list(elsewhere.iterdir())


@pytest.mark.slow
def test_two_processes_start_on_a_fresh_folder_at_once(tmp_path: Path) -> None:
    """Both find a whole database and one experiment, without a warning."""
    outputs = tmp_path / "outputs"
    run_dirs = [make_run(outputs, name=name, status="FINISHED", ended_at=1700000001.0) for name in "ab"]
    command = [sys.executable, CONF.parent / "scripts" / "resend.py", "--outputs", outputs]
    processes = [subprocess.Popen([*command, path], stderr=subprocess.PIPE, text=True) for path in run_dirs]
    assert [process.communicate(timeout=120)[1] for process in processes] == ["", ""]
    assert [process.returncode for process in processes] == [0, 0]
    assert stored(run_dirs[0]).info.experiment_id == stored(run_dirs[1]).info.experiment_id
    assert {path.name for path in outputs.iterdir()} <= {"runs", "mlartifacts", "mlflow.db", "mlflow.db.lock"}


def test_numbers_of_a_run_are_metrics(tmp_path: Path) -> None:
    """Every number of some sections of run.json, named by section or by stage; nothing else."""
    facts = {"parameters": {"trainable": 5380, "total": 21_000_000}, "epochs": 9, "device": "cpu", "frozen": True}
    sections = {"networks": {"easy": facts}, "temperature": {"easy": 1.5}, "cost": Cost(fit_s=2.5), "wall_s": {}}
    run = read(make_run(tmp_path, seed=7, **sections))
    assert flatten_metrics({}, run) == {
        "easy/parameters/trainable": 5380,
        "easy/parameters/total": 21_000_000,
        "easy/epochs": 9,
        "temperature/easy": 1.5,
        "cost/fit_s": 2.5,
    }
    cv = {"macro_f1": 0.5, "macro_f1_std_folds": 0.1, "k": 5, "classes": ["a"], "confusion_matrix": [[1]]}
    names = {f"{stage}cv/{key}" for stage in ("", "hard/") for key in ("macro_f1", "macro_f1_std_folds", "k")}
    metrics = {"cv": cv, "stages": {"hard": {"cv": cv}}, "objective": None}
    assert set(flatten_metrics(metrics, run)) - set(flatten_metrics({}, run)) == names


@settings(max_examples=150, database=None)
@given(st.lists(st.text(st.sampled_from("ab[]. /:-_\nё̈") | st.characters(), max_size=130), unique=True))
@example(["a[b", "a]b", "x" * 100 + "1", "x" * 100 + "2", "x" * 100, ".", "..", "", "plain name"])
def test_no_two_labels_share_a_name(labels: list[str]) -> None:
    """Any labels at all stay apart and get names that MLflow takes; such a name is left as it is."""
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    names = {safe_name(label) for label in labels}
    assert len(names) == len(labels)
    for name in names:
        _validate_metric_name(f"test/recall/{name}")
        _validate_param_name(name)
        assert len(name) <= 100
        assert safe_name(name) == name


def test_sections_of_parameters_do_not_meet() -> None:
    assert len(flatten_params({"a.b": 1, "a": {"b": 2, "": 3}, "c": {}, "d": True, "e": [1, None]})) == 6


# --- Descriptions ---

FIGURES = ["figures/wrong_test.png", "figures/recall.png", "figures/confusion_test.png"]
RUN: dict[str, Any] = {"tags": {}, "warnings": [], "config": {}}


def note_of(labels: list[str], tags: dict[str, str] | None = None, **run: Any) -> dict[str, str]:
    """The tags of the description of a small run."""

    def table(shift: float) -> dict[str, Any]:
        ends = {"macro_f1_ci_low": 0.25 + shift, "macro_f1_ci_high": None if shift else 0.75}
        rows = {label: {"recall": 0.5, "recall_ci_low": 0.1, "recall_ci_high": 0.9, "support": 4} for label in labels}
        return {"macro_f1": 0.5 + shift, **ends, "accuracy": None, "n_records": 21, "per_class": rows}

    metrics = {"val": table(0.125), "test": table(0), "stages": {"easy": {"test": table(0)}}, "objective": 0.5}
    return note_tags({**RUN, **run}, metrics, FIGURES, "RUN", tags or {})


def test_a_description_has_scores_warnings_and_figures() -> None:
    """As on the terminal: no lone number, an interval only where there is one; of the figures the important ones."""
    note = note_of(["a"], warnings=["val has *few* records"])[NOTE]
    lines = note.replace("&emsp;", "").splitlines()
    assert lines[0] == "|  | test | val |"
    assert "| macro-F1 | 0.50 [0.25, 0.75] n=21 | 0.62 n=21 |" in lines
    assert "| recall of a | 0.50 [0.10, 0.90] n=4 | 0.50 [0.10, 0.90] n=4 |" in lines
    assert not any("accuracy" in line for line in lines)
    assert "| stage easy: macro-F1 | 0.50 [0.25, 0.75] n=21 | – n=0 |" in lines
    assert re.findall(r"path=(.*?)&", note) == ["figures/confusion_test.png", "figures/recall.png"]
    assert "get-artifact?path=figures/recall.png&run_uuid=RUN" in note
    assert "- val has \\*few\\* records" in note


@pytest.mark.parametrize("count", [1, 1000])
def test_any_labels_leave_the_table_a_table(count: int) -> None:
    """Labels are folder names: what markdown or HTML would read as its own must stay text, and many must fit."""
    note = note_of([f"<b>|a_b_*c*[d](e) {'шум' * 9} {i}" for i in range(count)])[NOTE]
    rows = [line for line in note.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {4}
    assert "<b>" not in note
    assert len(note) <= 8000
    assert note.count("get-artifact") == 2
    assert ("more in metrics.json" in note) == (count > 1)


def test_what_a_person_wrote_stays() -> None:
    """A description is written again with the results of a resumed run, but not over a person's."""
    first = note_of(["a"])
    assert note_of(["b"], first)[NOTE] != first[NOTE]
    assert note_of(["b"], {**first, NOTE: "a person's"}) == note_of(["b"], {NOTE: "a person's"}) == {}
    assert note_tags(RUN, {}, [], "RUN", {}) == {}  # a failed run has no result


def test_a_search_is_described_before_and_after() -> None:
    """Its space while it runs; how its trials ended when it is over."""
    config = {"objective": "cv/macro_f1", "search": {"svm": {"C": "1 to 10"}}}
    run = {**RUN, "tags": {"sweep": "true"}, "config": config}
    before = note_tags(run, {}, [], "RUN", {})
    assert "| `svm.C`&emsp; | 1 to 10&emsp; |" in before[NOTE]
    best = {"best": 0.75, "best_trial": 2, "best_settings": {"svm.C": "3.1"}}
    final = {"macro_f1": 0.7, "macro_f1_ci_low": 0.6, "macro_f1_ci_high": 0.8, "n_records": 24}
    ends = {**best, "final": final, "trials": {"complete": 2, "pruned": 0, "fail": 1, "all": 3}}
    after = note_tags(run, ends, [], "RUN", before)
    assert "3 trials: 2 complete, 1 fail.\nThe best is trial 2: 0.75." in after[NOTE]
    assert "macro-F1 0.70 [0.60, 0.80] n=24 on test" in after[NOTE]
    assert "| 1 to 10&emsp; | 3.1&emsp; |" in after[NOTE]


def test_an_experiment_is_described_once(database: Path) -> None:
    """A new one gets a description and its kind; what a person wrote stays."""
    client = store.connect(f"sqlite:///{database}")
    by_hand = client.create_experiment("by hand", tags={NOTE: "mine"})
    with store.settings(store.PROBE):
        new = client.get_experiment(store.experiment_id(client, "new", None))
        assert store.experiment_id(client, "by hand", None) == by_hand
    assert new.tags["mlflow.experimentKind"] == "custom_model_development"
    assert "same classes" in new.tags[NOTE]
    assert client.get_experiment(by_hand).tags[NOTE] == "mine"
    views = [
        client.get_experiment(number).tags["mlflow.sharedViewState.spectro"] for number in (by_hand, new.experiment_id)
    ]
    assert views[0] == views[1]
