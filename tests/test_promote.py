"""The gate of the registry: what passes, what is refused with numbers, and what is recorded. Runs are made of files."""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import read_rows
from test_comparison import make_run, write

from spectro.classifiers.manifest import write_manifest
from spectro.errors import ModelError
from spectro.files import write_json
from spectro.runs.runinfo import RunInfo
from spectro.tracking import MlflowEntry, send_now, store
from spectro.tracking.registry import fetch_model

HALF = range(0, 24, 2)
NO_CROP = dict.fromkeys(("left", "top", "right", "bottom"), 0)


def opposite(row: dict[str, str]) -> dict[str, str]:
    """The row of a prediction that is right where it is wrong, and the other way round: test would choose the worst."""
    if "predicted" not in row:
        return row
    called = "abca"["abc".index(row["label"]) + (row["predicted"] == row["label"])]
    return {**row, "predicted": called, **{f"p_{c}": "0.8" if c == called else "0.1" for c in "abc"}}


@pytest.fixture
def made(database: Path) -> Callable[..., Path]:
    """A function that makes a finished run, some of its val records wrong, in a store."""

    def make(name: str, wrong: Sequence[int], *, model: str = "hog_svm", oof: bool = False) -> Path:
        info = {"run_name": Path(name).name}
        folder = make_run(database.parent / "sweeps" / name, wrong, model=model, info=info, oof=oof)
        for file in folder.glob("*.csv"):
            rows = read_rows(file)
            val = [{k: v.replace("test", "val") for k, v in row.items()} for row in rows]
            test = [] if file.name.startswith("oof") else [opposite(row) for row in rows if row["split"] == "test"]
            write(file, list(rows[0]), [list(row.values()) for row in val + test])
        write_json(folder / "metrics.json", {"stages": {}})
        (folder / "model").mkdir()
        write_json(folder / "model" / "use.json", {"crop": NO_CROP, "classes": ["a", "b", "c"]})
        write_manifest(folder / "model")
        info = RunInfo.read(folder)
        info.mlflow = MlflowEntry.new(f"sqlite:///{database}", database.parent)
        info.mlflow = send_now(folder, info.content())
        info.write()
        return folder

    return make


@pytest.fixture
def promote(spectro: Callable[..., Any], database: Path) -> Callable[..., Any]:
    """A function that promotes to ``records@champion``."""
    return lambda target, *more: spectro("promote", target, "--name", "records", "--outputs", database.parent, *more)


@pytest.fixture
def champion(database: Path) -> Callable[[], Any]:
    """A function that gives the version with the alias; None where there is none."""
    client = store.connect(f"sqlite:///{database}")

    def version() -> Any:
        named = [model for model in client.search_registered_models() if "champion" in model.aliases]
        return client.get_model_version_by_alias("records", "champion") if named else None

    return version


def test_the_best_of_an_experiment_is_registered_with_its_numbers(
    made: Any, promote: Any, champion: Any, database: Path
) -> None:
    """By val, against the baseline among the runs; a second time it is there already. The id of a search with several
    final runs names no model."""
    others = made("simple", HALF, model="pixels"), made("middle", [0, 1, 2])
    best = RunInfo.read(made("good", [0], model="embed"))
    score = r"good \(.*\): macro-F1 0\.96 \[.*\] on 24 val records, the highest of 3 runs"
    for line in (score, "is records@champion already"):
        done = promote("field")
        assert done.returncode == 0, done.stderr
        assert re.search(line, done.stdout)
    version = champion()
    assert (int(version.version), version.run_id, version.tags["split"]) == (1, best.mlflow.run_id, "val")
    assert re.search(
        r"baseline, simple \(.*\): better by \+0\.46 \[.*\], p \\< 0\.001 over 2 runs", version.description
    )
    assert version.tags["forced.champion"] == "false"
    for folder in others:
        for tag, value in {"mlflow.parentRunId": best.mlflow.run_id, "final": "true"}.items():
            store.connect(f"sqlite:///{database}").set_tag(RunInfo.read(folder).mlflow.run_id, tag, value)
    with pytest.raises(ModelError, match="several final runs"):
        fetch_model(str(best.mlflow.run_id), f"sqlite:///{database}", database.parent)


def test_what_is_not_shown_to_be_better_is_refused_and_force_is_recorded(
    made: Any, promote: Any, champion: Any, database: Path
) -> None:
    """Against the baseline, and against today's champion although the baseline is beaten; nothing changes then. Another
    alias deletes neither the record of that nor a tag of the user, and the name of a run is no markup."""
    simple, weak = made("first/simple", HALF, model="pixels"), made("first/weak", HALF[1:])
    done = promote(weak.parent)
    assert (done.returncode, champion()) == (3, None)
    assert re.search(r"the baseline, simple .*: not shown to be better: \+0\.04 .* fewer than 6", done.stderr)
    done = promote(simple)
    assert (done.returncode, "the baseline, majority class: better by" in done.stdout) == (0, True)
    made("second/simple 2", HALF, model="pixels")
    assert promote(made("second/good", [0], model="embed").parent).returncode == 0
    assert (int(champion().version), champion().tags["forced.champion"]) == (2, "false")
    made("third/simple 3", HALF, model="pixels")
    same = made("third/same <b>", [1], model="resnet18").parent
    done = promote(same)
    assert (done.returncode, int(champion().version)) == (3, 2)
    assert "better by" in done.stdout
    assert re.search(r"refused.*\n  against today's champion, version 2, good .*: not shown", done.stderr)
    assert promote(same, "--force").returncode == 0
    store.connect(f"sqlite:///{database}").set_model_version_tag("records", "3", "crew", "north")
    assert promote(same, "--alias", "shadow").returncode == 0
    tags = {"forced.champion": "true", "forced.shadow": "false", "crew": "north"}
    assert (int(champion().version), champion().tags.items() >= tags.items()) == (3, True)
    for text in ("- champion: **forced**", "- shadow: the gate was passed", r"same \<b>", "version 2, good"):
        assert text in champion().description


def test_a_cross_validated_run_is_chosen_out_of_fold(made: Any, promote: Any, champion: Any) -> None:
    """Its records are others than those of a champion by val: that cannot be compared, and is not passed over."""
    made("a/simple", HALF, model="pixels")
    assert promote(made("a/by val", [], model="embed").parent).returncode == 0
    made("b/simple", HALF, model="pixels", oof=True)
    done = promote(made("b/kfold", [0], oof=True).parent)
    assert (done.returncode, int(champion().version)) == (3, 1)
    assert re.search("kfold .*: macro-F1 0.96 .* on 24 out-of-fold records", done.stdout)
    assert re.search(r"today's champion, version 1, cannot be compared: .*cross-validated", done.stderr)


def test_a_champion_without_a_run_is_replaced_by_force_alone(
    made: Any, promote: Any, champion: Any, database: Path
) -> None:
    """A version from no run is not the run that MLflow never got; and one whose run was deleted is not in the way."""
    client = store.connect(f"sqlite:///{database}")
    made("a/simple", HALF, model="pixels"), made("b/simple 2", HALF, model="pixels")
    good, unsent = made("a/good", [0], model="embed"), made("b/unsent", [], model="resnet18")
    info = RunInfo.read(unsent)
    info.mlflow = MlflowEntry(tracking_uri=f"sqlite:///{database}")
    info.write()
    client.create_registered_model("records")
    client.create_model_version("records", (good / "model").as_uri())
    client.set_registered_model_alias("records", "champion", "1")
    done = promote(unsent.parent)
    assert (done.returncode, "already" in done.stdout, "spectro resend" in done.stderr) == (2, False, True)
    for reason in ("it comes from no run", "got MLflow run id"):
        done = promote(good.parent)
        assert (done.returncode, f"cannot be compared: {reason}" in done.stderr) == (3, True), done.stderr
        assert promote(good.parent, "--force").returncode == 0
        client.delete_run(champion().run_id)
        shutil.rmtree(good)
        good = made(f"{good.parent.name}/good again", [0], model="embed")


def test_only_the_store_that_is_named_is_asked(made: Any, promote: Any) -> None:
    """A received run.json may name any server; what MLflow does not know is named."""
    folder = made("a/good", [0])
    made("a/simple", HALF, model="pixels")
    info = RunInfo.read(folder)
    info.mlflow = MlflowEntry(tracking_uri="http://127.0.0.1:9", run_id="f" * 32)
    info.write()
    done = promote(folder.parent)
    assert (done.returncode, "spectro resend" in done.stderr, "127.0.0.1:9" in done.stderr) == (2, True, False)
    done = promote("nowhere")
    assert (done.returncode, "allowed in sqlite" in done.stderr) == (2, True)
