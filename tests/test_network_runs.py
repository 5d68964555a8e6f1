"""Whole runs of networks: what lies in the run directory, the recipes, and going on after a kill."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spectro.classifiers import load
from spectro.classifiers.networks import training
from spectro.cli import main as cli
from spectro.cli import resume
from spectro.data.decode import ImageSpec, fit
from spectro.errors import ConfigError, DataError, ModelError
from spectro.paths import CONF
from spectro.runs.runinfo import RunInfo
from spectro.tracking import MlflowEntry

TRAIN = CONF.parent / "train.py"
SHARED = Path(os.environ.get("SPECTRO_SHARED", CONF.parent.parent / "shared"))
TINY = {
    "resnet18": ["cnn.backbone_options={layers: [1, 1, 1, 1], channels: [16, 16, 32, 32]}"],
    "deit_vpt": [
        "vpt.backbone=deit_tiny_patch16_224",
        "vpt.backbone_options={patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2}",
    ],
}


def tiny(model, *overrides, epochs=3):
    """Overrides for a run of a tiny random network."""
    section = {"resnet18": "cnn", "deit_vpt": "vpt"}[model]
    own = [f"model={model}", *TINY[model], f"{section}.pretrained=false", f"{section}.size_px=32"]
    return [*own, f"train.epochs={epochs}", *overrides]


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def history_of(run_dir):
    with (run_dir / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def results_of(run_dir):
    """Every byte that must not depend on whether a run was stopped."""
    files = [run_dir / "metrics.json", run_dir / "predictions.csv", *sorted((run_dir / "model").rglob("*"))]
    rows = [{**row, "seconds": ""} for row in history_of(run_dir)]
    return [path.read_bytes() for path in files if path.is_file()], rows


@pytest.fixture
def root(demo_root):
    return [f"data.demo_dir={demo_root}", "data.scale=0.1"]


@pytest.mark.parametrize("model", TINY)
def test_a_cascade_of_networks_does_its_whole_job(model, run_here, root):
    run_dir = run_here(*tiny(model), *root, figures=True)
    metrics, info, rows = read_json(run_dir / "metrics.json"), read_json(run_dir / "run.json"), history_of(run_dir)
    assert info["status"] == "FINISHED"
    assert (run_dir / "figures" / "learning_curves.png").exists()
    assert not (run_dir / "checkpoints").exists()
    assert [(row["stage"], row["epoch"]) for row in rows] == [(s, str(e)) for s in ("easy", "hard") for e in (1, 2, 3)]
    for stage in ("easy", "hard"):
        # What was the best epoch's is what is reported of the stage.
        best = next(float(row["val_macro_f1"]) for row in rows if row["stage"] == stage and row["best"] == "True")
        assert metrics["stages"][stage]["val"]["macro_f1"] == pytest.approx(best)
        facts = info["networks"][stage]
        assert 0 < facts["parameters"]["trainable"] <= facts["parameters"]["total"]
        assert facts["weights"] == {"source": "random", "sha256": None}
    assert info["tags"]["weights"] == "random"
    assert list(load(run_dir / "model").classes_) == metrics["val"]["classes"]


def test_the_terminal_tells_the_counts(run_here, root, capsys):
    run_here(*tiny("deit_vpt", "cascade_stage=flat", epochs=1), *root)
    told = capsys.readouterr().out
    assert told.index("flat: 340 of 19,900 parameters are trained") < told.index("flat: epoch 1 of 1 is the best")


def test_drawn_views(run_here, root, monkeypatch):
    """Each record once in an epoch, in one of its views."""
    seen = []
    real = training.train
    monkeypatch.setattr(training, "train", lambda job: seen.append(job.train) or real(job))
    run_here(*tiny("resnet18", "cascade_stage=flat", "augmentation.mode=sample", epochs=1), *root)
    run_here(*tiny("resnet18", "cascade_stage=flat", epochs=1), *root, name="expanded")
    drawn, expanded = seen
    assert len(expanded.labels) == 4 * len(drawn.labels)
    rows = np.arange(len(drawn.labels))
    epochs = [drawn.images.drawn(np.random.default_rng(seed))(rows) for seed in (0, 1, 0)]
    assert (epochs[0] == epochs[2]).all()
    assert not (epochs[0] == epochs[1]).all()
    np.testing.assert_array_equal(np.bincount(expanded.labels), 4 * np.bincount(drawn.labels))


@pytest.mark.parametrize("overrides", [[], ["model=resnet18", "stages.hard.model=hog_svm"]], ids=str)
def test_drawing_is_refused_where_nothing_is_drawn(overrides):
    with pytest.raises(ConfigError, match=r"augmentation.mode: got 'sample'; allowed: expand .*hard has no epochs"):
        cli.composed(["augmentation.mode=sample", *overrides])


def test_weights_that_would_not_be_used_are_refused():
    with pytest.raises(ConfigError, match=r"cnn.weights: got 'x'; allowed: null"):
        cli.composed(["model=resnet18", "cnn.pretrained=false", "cnn.weights=x"])


def test_missing_weights_end_a_run_before_it_begins(run_here, root, tmp_path):
    with pytest.raises(ModelError, match=r"vpt.weights: got 'nowhere', no such file"):
        run_here("model=deit_vpt", "vpt.weights=nowhere", *root)
    assert not list((tmp_path / "run").iterdir())


def test_a_knob_for_one_stage(run_here, root):
    run_dir = run_here(*tiny("deit_vpt", "stages.hard.vpt.variant=deep", "stages.hard.train.epochs=1"), *root)
    networks = read_json(run_dir / "run.json")["networks"]
    assert networks["hard"]["parameters"]["trainable"] == 2 * 10 * 24 + 2 * 24 + 2
    assert [row["stage"] for row in history_of(run_dir)].count("hard") == 1


def test_a_loss_that_is_not_finite_ends_the_run(run_here, root, tmp_path):
    """With a message that names the epoch."""
    with pytest.raises(training.TrainingError, match="epoch 1"):
        run_here(*tiny("resnet18", "train.lr=1e30", "train.warmup_epochs=0"), *root)
    assert read_json(tmp_path / "run" / "run.json")["status"] == "FAILED"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cnn", {"batch_size": 16, "epochs": 10, "lr": 1e-4, "optimizer": "adam", "loss": "cross_entropy"}),
        ("vpt_shallow", {"batch_size": 16, "epochs": 10, "lr": 1e-4, "variant": "shallow", "loss": "focal"}),
        ("vpt_deep", {"batch_size": 16, "epochs": 10, "lr": 1e-4, "variant": "deep", "loss": "focal"}),
        ("hog_svm", {"cell_px": 8, "variance": 0.95}),
    ],
)
def test_recipes_of_the_original(name, expected):
    composed = cli.composed([f"experiment=original_{name}"])
    raw = composed.raw
    assert composed.stage == "full"
    assert raw["cascade"]["gate"] == "hard"
    found = {**raw.get("train", {}), **raw.get("vpt", {}), **raw.get("hog", {}), **raw.get("pca", {})}
    found["loss"] = raw.get("loss", {}).get("name")
    assert {key: found[key] for key in expected} == expected
    text = (CONF / "experiment" / f"original_{name}.yaml").read_text(encoding="utf-8")
    assert f"# python train.py experiment=original_{name}" in text


def test_the_command_line_wins_over_a_recipe():
    composed = cli.composed(["experiment=original_cnn", "train.epochs=3", "cascade.gate=soft"])
    assert (composed.raw["train"]["epochs"], composed.raw["cascade"]["gate"]) == (3, "soft")


class TestImageFit:
    image = Image.fromarray(np.repeat(np.arange(0, 240, 6, dtype=np.uint8)[None, :], 20, axis=0))

    def test_center_crop_keeps_the_middle(self):
        found = fit(self.image, ImageSpec(20, "L", "center_crop"))
        np.testing.assert_array_equal(found, np.asarray(self.image)[:, 10:30])

    def test_pad_keeps_everything_on_white_paper(self):
        found = fit(self.image, ImageSpec(40, "L", "pad"))
        np.testing.assert_array_equal(found[10:30], np.asarray(self.image))
        assert (found[:10] == 255).all()
        assert (found[30:] == 255).all()

    @pytest.mark.parametrize("how", ["squash", "center_crop", "pad"])
    @pytest.mark.parametrize("size", [(7, 300), (300, 7), (1, 1), (32, 32), (33, 32)])
    def test_any_image_becomes_square(self, how, size):
        found = fit(Image.new("L", size, 90), ImageSpec(32, "RGB", how))
        assert found.shape == (32, 32, 3)
        assert (found[16, 16] == 90).all()

    def test_images_of_another_fit_are_others_in_the_cache(self):
        """And squashed ones are found where they have always been."""
        from spectro.data import ImageStore

        kinds = [ImageStore().kind(ImageSpec(32, "RGB", how)) for how in ("squash", "center_crop", "pad")]
        assert len({kind.folder for kind in kinds}) == 3
        assert kinds[0].settings["spec"] == [32, "RGB"]


class TestResume:
    def test_a_killed_run_ends_as_if_it_had_not_been(self, run_here, root, tmp_path):
        """Weights, optimizer, random state and history go on at the last finished epoch."""
        overrides = [*tiny("deit_vpt", "vpt.prompt_dropout=0.2"), *root]
        whole = run_here(*overrides, name="whole")

        def kill(stage, history):
            if (stage, len(history)) == ("hard", 1):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_here(*overrides, on_epoch=kill)
        before = RunInfo.read(tmp_path / "run")
        assert before.status == "KILLED"
        assert len(history_of(before.folder)) == 4
        run_dir = run_here(*overrides, before=before)
        assert results_of(run_dir) == results_of(whole)
        info = RunInfo.read(run_dir)
        assert (info.status, info.started_at, len(info.resumed_at)) == ("FINISHED", before.started_at, 1)
        assert not (run_dir / "checkpoints").exists()

    def test_other_data_are_refused(self, run_here, root):
        before = RunInfo.read(run_here(*tiny("resnet18", epochs=1), *root))
        before.data.fingerprint = "0" * 16
        with pytest.raises(DataError, match="no longer holds the data"):
            run_here(*tiny("resnet18", epochs=1), *root, before=before)

    @pytest.mark.parametrize(
        ("info", "text"),
        [
            (None, "allowed: a run directory"),
            ({"status": "FINISHED"}, "which has finished"),
            ("half", "damaged"),
            ({"status": "RUNNING", "pid": os.getppid(), "started_at": 1e12}, "which is still running in process"),
        ],
        ids=["none", "finished", "damaged", "alive"],
    )
    def test_what_cannot_be_resumed(self, info, text, tmp_path):
        if isinstance(info, dict):
            RunInfo.start(tmp_path, run_name="r", experiment="e", mlflow=MlflowEntry(tracking_uri=None), **info).write()
        elif info is not None:
            (tmp_path / "run.json").write_text(info)
        with pytest.raises(ConfigError, match=text):
            resume.resume([f"resume={tmp_path}"])

    def test_nothing_may_be_changed(self, tmp_path):
        with pytest.raises(ConfigError, match="allowed: resume=DIR alone"):
            resume.resume([f"resume={tmp_path}", "train.epochs=99"])

    def test_a_saved_configuration_is_checked(self, tmp_path):
        with pytest.raises(ConfigError, match="allowed: a run directory"):
            resume.resume([f"resume={tmp_path}"])

    @pytest.mark.slow
    @pytest.mark.parametrize("model", TINY)
    def test_sigkill_at_random_moments(self, model, root, tmp_path):
        """Killed five times or more, wherever it was, and resumed each time by the command that users type."""
        chance = random.Random(model)
        overrides = [
            *tiny(model, "augmentation=mirror", epochs=40),
            *root,
            "tracking.uri=null",
        ]
        overrides += ["train.patience=null", "data.cache_dir=null"]
        overrides += ["vpt.prompt_dropout=0.1"] if model == "deit_vpt" else []

        def start(*arguments):
            return subprocess.Popen(
                [sys.executable, TRAIN, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )

        whole, run_dir = tmp_path / "whole", tmp_path / "killed"
        out, _ = start(*overrides, f"hydra.run.dir={whole}").communicate(timeout=300)
        assert (whole / "metrics.json").exists(), out.decode()
        kills, arguments = 0, [*overrides, f"hydra.run.dir={run_dir}"]
        while True:
            process = start(*arguments)
            if kills < 6:
                self._wait_for_progress(process, run_dir)
                time.sleep(chance.uniform(0, 0.3))
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
            out, _ = process.communicate(timeout=300)
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, out.decode()
            arguments = [f"resume={run_dir}"]
        assert kills >= 5
        assert results_of(run_dir) == results_of(whole)

    @staticmethod
    def _wait_for_progress(process, run_dir):
        """Until a checkpoint is written that was not there."""

        def newest():
            return sorted(run_dir.glob("checkpoints/*/*.ckpt"))  # names alone: an older one goes when a newer is there

        before, deadline = newest(), time.monotonic() + 120
        while newest() == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)


@pytest.mark.slow
class TestPretrained:
    """With real weights, where they are."""

    @pytest.fixture
    def weights(self):
        def find(name):
            path = SHARED / "weights" / name
            if not path.exists():
                pytest.skip(f"no {name} in SPECTRO_SHARED={SHARED}")
            return path

        return find

    def test_dinov2(self, weights, run_here, root):
        path = weights("vit_small_patch14_dinov2.safetensors")
        run_dir = run_here(
            "model=deit_vpt",
            "vpt.backbone=vit_small_patch14_dinov2",
            f"vpt.weights={path}",
            "cascade_stage=flat",
            "augmentation=none",
            "train.epochs=2",
            *root,
        )
        facts = read_json(run_dir / "run.json")["networks"]["flat"]
        assert facts["parameters"]["trainable"] == 5_380
        assert facts["weights"]["source"] == str(path)
        losses = [float(row["train_loss"]) for row in history_of(run_dir)]
        assert losses[1] < losses[0]

    def test_positions_of_the_right_grid_are_not_resampled(self, weights):
        from safetensors.torch import load_file

        from spectro.classifiers import VptClassifier

        path = weights("vit_small_patch14_dinov2.safetensors")
        classifier = VptClassifier(backbone="vit_small_patch14_dinov2", weights=str(path))
        network, _ = classifier._build(4, empty=False)
        for name, tensor in load_file(path).items():
            np.testing.assert_array_equal(
                network.backbone.state_dict()[name].numpy(), tensor.float().numpy(), err_msg=name
            )

    def test_efficientnet(self, weights, run_here, root):
        path = weights("tf_efficientnet_lite0.safetensors")
        run_dir = run_here(
            "model=resnet18",
            "cnn.backbone=tf_efficientnet_lite0",
            f"cnn.weights={path}",
            "cascade_stage=flat",
            "augmentation=none",
            "train.epochs=2",
            *root,
        )
        assert read_json(run_dir / "run.json")["networks"]["flat"]["weights"]["source"] == str(path)
