"""The training loop: what it promises about epochs, records, weights and numbers, and going on after a stop."""

import json
import logging
import math
import shutil

import numpy as np
import pytest
import torch
from conftest import make_tree
from sklearn.metrics import f1_score
from test_classifiers import cnn, toy, vpt

from spectro.classifiers import CascadeClassifier, Loss, Training
from spectro.classifiers.fit_context import FitContext, fit_context
from spectro.classifiers.networks import training
from spectro.classifiers.networks.batches import Batches
from spectro.classifiers.networks.device import kept_memory
from spectro.classifiers.networks.training import TrainingError, macro_f1
from spectro.data import Augmentation, Images, ImageSpec, ImageStore, Spectrogram, pixels_of
from spectro.data.images import file_digest
from spectro.data.transforms import BUILT_IN_VIEWS

CPU = torch.device("cpu")
DATA = (*toy((8, 6, 4)), *toy((4, 4, 4), seed=1))


def trained(make=cnn, **changes):
    settings = {"lr": 0.005, "epochs": 6, "precision": "fp32", "patience": None, "batch_size": 4} | changes
    return make(training=Training(**settings))


def dropping(**options):
    """Deep prompts with a dropout, so that chance goes on while training."""
    return vpt(variant="deep", prompt_dropout=0.2, **options)


class TestHistory:
    def test_a_row_for_each_epoch(self):
        history = trained().fit(*DATA).history_
        assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
        assert set(history[0]) == {"epoch", "train_loss", "val_loss", "val_macro_f1", "lr", "seconds", "best"}
        assert sum(row["best"] for row in history) == 1

    def test_the_best_epoch_is_what_is_kept(self):
        """The last epoch, as the original took it, may be a bad one."""
        classifier = trained(lr=0.02, epochs=8).fit(*DATA)
        best = next(row for row in classifier.history_ if row["best"])
        assert best["val_macro_f1"] == max(row["val_macro_f1"] for row in classifier.history_)
        predicted = np.searchsorted(classifier.classes_, classifier.predict(DATA[2]))
        assert macro_f1(np.searchsorted(classifier.classes_, DATA[3]), predicted) == best["val_macro_f1"]

    def test_equal_f1_is_decided_by_the_loss(self):
        rows = [
            {"epoch": e, "val_macro_f1": f1, "val_loss": loss}
            for e, f1, loss in ((1, 0.5, 0.1), (2, 0.6, 0.9), (3, 0.6, 0.8), (4, 0.6, 0.8))
        ]
        assert training._best(rows)["epoch"] == 3

    def test_patience(self):
        """So many epochs without a better one, then no more."""
        rows = [{"epoch": e, "val_macro_f1": 0.5, "val_loss": 1.0} for e in (1, 2, 3)]
        assert training._is_over(rows, 2)
        assert not training._is_over(rows, 3)
        assert not training._is_over(rows, None)
        assert len(trained(lr=1e-12, epochs=30, patience=2).fit(*DATA).history_) < 30

    def test_without_val_the_last_epoch_is_taken(self):
        history = trained().fit(*DATA[:2]).history_
        assert [row["best"] for row in history] == [False] * 5 + [True]
        assert history[0]["val_macro_f1"] is None

    def test_macro_f1_is_that_of_the_evaluation(self):
        from spectro.evaluation import score

        rng = np.random.default_rng(0)
        for _ in range(20):
            true, predicted = rng.integers(0, 4, 9), rng.integers(0, 5, 9)
            expected = score([f"{t}" for t in true], [f"{p}" for p in predicted], list("01234"))["macro_f1"]
            assert macro_f1(true, predicted) == pytest.approx(expected)
            with_support = f1_score(true, predicted, labels=np.unique(true), average="macro", zero_division=0)
            assert macro_f1(true, predicted) == pytest.approx(with_support)


@pytest.mark.parametrize("where", ["train", "val"])
def test_a_loss_that_is_no_number_ends_the_run(where, monkeypatch):
    classifier = trained()
    if where == "train":
        classifier.loss = Loss("cross_entropy", class_weights={label: 1.0 for label in set(DATA[1])})
        forward, calls = torch.nn.Module.__call__, []

        def poisoned(self, *args, **kwargs):
            out = forward(self, *args, **kwargs)
            if type(self).__name__ == "Convolution" and self.training:
                calls.append(1)
                return out * (math.nan if len(calls) > 2 * 5 else 1.0)
            return out

        monkeypatch.setattr(torch.nn.Module, "__call__", poisoned)
    else:
        evaluate = training._evaluate
        seen = []

        def bad(job, loss):
            seen.append(1)
            return evaluate(job, loss) | ({"val_loss": math.inf} if len(seen) == 3 else {})

        monkeypatch.setattr(training, "_evaluate", bad)
    text = rf"epoch 3: got {where}_loss (nan|inf).*; the last finite numbers: epoch 2, train_loss \d"
    with pytest.raises(TrainingError, match=text):
        classifier.fit(*DATA)


class TestSameNumbers:
    @pytest.mark.parametrize(
        "make", [cnn, lambda **o: vpt(variant="deep", prompt_dropout=0.2, **o)], ids=["cnn", "vpt"]
    )
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_same_seed_same_bits(self, make, precision):
        """And chance outside is neither used nor touched."""
        torch.manual_seed(5)
        first = trained(make, epochs=2, precision=precision).fit(*DATA).predict_proba(DATA[2])
        untouched = torch.rand(1)
        second = trained(make, epochs=2, precision=precision).fit(*DATA).predict_proba(DATA[2])
        np.testing.assert_array_equal(first, second)
        torch.manual_seed(5)
        assert torch.rand(1) == untouched

    def test_another_seed_is_another_network(self):
        first, second = (trained(epochs=1).set_params(seed=seed).fit(*DATA).predict_proba(DATA[2]) for seed in (0, 1))
        assert not np.array_equal(first, second)


class Killed(BaseException):
    """Nothing catches it but a test."""


@pytest.mark.parametrize("make", ["cnn", "vpt", "cascade"])
def test_stopped_anywhere_and_resumed_it_ends_the_same(make, tmp_path, monkeypatch):
    """Stopped eight times in random places, between steps and in the middle of writing a checkpoint."""

    def new():
        one = {
            "cnn": lambda: trained(epochs=5),
            "vpt": lambda: trained(dropping, epochs=5, optimizer="sgd"),
        }
        both = {"merged": sorted(set(DATA[1]))[:2]}
        return one[make]() if make in one else CascadeClassifier(one["cnn"](), one["vpt"](), both)

    whole = new().fit(*DATA)
    rng = np.random.default_rng(0)
    from spectro.classifiers.networks import checkpoint
    from spectro.classifiers.networks.batches import Batches as Real

    left = [0]

    def tick():
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    call, fsync = Real.__call__, checkpoint.os.fsync
    monkeypatch.setattr(Real, "__call__", lambda *a: (tick(), call(*a))[1])
    monkeypatch.setattr(checkpoint.os, "fsync", lambda number: (tick(), fsync(number)))
    place, stops = FitContext(tmp_path / "checkpoints", "flat"), 0
    while stops < 8:
        left[0] = int(rng.integers(1, 16))
        try:
            with fit_context(place):
                new().fit(*DATA)
        except Killed:
            stops += 1
        else:
            shutil.rmtree(tmp_path / "checkpoints")
    left[0] = -1
    with fit_context(place):
        resumed = new().fit(*DATA)
    np.testing.assert_array_equal(resumed.predict_proba(DATA[2]), whole.predict_proba(DATA[2]))
    ours, theirs = (resumed.easy_, whole.easy_) if make == "cascade" else (resumed, whole)
    for now, then in zip(ours.history_, theirs.history_, strict=True):
        assert {**now, "seconds": 0} == {**then, "seconds": 0}


def test_a_damaged_checkpoint_costs_an_epoch_and_no_digit(tmp_path, caplog):
    place = FitContext(tmp_path / "c", "flat")
    with fit_context(place):
        whole = trained(epochs=4).fit(*DATA)
    newest = max((tmp_path / "c").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    with fit_context(place), caplog.at_level(logging.WARNING, logger="spectro"):
        resumed = trained(epochs=4).fit(*DATA)
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(resumed.predict_proba(DATA[2]), whole.predict_proba(DATA[2]))


def test_a_finished_stage_is_not_trained_again(tmp_path, monkeypatch):
    with fit_context(FitContext(tmp_path, "flat")):
        trained(epochs=3, patience=2).fit(*DATA)
        monkeypatch.setattr(torch.Tensor, "backward", lambda *a, **k: pytest.fail("a step was made"))
        trained(epochs=3, patience=2).fit(*DATA)


def test_checkpoints_of_other_settings_are_not_used(tmp_path):
    with fit_context(FitContext(tmp_path, "flat")):
        trained(epochs=2).fit(*DATA)
        assert len(trained(epochs=3, lr=0.01).fit(*DATA).history_) == 3


class TestRecords:
    @pytest.fixture
    def images(self, tmp_path):
        paths = sorted(make_tree(tmp_path, {"a": 5}).rglob("*.png"))
        store = ImageStore()
        digests = [file_digest(path) for path in paths]
        store.add(paths, digests, [ImageSpec(31, "RGB")])
        return store, digests

    def test_batches_are_normalised_images(self, images):
        store, digests = images
        spec = ImageSpec(31, "RGB")
        X = Images(store, digests)
        batches = Batches(X, spec, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), CPU)
        rows = np.array([3, 0])
        found = batches(rows)
        expected = (pixels_of(X[rows], spec) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
        np.testing.assert_allclose(found.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)

    @pytest.mark.parametrize("is_resident", [True, False])
    def test_batches_hold_the_images_of_the_data_layer(self, images, is_resident, monkeypatch):
        """On a GPU they are augmented there: they must be the same images, an odd width's middle column included."""
        if not is_resident:
            monkeypatch.setattr("spectro.classifiers.networks.batches._RESIDENT_BYTES", 0)
        spec = ImageSpec(31, "RGB")
        augmentation = Augmentation(BUILT_IN_VIEWS, {"spectrogram": Spectrogram()})
        X, _ = augmentation.apply(Images(*images), ["s"] * 5, per_epoch=True)
        epoch = Batches(X, spec, (0.0,) * 3, (1 / 255,) * 3, CPU).drawn(np.random.default_rng(1))
        expected = X.drawn(np.random.default_rng(1)).pixels(spec)
        rows = np.random.default_rng(2).permutation(len(X))
        for _ in range(2):  # what is drawn does not change the images that are kept
            np.testing.assert_allclose(epoch(rows).permute(0, 2, 3, 1).numpy(), expected[rows], atol=1e-3)
        assert not np.array_equal(expected, X.pixels(spec))



def test_a_step_that_cannot_be_captured_runs_all_the_same(monkeypatch, caplog):
    """Slower, and said once."""
    from spectro.classifiers.networks.graphs import CapturedStep

    def refuse(self, *given):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(CapturedStep, "_capture", refuse)
    network = torch.nn.Linear(1, 1)
    step = CapturedStep(lambda *given: sum(given), network, torch.optim.SGD(network.parameters()), CPU)
    with caplog.at_level(logging.WARNING, logger="spectro"):
        assert [step(*map(torch.tensor, ([2], [k]))).item() for k in (3, 4)] == [5, 6]
    assert len(caplog.records) == 1
    assert "runs slower (operation not permitted when stream is capturing)" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("make", [cnn, vpt], ids=["cnn", "vpt"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_captured_steps_are_the_steps(make, optimizer, monkeypatch):
    """Capturing and its warm-up must leave no trace in the weights; batches of two sizes are captured apart."""
    from spectro.classifiers.networks.graphs import CapturedStep

    settings = {"optimizer": optimizer, "epochs": 3, "batch_size": 5}
    captured = trained(make, **settings).fit(*DATA)
    monkeypatch.setattr(CapturedStep, "__call__", lambda self, *given: self._step(*given))
    eager = trained(make, **settings).fit(*DATA)
    np.testing.assert_allclose(captured.predict_proba(DATA[2]), eager.predict_proba(DATA[2]), atol=1e-3)


def test_history_is_told_after_every_epoch(tmp_path):
    """A run that is killed leaves its learning curves behind."""
    told = []
    place = FitContext(None, "easy", lambda stage, history: told.append((stage, len(history))))
    with fit_context(place):
        trained(epochs=3).fit(*DATA)
    assert told == [("easy", 0), ("easy", 1), ("easy", 2), ("easy", 3)]


def test_stages_of_a_cascade_are_named():
    told = set()
    labels = sorted(set(DATA[1]))
    with fit_context(FitContext(None, "full", lambda stage, history: told.add(stage))):
        CascadeClassifier(trained(epochs=1), trained(epochs=1), {"merged": labels[:2]}).fit(*DATA)
    assert told == {"easy", "hard"}


def test_facts_are_json():
    facts = trained(epochs=2).fit(*DATA).facts
    assert json.loads(json.dumps(facts)) == facts
    assert facts["epochs"] == 2
    assert facts["weights"] == {"source": "random", "sha256": None}


def test_memory_is_given_back_to_the_system_again():
    """The setting is one of the process: it must not outlast a training."""
    for _ in range(2):
        with kept_memory():
            assert float(torch.ones(1 << 20).sum()) == 1 << 20
