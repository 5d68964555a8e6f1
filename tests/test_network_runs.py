"""Whole runs of networks: what lies in the run directory, the recipes, and going on after a kill."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import read_json, read_rows
from PIL import Image

from spectro.classifiers import VptClassifier, load
from spectro.cli import main as cli
from spectro.cli import resume
from spectro.data import ImageStore
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
    network = [f"model={model}", *TINY[model], f"{section}.pretrained=false", f"{section}.size_px=32"]
    return [*network, f"train.epochs={epochs}", *overrides]


def history_of(run_dir):
    return read_rows(run_dir / "history.csv")


def results_of(run_dir):
    """Every byte that must not depend on whether a run was stopped."""
    files = [run_dir / "metrics.json", run_dir / "predictions.csv", *sorted((run_dir / "model").rglob("*"))]
    rows = [{**row, "seconds": ""} for row in history_of(run_dir)]
    return [path.read_bytes() for path in files if path.is_file()], rows


@pytest.fixture
def root(demo_root):
    return [f"data.demo_dir={demo_root}", "data.scale=0.1"]


@pytest.mark.parametrize("model", TINY)
def test_a_cascade_of_networks_does_its_whole_job(model, run_here, root, capsys):
    """History, learning curves, facts of the networks, the best epoch's metrics, and the lines on the terminal."""
    run_dir = run_here(*tiny(model), *root, "figures=all")
    metrics, info, rows = read_json(run_dir / "metrics.json"), read_json(run_dir / "run.json"), history_of(run_dir)
    shown = capsys.readouterr().out
    assert info["status"] == "FINISHED"
    assert (run_dir / "figures" / "learning_curves.png").exists()
    assert not (run_dir / "checkpoints").exists()
    assert [(row["stage"], row["epoch"]) for row in rows] == [(s, str(e)) for s in ("easy", "hard") for e in (1, 2, 3)]
    for stage in ("easy", "hard"):
        # What was the best epoch's is what is reported of the stage.
        best = next(row for row in rows if row["stage"] == stage and row["best"] == "True")
        assert metrics["stages"][stage]["val"]["macro_f1"] == pytest.approx(float(best["val_macro_f1"]))
        facts = info["networks"][stage]
        assert facts["weights"] == {"source": "random", "sha256": None}
        counts = (
            f"{stage}: {facts['parameters']['trainable']:,} of {facts['parameters']['total']:,} parameters are trained"
        )
        assert shown.index(counts) < shown.index(f"{stage}: epoch {best['epoch']} of 3 is the best")
    assert info["tags"]["weights"] == "random"
    assert list(load(run_dir / "model").classes_) == metrics["val"]["classes"]


def test_weights_that_cannot_be_used_are_refused(run_here, root, tmp_path):
    """Before a run begins: those that are not there, and those that a random start would not use."""
    with pytest.raises(ConfigError, match=r"cnn.weights: got 'x'; allowed: null"):
        cli.composed(["model=resnet18", "cnn.pretrained=false", "cnn.weights=x"])
    with pytest.raises(ModelError, match=r"vpt.weights: got 'nowhere', no such file"):
        run_here("model=deit_vpt", "vpt.weights=nowhere", *root)
    words = ["vpt.pretrained=false", "stages.hard.vpt.pretrained=true", "stages.hard.vpt.weights=nowhere"]
    with pytest.raises(ModelError, match=r"^stages\.hard\.vpt\.weights: got 'nowhere', no such file"):
        run_here("model=deit_vpt", *words, *root)
    assert not list((tmp_path / "run").iterdir())


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
    """Their settings are those of the original, and its command is in the file; the command line wins over them."""
    composed = cli.composed([f"experiment=original_{name}"])
    assert (composed.stage, composed.raw["cascade"]["gate"]) == ("full", "hard")
    sections = {
        key: value for section in ("train", "vpt", "hog", "pca") for key, value in composed.raw.get(section, {}).items()
    }
    sections["loss"] = composed.raw.get("loss", {}).get("name")
    assert {key: sections[key] for key in expected} == expected
    text = (CONF / "experiment" / f"original_{name}.yaml").read_text(encoding="utf-8")
    assert f"# python train.py experiment=original_{name}" in text
    assert cli.composed([f"experiment=original_{name}", "cascade.gate=soft"]).raw["cascade"]["gate"] == "soft"


class TestImageFit:
    """How a decoded image gets its shape."""

    def test_what_is_kept(self):
        image = Image.fromarray(np.repeat(np.arange(0, 240, 6, dtype=np.uint8)[None, :], 20, axis=0))
        np.testing.assert_array_equal(fit(image, ImageSpec(20, "L", "center_crop")), np.asarray(image)[:, 10:30])
        padded = fit(image, ImageSpec(40, "L", "pad"))
        np.testing.assert_array_equal(padded[10:30], np.asarray(image))
        assert (padded[np.r_[:10, 30:40]] == 255).all()  # white paper
        np.testing.assert_array_equal(fit(image, ImageSpec((10, 40), "L", "center_crop")), np.asarray(image)[5:15])
        np.testing.assert_array_equal(fit(image, ImageSpec((20, 60), "L", "pad"))[:, 10:50], np.asarray(image))

    @pytest.mark.parametrize("how", ["squash", "center_crop", "pad"])
    @pytest.mark.parametrize("size", [(7, 300), (300, 7), (1, 1), (32, 32), (33, 32)])
    @pytest.mark.parametrize("shape", [(32, 32), (16, 64)])
    def test_any_image_gets_the_shape(self, how, size, shape):
        pixels = fit(Image.new("L", size, 90), ImageSpec(shape, "RGB", how))
        assert pixels.shape == (*shape, 3)
        assert (pixels[shape[0] // 2, shape[1] // 2] == 90).all()

    def test_images_of_another_fit_are_others_in_the_cache(self):
        kinds = [ImageStore().kind(ImageSpec(32, "RGB", how)) for how in ("squash", "center_crop", "pad")]
        assert len({kind.folder for kind in kinds}) == 3


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
        before.data.fingerprint = "0" * 16
        with pytest.raises(DataError, match="no longer holds the data"):
            run_here(*overrides, before=before)

    @pytest.mark.parametrize(
        ("info", "words", "message"),
        [
            (None, [], "allowed: a run directory"),
            ({"status": "FINISHED"}, [], "which has finished"),
            ("half", [], "damaged"),
            ({"status": "RUNNING", "pid": os.getppid(), "started_at": 1e12}, [], "which is still running in process"),
            (None, ["train.epochs=99"], "allowed: resume=DIR, and plugins"),
        ],
        ids=["none", "finished", "damaged", "alive", "changed"],
    )
    def test_what_cannot_be_resumed(self, info, words, message, tmp_path):
        if isinstance(info, dict):
            RunInfo.start(tmp_path, run_name="r", experiment="e", mlflow=MlflowEntry(tracking_uri=None), **info).write()
        elif info is not None:
            (tmp_path / "run.json").write_text(info)
        with pytest.raises(ConfigError, match=message):
            resume.resume([f"resume={tmp_path}", *words])

    @pytest.mark.slow
    @pytest.mark.parametrize("model", TINY)
    def test_sigkill_at_random_moments(self, model, root, tmp_path):
        """Killed five times, wherever it was, and resumed each time by the command that users type."""
        chance = random.Random(model)
        overrides = [*tiny(model, "augmentation=mirror", epochs=80), *root, "tracking.uri=null"]
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
            if kills < 5:
                self._wait_for_progress(process, run_dir)
                time.sleep(chance.uniform(0, 0.3))
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
            out, _ = process.communicate(timeout=300)
            if RunInfo.read(run_dir).status == "FINISHED":  # a kill may come between this and the end of the process
                break
            assert process.returncode == -signal.SIGKILL, out.decode()
            arguments = [f"resume={run_dir}"]
        assert kills == 5
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

    @pytest.mark.parametrize(
        ("model", "section", "backbone"),
        [
            ("deit_vpt", "vpt", "vit_small_patch14_dinov2"),
            ("resnet18", "cnn", "tf_efficientnet_lite0"),
        ],
    )
    def test_a_run(self, model, section, backbone, weights, run_here, root):
        path = weights(f"{backbone}.safetensors")
        network = [f"model={model}", f"{section}.backbone={backbone}", f"{section}.weights={path}", "train.epochs=5"]
        run_dir = run_here(*network, "cascade_stage=flat", "augmentation=none", *root)
        facts = read_json(run_dir / "run.json")["networks"]["flat"]
        assert facts["weights"]["source"] == str(path)
        if model == "deit_vpt":
            assert facts["parameters"]["trainable"] == 5_380
        losses = [float(row["train_loss"]) for row in history_of(run_dir)]
        assert losses[-1] < losses[0]

    def test_positions_of_the_right_grid_are_not_resampled(self, weights):
        from safetensors.torch import load_file

        path = weights("vit_small_patch14_dinov2.safetensors")
        classifier = VptClassifier(backbone="vit_small_patch14_dinov2", weights=str(path), size_px=224)
        network, _ = classifier._build(4, empty=False)
        for name, tensor in load_file(path).items():
            np.testing.assert_array_equal(
                network.backbone.state_dict()[name].numpy(), tensor.float().numpy(), err_msg=name
            )
