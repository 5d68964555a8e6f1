"""Searches: what is drawn, what counts, what is read, and what is left behind."""

import contextlib
import io
import json
import re
import shutil
import subprocess
import warnings
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from conftest import SMALL_HOG, read_json, read_rows
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from spectro.cli import main as cli
from spectro.config.check import check
from spectro.config.groups import register
from spectro.data.images import Images
from spectro.errors import ConfigError, SpectroError
from spectro.paths import CONF
from spectro.runs import results
from spectro.runs import run as experiment
from spectro.runs.runinfo import RunInfo
from spectro.sweeps import report
from spectro.sweeps import study as studies
from spectro.sweeps.launcher import SweepError, submit
from spectro.sweeps.search import name_of, sampler_of_draw
from spectro.sweeps.space import Space, in_words
from spectro.sweeps.sweeper import StudySweeper
from spectro.sweeps.trial import Pruner, TrialSpec, dataset_of

DRAW = report.draw
X = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}
ONE_POINT = ["svm.C=1", "svm.gamma=1.0x", "pca.variance=0.95"]
QUICK = ["sweeper=hog_svm", "cascade_stage=flat", "validation=holdout", "study=s", "seed=3", "tracking.uri=null"]
# Three parameters are left to search: C, gamma and the variance.
QUICK += ["hog.signed=false", "hog.orientations=9", "hog.block_cells=2", "hog.block_norm=L2-Hys", "hog.sqrt=false"]
QUICK += ["scaler=standard", "data.scale=0.1", *SMALL_HOG]


# Those of C, gamma and the variance.
DEFAULTS = [30.0, 0.1, 0.99]


def composed(*overrides):
    """The whole configuration, Hydra's part included; its loader stays in `GlobalHydra`."""
    register()
    GlobalHydra.instance().clear()
    initialize_config_dir(str(CONF))
    return compose("config", overrides=list(overrides), return_hydra_config=True)


def space_of(*overrides):
    master = composed(*overrides)
    return Space(GlobalHydra.instance().config_loader(), master, overrides)


def sweep(*overrides):
    """What ``python train.py --multirun ...`` does, in this process."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    master = composed(*(str(override.input_line) for override in parsed if not override.is_sweep_override()))
    sweeper = StudySweeper(**master.hydra.sweeper)
    context = SimpleNamespace(config_loader=GlobalHydra.instance().config_loader())
    sweeper.setup(hydra_context=context, task_function=None, config=master)
    sweeper.sweep(list(overrides))


@pytest.fixture
def quick(tmp_path, demo_root):
    """Overrides of a small search with HOG-SVM in a folder of its own, without MLflow."""
    return [f"outputs={tmp_path}", *QUICK, f"data.demo_dir={demo_root}"]


@pytest.fixture(scope="module", autouse=True)
def no_figures():
    """Drawing takes longer than the rest of a small search."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "draw", lambda *_: list)
        patch.setattr(report, "draw", lambda *_: list)
        yield patch


def make_sampler(draw):
    return optuna.samplers.TPESampler(seed=draw, n_startup_trials=3)


def claim(study, total):
    return studies.claim(study, X, total, make_sampler, {})


def value_of(trial):
    return -((trial.params["x"] - 0.3) ** 2)


def dead_process():
    process = subprocess.Popen(["true"])
    process.wait()
    return studies.this_process() | {"pid": process.pid}


@pytest.fixture
def study():
    return optuna.create_study(direction="maximize")


class TestStudy:
    def test_points_do_not_depend_on_when_the_process_was_stopped(self, study):
        """A sampler with a fixed seed would draw its first points again after every start."""
        killed_at = {1, 4, 5}
        undisturbed = optuna.create_study(direction="maximize")
        for _ in range(8):
            trial = claim(undisturbed, 8)
            undisturbed.tell(trial, value_of(trial))
        while (trial := claim(study, 8)) is not None:
            if trial.number in killed_at:
                studies.end_trial(study, trial.number, "FAIL", counts=False, reason="its process was killed")
            else:
                study.tell(trial, value_of(trial))
        points = [trial.params["x"] for trial in studies.counting(study)]
        assert points == [trial.params["x"] for trial in undisturbed.get_trials()]
        assert len(set(points)) == 8

    def test_a_trial_of_a_dead_process_does_not_count(self, study):
        """Its place and its point are taken by the next one."""
        owners = [dead_process(), studies.this_process(), studies.this_process() | {"host": "another"}]
        trials = [claim(study, 3) for _ in owners]
        for trial, owner in zip(trials, owners, strict=True):
            trial.set_user_attr(studies.OWNER, owner)
        assert studies.fail_stale(study) == [0]
        assert [t.number for t in studies.counting(study)] == [1, 2]
        again = claim(study, 3)
        assert (again.number, again.params) == (3, trials[0].params)
        assert claim(study, 3) is None

    def test_an_ended_trial_counts_and_keeps_its_end(self, study):
        """A search may give a trial up that its worker finishes later."""
        for state, value in (("FAIL", None), ("COMPLETE", 0.5)):
            trial = claim(study, 2)
            studies.end_trial(study, trial.number, state, value, reason="first")
            studies.end_trial(study, trial.number, "FAIL", counts=False, reason="late")
        assert claim(study, 2) is None
        assert [(t.state.name, t.value) for t in studies.counting(study)] == [("FAIL", None), ("COMPLETE", 0.5)]
        assert [t.user_attrs[studies.REASON] for t in study.get_trials()] == ["first"] * 2

    def test_another_study_of_the_name_is_refused(self, tmp_path):
        storage = f"sqlite:///{tmp_path}/s.db"
        studies.open_study(storage, "s", {"svm.C": 1, "seed": 0})
        with pytest.raises(ConfigError, match=r"study: got 's'.*svm.C \(was 1, is 2\).*study=NAME"):
            studies.open_study(storage, "s", {"svm.C": 2, "seed": 0})

    @pytest.mark.parametrize(
        ("storage", "text"),
        [
            ("sqlite:////proc/none/s.db", ""),
            ("sqlite:///s.db", "not a database"),
            ("nothing://x", ""),
            ("postgresql://me:secret@0.0.0.0:1/x", ""),
        ],
    )
    def test_a_storage_that_cannot_be_used(self, storage, text, tmp_path, monkeypatch):
        monkeypatch.setattr("time.sleep", lambda _: None)
        monkeypatch.chdir(tmp_path)
        Path("s.db").write_text("not a database", encoding="utf-8")
        with pytest.raises(ConfigError, match=f"storage: got.*{text}") as caught:
            studies.open_storage(storage)
        assert "secret" not in str(caught.value)
        assert Path("s.db").read_text(encoding="utf-8") == "not a database"


def settings(**changes):
    """Those of `SweepKnobs` that pruning reads."""
    return SimpleNamespace(**{"prune": True, "warmup_epochs": 2, "startup_trials": 2, **changes})


def rows(*values):
    return [{"val_macro_f1": value} for value in values]


class TestPruning:
    """The median of what three earlier trials had reached by epoch 2, 0.6, 0.4 and 0.5, is 0.5."""

    @pytest.fixture
    def study(self, study):
        for values in ({1: 0.2, 2: 0.6, 3: 0.5}, {1: 0.1, 2: 0.4, 3: 0.8}, {1: 0.3, 2: 0.5, 3: 0.5}):
            study.add_trial(optuna.trial.create_trial(value=0.0, intermediate_values=values))
        study.ask()
        return study

    @pytest.mark.parametrize(
        ("values", "changes", "is_pruned"),
        [
            ((0.0, 0.49), {}, True),
            ((0.0, 0.5), {}, False),
            ((0.7, 0.1), {}, False),  # the best so far counts
            ((0.0, 0.1), {"prune": False}, False),
            ((0.0, 0.1), {"warmup_epochs": 3}, False),
            ((0.0, 0.1), {"startup_trials": 4}, False),
            ((None,), {}, False),  # without val there is nothing to compare
        ],
    )
    def test_below_the_median_of_the_best_by_that_epoch(self, study, values, changes, is_pruned):
        pruner = Pruner(study, 3, settings(**changes))
        with pytest.raises(optuna.TrialPruned, match="epoch 2 of flat") if is_pruned else contextlib.nullcontext():
            for n in range(1, len(values) + 1):
                pruner("flat", rows(*values[:n]))

    def test_stages_are_compared_with_their_like(self, study):
        """A hard stage's 0.6 must not be measured by what easy stages reach."""
        study = optuna.create_study(direction="maximize")
        for _ in range(2):
            other = study.ask()
            pruner = Pruner(study, other.number, settings())
            for stage, value in (("easy", 0.9), ("hard", 0.5)):
                pruner(stage, rows(value))
                pruner(stage, rows(value, value))
            study.tell(other, 0.5)
        pruner = Pruner(study, study.ask().number, settings())
        for stage, value in (("easy", 0.9), ("hard", 0.6)):
            pruner(stage, rows(value, value))
        with pytest.raises(optuna.TrialPruned):
            Pruner(study, study.ask().number, settings())("easy", rows(0.6, 0.6))


@pytest.fixture(scope="module")
def searched(tmp_path_factory, demo_root):
    """A finished search of four trials: its overrides, its folder and what it printed. Tests may go on with it."""
    outputs = tmp_path_factory.mktemp("searched")
    overrides = [f"outputs={outputs}", *QUICK, f"data.demo_dir={demo_root}"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        sweep(*overrides, "n_trials=4")
    return overrides, outputs / "sweeps" / "s", printed.getvalue()


class TestSearch:
    def test_four_trials_and_a_final_run(self, searched):
        _, folder, printed = searched
        rows = read_rows(folder / "trials.csv")[:4]
        assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]
        lines = [line.split()[:2] for line in printed.splitlines()]
        first = lines.index(["trial", "val/macro_f1"]) + 1
        # The best of them is then no worse than the defaults.
        assert [float(rows[0][key]) for key in ("svm.C", "svm.gamma x", "pca.variance")] == DEFAULTS
        assert lines[first : first + 4] == [[row["trial"], f"{float(row['value']):.4f}"] for row in rows]
        assert f"spectro predict {folder}/final_" in printed.replace("\n", "")
        best = max(rows, key=lambda row: float(row["value"]))
        final = folder / f"final_trial_{best['trial']}_seed_1"
        assert read_json(final / "metrics.json")["test"]["n_records"] > 0
        assert read_json(final / "run.json")["seed"] == 1
        assert f"--config-dir {folder} --config-name best_config" in printed
        assert read_json(folder / "run.json")["status"] == "FINISHED"
        assert read_json(folder / "metrics.json")["trials"] == {"complete": 4, "pruned": 0, "fail": 0, "all": 4}

    def test_best_config_gives_the_same_numbers(self, searched, tmp_path):
        _, folder, _ = searched
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(folder)):
            cfg = compose("best_config", overrides=[f"hydra.searchpath=[file://{CONF}]"])
        experiment.run(check(cfg), tmp_path)
        final = next(folder.glob("final_trial_*"))
        for name in ("metrics.json", "predictions.csv"):
            assert (tmp_path / name).read_bytes() == (final / name).read_bytes()

    def test_started_again_it_makes_what_is_missing(self, searched, capsys):
        """Nothing the second time; a final run that was killed, or has another seed; trials of a larger total."""
        overrides, folder, _ = searched
        rows = read_rows(folder / "trials.csv")
        final = next(folder.glob("final_trial_*"))
        runs = {path: path.stat().st_mtime_ns for path in folder.glob("*/run.json")}
        sweep(*overrides, "n_trials=4")
        assert {path: path.stat().st_mtime_ns for path in runs} == runs
        assert "goes on after 4 of 4 trials" in capsys.readouterr().out
        metrics = (final / "metrics.json").read_bytes()
        (final / "metrics.json").unlink()
        (final / "run.json").write_text(json.dumps(read_json(final / "run.json") | {"status": "KILLED"}))
        sweep(*overrides, "n_trials=5")
        assert read_rows(folder / "trials.csv")[:4] == rows
        assert len(read_rows(folder / "trials.csv")) == 5
        if final == next(folder.glob("final_trial_*")):
            assert (final / "metrics.json").read_bytes() == metrics
        sweep(*overrides, "n_trials=4", "sweep.final_seed=7")
        assert {read_json(path)["seed"] for path in folder.glob("final_trial_*/run.json")} == {1, 7}

    def test_a_killed_trial_has_it_in_its_run(self, quick, tmp_path, monkeypatch):
        """A run.json that is RUNNING for ever would be taken for a trial in progress."""
        sweep(*quick, "n_trials=1")
        folder = tmp_path / "sweeps" / "s"
        study = optuna.load_study(study_name="s", storage=studies.open_storage(f"sqlite:///{tmp_path}/studies.db"))
        trial = study.ask()
        trial.set_user_attr(studies.OWNER, dead_process())
        content = read_json(folder / "0" / "run.json") | {"status": "RUNNING", "reason": None, "ended_at": None}
        # The first by the study, the second by nobody: it may be the trial of another machine.
        for name, more in {"1": {}, "9": {"host": "another"}}.items():
            (folder / name).mkdir()
            (folder / name / "run.json").write_text(json.dumps(content | more))
        sent = []
        monkeypatch.setattr(RunInfo, "send_to_mlflow_beside", lambda info: sent.append(info.folder.name))
        sweep(*quick, "n_trials=1")
        assert "1" in sent
        assert "9" not in sent
        info = read_json(folder / "1" / "run.json")
        assert (info["status"], info["reason"]) == ("KILLED", "its process was killed")

    @pytest.mark.parametrize("greedy", [False, True])
    def test_it_ends_in_the_mean_of_the_best_trials(self, searched, tmp_path, greedy):
        """Its configuration is one like any other, and a member's values are those of its trial."""
        overrides, folder, _ = searched
        sweep(*overrides, "n_trials=4", "sweep.ensemble=3", "sweep.final_seed=5", f"sweep.greedy={greedy}")
        (final,) = folder.glob("final_trial*_seed_5")
        numbers = re.findall(r"\d+", final.name.removesuffix("_seed_5"))
        trials = sorted(read_rows(folder / "trials.csv")[:4], key=lambda row: -float(row["value"]))
        if greedy:  # tests/test_ensemble.py has the rule
            assert 1 <= len(set(numbers)) == len(numbers) <= 3
            shutil.rmtree(final)
            return
        assert numbers == [row["trial"] for row in trials[:3]]
        settings = read_json(final / "run.json")["config"]["ensemble"]["settings"]
        assert [member["svm"]["C"] for member in settings] == [float(row["svm.C"]) for row in trials[:3]]
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(folder)):
            cfg = compose("best_config", overrides=[f"hydra.searchpath=[file://{CONF}]"])
        experiment.run(check(cfg), tmp_path)
        assert (tmp_path / "predictions.csv").read_bytes() == (final / "predictions.csv").read_bytes()
        shutil.rmtree(final)

    def test_a_folder_of_another_study_is_left_alone(self, searched, tmp_path):
        """Its finished final run would be taken for this one's, and its trials be written over."""
        overrides, folder, _ = searched
        (folder.parent / "mine").mkdir()
        (folder.parent / "mine" / "notes.txt").write_text("x", encoding="utf-8")
        for more in (f"storage=sqlite:///{tmp_path}/other.db", "study=mine"):
            with pytest.raises(ConfigError, match="holds another study or other runs"):
                sweep(*overrides, "n_trials=1", more)

    @pytest.mark.parametrize("split", ["val", "cv"])
    def test_trials_never_read_test(self, quick, tmp_path, monkeypatch, split):
        """Whoever picks the best of thirty trials by test has fitted to test."""
        keys_read = set()
        real = Images.__init__

        def spy(self, store, keys, *rest, **more):
            keys_read.update(keys)
            real(self, store, keys, *rest, **more)

        def no_final_run(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(Images, "__init__", spy)
        monkeypatch.setattr(experiment, "run", no_final_run)
        with pytest.raises(KeyboardInterrupt):
            sweep(*quick, "n_trials=1", *(["validation=kfold", "validation.k=2"] if split == "cv" else []))
        trial = tmp_path / "sweeps" / "s" / "0"
        assert set(read_json(trial / "metrics.json")) == {split, "stages", "objective"}
        assert (trial / {"val": "predictions.csv", "cv": "oof_predictions.csv"}[split]).exists()
        GlobalHydra.instance().clear()
        dataset = dataset_of(cli.composed([o for o in quick if not o.startswith(("sweeper", "study", "validation"))]))
        digests = {split: {record.digest for record in dataset.of(split)} for split in ("val", "test")}
        assert keys_read & digests["val"]
        assert not keys_read & digests["test"]

    def test_a_password_stays_where_it_is(self, quick, tmp_path):
        """What lies in a trial's folder goes to MLflow, where others read it."""
        sweep(*quick, "n_trials=1", f"storage='sqlite:///{tmp_path}/s.db?user=me&password=hunter2'")
        written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith("s.db")]
        assert not [path for path in written if b"hunter2" in path.read_bytes()]

    def test_failed_trials_are_recorded_and_the_search_goes_on(self, quick, tmp_path, capsys):
        """Which blocks fit into an image depends on two keys. A point that is drawn again is not fitted again."""
        sweep(*quick, *ONE_POINT, "hog.cell_px=choice(8,16)", "hog.block_cells=choice(1,3)", "n_trials=8")
        folder = tmp_path / "sweeps" / "s"
        states, fitted = {}, []
        for row in read_rows(folder / "trials.csv"):
            states[row["hog.cell_px"], row["hog.block_cells"]] = (row["state"], row["value"], row["reason"])
            fitted += [row["trial"]] * (folder / row["trial"] / "metrics.json").exists()
        state, _, reason = states.pop(("16", "3"))
        assert state == "FAIL"
        assert "hog.size_px" in reason
        assert {state for state, _, _ in states.values()} == {"COMPLETE"}
        assert len(fitted) == len(states)
        assert re.search(r"  as \d+  ", capsys.readouterr().out)

    def test_if_all_fail_the_search_fails(self, quick, tmp_path, monkeypatch):
        def breaks(*_):
            raise FloatingPointError("loss is nan")

        monkeypatch.setattr(experiment, "fit_and_score_trial", breaks)
        with pytest.raises(SweepError, match=r"none of 2 trials.*2 times: FloatingPointError: loss is nan"):
            sweep(*quick, "n_trials=2")
        folder = tmp_path / "sweeps" / "s"
        assert [row["reason"] for row in read_rows(folder / "trials.csv")] == ["FloatingPointError: loss is nan"] * 2
        assert {read_json(path)["status"] for path in folder.glob("**/run.json")} == {"FAILED"}

    def test_hopeless_trials_of_networks_are_pruned(self, quick, tmp_path):
        network = ["model=resnet18", "sweeper=resnet18", "cnn.pretrained=false", "cnn.size_px=32", "n_trials=5"]
        network += ["cnn.backbone_options={layers: [1, 1, 1, 1], channels: [16, 16, 32, 32]}", "train.batch_size=8"]
        network += ["train.epochs=3", "train.lr=choice(0.003,0.0000001)", "loss.name=cross_entropy", "sweep.threads=1"]
        shared = [override for override in quick if not override.startswith(("sweeper", "validation", "hog", "scaler"))]
        sweep(*network, *shared, "sweep.startup_trials=2", "sweep.warmup_epochs=1", "train.select=best")
        folder = tmp_path / "sweeps" / "s"
        pruned = [row for row in read_rows(folder / "trials.csv") if row["state"] == "PRUNED"]
        assert pruned
        assert all("below the median" in row["reason"] and row["value"] == "" for row in pruned)
        assert read_json(folder / pruned[0]["trial"] / "run.json")["status"] == "PRUNED"
        assert min(len(read_rows(folder / row["trial"] / "history.csv")) for row in pruned) < 3
        assert read_json(folder / "metrics.json")["trials"]["pruned"] == len(pruned)

    def test_a_searched_group(self, quick, tmp_path):
        """A group brings keys of its own, which values alone do not."""
        sweep(*quick, "augmentation=choice(none,mirror)", *ONE_POINT, "n_trials=4")
        rows = read_rows(tmp_path / "sweeps" / "s" / "trials.csv")
        assert {row["augmentation"] for row in rows} == {"none", "mirror"}

    def test_parent_and_children_in_mlflow(self, quick, database, monkeypatch):
        monkeypatch.setattr(report, "draw", DRAW)
        uri = f"sqlite:///{database}"
        overrides = [*quick, f"tracking.uri={uri}"]
        sweep(*overrides, "n_trials=3")
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        runs = client.search_runs([client.get_experiment_by_name("field").experiment_id])
        (parent,) = [run for run in runs if run.data.tags.get("sweep") == "true"]
        children = {r.info.run_name: r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id}
        assert {name for name in children if name.startswith("trial")} == {f"trial {n}" for n in range(3)}
        assert any(name.startswith("final") for name in children)
        assert len(runs) == len(children) + 1
        child = children["trial 2"]
        assert set(child.data.params) == {"svm.C", "svm.gamma x", "pca.variance"}
        assert child.data.metrics["objective"] == child.data.metrics["val/macro_f1"]
        assert not [name for name in child.data.metrics if name.startswith("test/")]
        assert parent.data.params["search.svm.C"] == "0.3 to 300, log"
        assert "3 trials: 3 complete" in parent.data.tags["mlflow.note.content"]
        assert parent.data.metrics["trials/all"] == 3
        figures = {file.path for file in client.list_artifacts(parent.info.run_id, "figures")}
        assert {"figures/optimization_history.png", "figures/slices.png"} <= figures
        # Hashes are for odd labels only: a person reads the names of metrics and parameters in a column.
        names = {name for run in runs for name in (*run.data.metrics, *run.data.params)}
        assert not [name for name in names if len(name) > 48 or re.search(r"[0-9a-f]{8}", name)]
        # The trials' files are the trials', not the parent's as well.
        assert "0" not in {file.path for file in client.list_artifacts(parent.info.run_id)}

    @pytest.mark.parametrize(
        ("override", "text"),
        [
            ("svm.C=interval(-1,1)", r"svm.C: got -1.0; allowed: greater than 0"),
            ("svm.C=choice(1,2,-3)", r"svm.C: got -3; allowed: greater than 0"),
            ("svm.C=tag(log,interval(0,1))", r"svm.C: got tag\(log,interval\(0,1\)\); allowed: .* above 0"),
            ("svm.C=interval(2,1)", r"svm.C: got interval\(2,1\); allowed: "),
            ("stages.hard.svm.C=interval(1,2)", r"stages.hard: got svm; allowed under cascade_stage=flat"),
            ("objective=null", r"objective: got null"),
            ("n_trials=0", r"n_trials: got 0"),
            (["sweep.ensemble=0"], r"sweep.ensemble: got 0"),
            (["n_trials=3", "sweep.ensemble=4"], r"sweep.ensemble: got 4; allowed: 1 to 3"),
            (["sweep.ensemble=2", "augmentation=choice(none,mirror)"], r"got 2 with augmentation searched; allowed: 1"),
            ("storage=null", r"storage: got null"),
            ("storage='sqlite:///:memory:'", r"storage: got 'sqlite:///:memory:'"),
            ("study=..", r"study: got '..'"),
            ("hydra.sweeper.direction=minimize", r"hydra.sweeper.direction: got minimize"),
            (ONE_POINT, r"sweeper: nothing is searched"),
            (["validation=kfold", "validation.k=50"], r"validation.k: got 50 folds for \d+ sources"),
            ("hydra/sweeper/sampler=grid", r"hydra/sweeper/sampler: got GridSampler; allowed: tpe"),
        ],
    )
    def test_what_is_wrong_is_reported_before_the_first_trial(self, quick, tmp_path, override, text):
        """Thirty failed trials would say the same, later, and stay in the study."""
        with pytest.raises(SpectroError, match=text):
            sweep(*quick, *([override] if isinstance(override, str) else override))
        assert not (tmp_path / "sweeps").exists()

    @pytest.mark.parametrize("sampler", ["random", "gp", "qmc", "cmaes", "nsgaii", "nsgaiii"])
    def test_other_samplers(self, sampler, study):
        master = composed("sweeper=hog_svm", f"hydra/sweeper/sampler={sampler}")
        make = sampler_of_draw(master.hydra.sweeper.sampler)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trials = [studies.claim(study, X, 3, make, {}) for _ in range(3)]
        assert len({trial.params["x"] for trial in trials}) == 3

    def test_the_default_name_tells_settings_apart(self, quick):
        names = []
        for more in ([], ["n_trials=2"], ["augmentation=none"]):
            space = space_of(*quick, *more)
            config = check(space.config({}))
            names.append(name_of(config, space.settings(config, {})))
        assert names[0] == names[1] != names[2]
        assert all(name.startswith("hog_svm_flat_field_") for name in names)

    @pytest.mark.parametrize("name", [path.stem for path in (CONF / "sweeper").glob("*.yaml") if path.stem != "none"])
    def test_every_space_is_valid(self, name):
        """Space checks the ends of every searched key by composing and checking a trial; it holds the defaults.

        A flat model has the fewest keys: what can be searched there can be searched in every stage.
        """
        space = space_of(f"sweeper={name}", "cascade_stage=flat", "tracking.uri=null")
        start = space.start()
        # null and 0 are in no logarithmic range
        assert space.distributions.keys() - start.keys() <= {"svm.C", "train.weight_decay"}
        cfgs = space.config(start), space.config({})
        assert [OmegaConf.select(cfgs[0], key) for key in start] == [OmegaConf.select(cfgs[1], key) for key in start]


class TestLauncher:
    """A launcher's workers are played by functions that do to the study what a worker does."""

    def submit(self, study, launch, n=2):
        jobs = {trial.number: ["a=1"] for trial in (claim(study, 9) for _ in range(n))}
        ended = []
        submit(study, jobs, Path(), lambda jobs, first, folder: launch(range(first, first + len(jobs))), ended.append)
        assert ended == list(jobs)
        return [study.get_trials()[number] for number in jobs]

    def test_a_job_that_fails_before_its_trial_begins(self, study):
        """For example because the machine does not see the folder."""
        trials = self.submit(study, lambda numbers: [JobReturn(_return_value=OSError("no folder")) for _ in numbers])
        assert [t.user_attrs[studies.REASON] for t in trials] == ["OSError: no folder"] * 2
        assert len(studies.counting(study)) == 2

    def test_a_launcher_that_cannot_start_anything(self, study):
        """None of them counts: with a launcher that works the same command makes them all."""
        with pytest.raises(SweepError, match=r"hydra/launcher: it could not start a trial \(ZeroDivisionError: div"):
            self.submit(study, lambda numbers: 1 / 0)
        assert studies.counting(study) == []

    def test_a_worker_that_dies_twice(self, study):
        """joblib ends all its workers when one dies, so that a first death need not be the trial's own fault."""

        def launch(numbers):
            for number in numbers:
                study._storage.set_trial_user_attr(study.get_trials()[number]._trial_id, studies.OWNER, dead_process())
            raise RuntimeError("a worker died")

        (first,), (second,) = self.submit(study, launch, n=1), self.submit(study, launch, n=1)
        assert first.params == second.params
        assert [t.state.name for t in (first, second)] == ["FAIL", "FAIL"]
        assert studies.counting(study) == [second]
        assert "a worker died" in second.user_attrs[studies.REASON]


def test_a_distribution_in_words():
    """Optuna's own words are code."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    assert in_words(FloatDistribution(1e-5, 1000, log=True)) == "1e-05 to 1000, log"
    assert in_words(IntDistribution(1, 20)) == "1 to 20"
    assert in_words(IntDistribution(2, 20, step=2)) == "2 to 20, step 2"
    assert in_words(CategoricalDistribution(["adam", None, 0.5])) == "adam, None, 0.5"


def test_a_trial_specification_survives_the_command_line():
    """Names and addresses may hold whatever a shell or Hydra's grammar minds."""
    spec = TrialSpec("postgresql://u:'p\"@h/{x}", "s, t=1", 3, {"svm.gamma x": 0.5, "шум": "a b"}, "/a b")
    (override,) = OverridesParser.create().parse_overrides([spec.override()])
    assert TrialSpec.read(override.value()) == spec
