"""The training loop: epochs, records, weights and numbers, and resuming after a stop."""

import io
import logging
import platform
import shutil

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from test_classifiers import cnn, stored, toy, vpt

from spectro.classifiers import CascadeClassifier, Loss, Training
from spectro.classifiers.fit_context import FitContext, fit_context
from spectro.classifiers.networks.batches import Batches
from spectro.classifiers.networks.device import kept_memory
from spectro.classifiers.networks.graphs import CapturedStep
from spectro.classifiers.networks.training import TrainingError
from spectro.data import Augmentation, ImageSpec, Spectrogram
from spectro.data.transforms import BUILT_IN_VIEWS

CPU = torch.device("cpu")
DATA = (*toy((8, 6, 4)), *toy((4, 4, 4), seed=1))


def trained(make=cnn, **changes):
    settings = {"lr": 0.005, "epochs": 4, "precision": "fp32", "patience": None, "batch_size": 4} | changes
    return make(training=Training(**settings))


def dropping(**options):
    """Deep prompts with dropout, which draws random numbers while training."""
    return vpt(variant="deep", prompt_dropout=0.2, **options)


class TestHistory:
    def test_a_row_for_each_epoch_and_the_weights_of_the_best(self):
        """The last epoch, as the original took it, may be a bad one; of equal F1 the smaller loss is better."""
        classifier = trained(lr=0.02, epochs=8, select="best").fit(*DATA)
        history = classifier.history_
        assert [row["epoch"] for row in history] == list(range(1, 9))
        assert set(history[0]) == {"epoch", "train_loss", "val_loss", "val_macro_f1", "lr", "seconds", "best"}
        (best,) = [row for row in history if row["best"]]
        assert best is max(history, key=lambda row: (row["val_macro_f1"], -row["val_loss"]))
        assert f1_score(DATA[3], classifier.predict(DATA[2]), average="macro") == pytest.approx(best["val_macro_f1"])

    def test_patience(self):
        """So many epochs without a better one, then no more; without patience, all."""
        for patience in (1, 2):
            history = trained(lr=0.05, epochs=12, select="best", patience=patience).fit(*DATA).history_
            best = next(row["epoch"] for row in history if row["best"])
            assert len(history) == min(best + patience, 12)

    def test_no_step_has_a_single_record(self):
        """Which a batch norm refuses where each channel has one place."""
        trained(epochs=1, batch_size=len(DATA[0]) - 1).set_params(freeze="none", size_px=32).fit(*DATA[:2])

    def test_without_val_the_last_epoch_is_taken(self):
        history = trained().fit(*DATA[:2]).history_
        assert [row["best"] for row in history] == [False] * 3 + [True]
        assert history[0]["val_macro_f1"] is None

    def test_the_last_epoch_is_taken_where_nothing_is_chosen(self):
        """All of them are trained, whatever the patience, and val changes no label."""
        classifier = trained(lr=0.05, select="last", patience=1).fit(*DATA)
        assert [row["best"] for row in classifier.history_] == [False] * 3 + [True]
        alone = trained(lr=0.05, select="last").fit(*DATA[:2])
        np.testing.assert_array_equal(classifier.predict(DATA[2]), alone.predict(DATA[2]))
        assert (classifier.chooses_on_val, trained(select="best").chooses_on_val) == (False, True)

    def test_the_average_is_that_of_the_last_epochs(self):
        """Averaging one epoch is taking the last; of all, the first one counts too."""
        states = {}
        for select, n in (("last", 1), ("average", 1), ("average", 4), ("average", 9)):
            classifier = trained(lr=0.05, select=select, average_last=n).fit(*DATA)
            states[select, n] = classifier.network_.head.weight.detach()
        assert torch.equal(states["last", 1], states["average", 1])
        assert not torch.equal(states["last", 1], states["average", 4])
        assert torch.equal(states["average", 4], states["average", 9])


def test_a_train_loss_that_is_not_finite_ends_the_fit():
    """The message names the epoch and the last numbers that were finite."""
    with pytest.raises(TrainingError, match=r"epoch \d+: got train_loss (nan|inf).*last finite numbers: .*train.lr"):
        trained(lr=1e18).fit(*DATA)


def test_a_val_loss_that_is_not_finite_ends_the_fit():
    """Here all val records have weight 0, and their mean loss is 0 / 0."""
    classifier = trained()
    a, *others = sorted(set(DATA[1]))
    classifier.loss = Loss(class_weights={a: 0.0, **dict.fromkeys(others, 1.0)})
    is_a = DATA[3] == a
    with pytest.raises(TrainingError, match="epoch 1: got val_loss nan; the last finite numbers: none"):
        classifier.fit(*DATA[:2], DATA[2][is_a], DATA[3][is_a])


class TestSameNumbers:
    @pytest.mark.parametrize("make", [cnn, dropping], ids=["cnn", "vpt"])
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_same_seed_same_bits(self, make, precision):
        """And random numbers outside are neither used nor changed."""
        torch.manual_seed(5)
        first = trained(make, epochs=2, precision=precision).fit(*DATA).predict_proba(DATA[2])
        untouched = torch.rand(1)
        second = trained(make, epochs=2, precision=precision).fit(*DATA).predict_proba(DATA[2])
        np.testing.assert_array_equal(first, second)
        torch.manual_seed(5)
        assert torch.rand(1) == untouched
        assert not np.array_equal(first, trained(make, epochs=2).set_params(seed=1).fit(*DATA).predict_proba(DATA[2]))


class Killed(BaseException):
    """Nothing catches it but a test."""


@pytest.mark.parametrize("make", ["cnn", "vpt", "cascade"])
def test_stopped_anywhere_and_resumed_it_ends_the_same(make, tmp_path):
    """Stopped after each epoch, with the newest checkpoint cut off in between."""

    def new():
        single = {"cnn": trained(), "vpt": trained(dropping, optimizer="sgd")}
        both = {"merged": sorted(set(DATA[1]))[:2]}
        return single[make] if make in single else CascadeClassifier(single["cnn"], single["vpt"], both)

    folder, epochs = tmp_path / "checkpoints", []

    def stop(stage, history):
        if (stage, len(history)) not in epochs:
            epochs.append((stage, len(history)))
            if len(epochs) % 3 == 0:
                newest = max(folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
                newest.write_bytes(newest.read_bytes()[:-100])
            raise Killed

    whole, resumed = new().fit(*DATA), None
    while resumed is None:
        try:
            with fit_context(FitContext(folder, "flat", stop)):
                resumed = new().fit(*DATA)
        except Killed:
            pass
    assert len(epochs) >= 5
    np.testing.assert_array_equal(resumed.predict_proba(DATA[2]), whole.predict_proba(DATA[2]))
    stages = zip(*(list(c.stages_.values()) if make == "cascade" else [c] for c in (resumed, whole)), strict=True)
    for one, other in stages:
        assert [{**row, "seconds": 0} for row in one.history_] == [{**row, "seconds": 0} for row in other.history_]
    shutil.rmtree(folder)


def test_a_finished_training_is_not_repeated(tmp_path):
    """Resumed, its callback is called once, with the whole history; other settings start anew."""
    calls = []
    for settings in ({}, {}, {"lr": 0.01}):
        with fit_context(FitContext(tmp_path, "flat", lambda stage, history: calls.append(len(history)))):
            trained(epochs=2, **settings).fit(*DATA)
    assert calls == [0, 1, 2, 2, 0, 1, 2]


@pytest.mark.parametrize("is_resident", [True, False])
def test_batches_hold_the_images_of_the_data_layer(is_resident, tmp_path, monkeypatch):
    """On a GPU they are augmented there: they must be the same images, an odd width's middle column included."""
    if not is_resident:
        monkeypatch.setattr(Batches, "resident_bytes", 0)
    spec = ImageSpec(31, "RGB")
    originals = stored(tmp_path, np.random.default_rng(0).integers(0, 256, (5, 9, 7), dtype=np.uint8), spec)
    augmentation = Augmentation(BUILT_IN_VIEWS, {"spectrogram": Spectrogram()})
    X, _ = originals.augmented(augmentation, ["s"] * 5, per_epoch=True)
    network = cnn()._build(2, empty=True)[0]
    network.backbone.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    epoch = Batches(X, spec, network).drawn(np.random.default_rng(1))
    expected = (X.drawn(np.random.default_rng(1)).pixels(spec) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    rows = np.random.default_rng(2).permutation(len(X))
    for _ in range(2):  # what is drawn does not change the images that are kept
        np.testing.assert_allclose(epoch(rows).permute(0, 2, 3, 1).numpy(), expected[rows], atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there a step can be captured")
def test_a_step_that_cannot_be_captured_runs_all_the_same(caplog):
    """Slower, and with one warning."""
    network = torch.nn.Linear(1, 1)
    step = CapturedStep(lambda x, y: x + y, network, torch.optim.SGD(network.parameters()), CPU)
    with caplog.at_level(logging.WARNING, logger="spectro"):
        assert [step(torch.tensor([2]), torch.tensor([k])).item() for k in (3, 4)] == [5, 6]
    assert len(caplog.records) == 1
    assert "could not be captured as a CUDA graph" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("make", [cnn, vpt], ids=["cnn", "vpt"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_captured_steps_are_the_steps(make, optimizer, monkeypatch):
    """Capturing and its warm-up must leave no trace in the weights; batches of two sizes are captured apart."""
    settings = {"optimizer": optimizer, "epochs": 3, "batch_size": 5}
    captured = trained(make, **settings).fit(*DATA)
    monkeypatch.setattr(CapturedStep, "__call__", lambda self, *batch: self._step(*batch))
    eager = trained(make, **settings).fit(*DATA)
    np.testing.assert_allclose(captured.predict_proba(DATA[2]), eager.predict_proba(DATA[2]), atol=1e-3)


def test_the_callback_gets_the_history_after_every_epoch_of_every_stage():
    """A run that is killed leaves its learning curves behind."""
    calls, facts = [], []
    labels = sorted(set(DATA[1]))
    context = FitContext(None, "full", lambda stage, rows: calls.append((stage, len(rows))), lambda *f: facts.append(f))
    with fit_context(context):
        cascade = CascadeClassifier(trained(epochs=2), trained(epochs=1), {"merged": labels[:2]}).fit(*DATA)
    assert calls == [("easy", 0), ("easy", 1), ("easy", 2), ("hard", 0), ("hard", 1)]
    assert facts == [(stage, classifier.facts_) for stage, classifier in cascade.stages_.items()]


def test_each_core_predicts_batches_of_its_own():
    """The order of records does not depend on the number of cores; afterwards, an error included, it is as before."""
    classifier = trained(epochs=1).fit(*DATA)
    X = toy((20, 20, 10), seed=2)[0]
    before, probabilities = torch.get_num_threads(), {}
    try:
        for cores in (1, 2, 3, 7):
            torch.set_num_threads(cores)
            probabilities[cores] = classifier.predict_proba(X)
            assert torch.get_num_threads() == cores
            np.testing.assert_allclose(probabilities[cores], probabilities[1], atol=1e-6)
        classifier.network_.head.forward = lambda features: 1 // 0
        with pytest.raises(ZeroDivisionError):
            classifier.predict_proba(X)
        assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_blocks_are_reused_after_training():
    """Each anew from the system costs a fault a page, a fifth of the forward pass of a ResNet-18."""
    resource = pytest.importorskip("resource")
    with kept_memory():
        pass
    faults = []
    for _ in range(20):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2_000_000)  # 8 MB
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert np.median(faults) < 100


def test_inputs_of_a_grid_head_are_standardised_on_the_training_records():
    """Each block as a whole; the inputs of the backbone's own pooling stay as they are."""
    options = {"freeze": "backbone", "size_px": 64}
    plain = trained(cnn, epochs=1).set_params(**options).fit(*DATA).network_
    assert (plain.mean.abs().max(), plain.scale.min(), plain.scale.max()) == (0, 1, 1)
    classifier = trained(cnn, epochs=1).set_params(**options, pool="grid", grid=2, pixels=[5, 4]).fit(*DATA)
    network = classifier.network_.eval()
    values = network.features_from(Batches(DATA[0], classifier.specs[0], network)(np.arange(len(DATA[0]))))
    parts = values.split([size for size, _ in network.blocks], dim=1)
    assert [part.var(dim=0, correction=0).sum().item() for part in parts] == pytest.approx([1, 0.2**2], rel=1e-3)
    assert values.mean(dim=0).abs().max() < 1e-5


@pytest.mark.parametrize("counts", [(8, 6, 4), (8, 6, 0), (1, 6, 4)], ids=str)
def test_a_warm_start_is_the_logistic_regression_on_the_frozen_features(counts):
    """Compared with scikit-learn's at the same strength; it is a minimum of the training too."""
    X, y = toy(counts)
    classifier = trained(cnn, epochs=1, warm_start="probe", head_lr=1e-9).set_params(freeze="backbone", size_px=64)
    network = classifier.fit(X, y).network_.eval()
    with torch.no_grad():
        features = network.features_from(Batches(X, classifier.specs[0], network)(np.arange(len(X)))).numpy()
    k = len(classifier.classes_)
    C = (2 if k == 2 else 1) / (
        2 * network.ridge.item() * len(X)
    )  # of two classes the reference has one row of weights
    reference = LogisticRegression(C=C, class_weight="balanced", tol=1e-8, max_iter=5000).fit(features, y)
    np.testing.assert_allclose(classifier.predict_proba(X), reference.predict_proba(features), atol=0.01)
    network.zero_grad()
    labels = torch.from_numpy(np.searchsorted(classifier.classes_, y))
    weights = torch.tensor(len(y) / (k * np.unique(y, return_counts=True)[1]), dtype=torch.float32)
    logits = network.head(torch.from_numpy(features))
    loss = torch.nn.functional.cross_entropy(logits, labels, weights)
    (loss + network.ridge * network.head.weight.square().sum()).backward()
    assert network.head.weight.grad.abs().max() < 1e-3


def test_the_head_has_a_learning_rate_of_its_own():
    """A head that is good already is lost in the steps that prompts need."""
    networks = [trained(vpt, epochs=1, head_lr=head_lr).fit(*DATA).network_ for head_lr in (None, 1e-9)]
    moved = [network.head.bias.abs().max().item() for network in networks]  # it starts at 0
    assert moved[1] < 1e-6 < moved[0]
    assert not torch.equal(networks[1].prompts, vpt()._build(3, empty=True)[0].prompts)


def test_a_log_file_has_a_line_for_each_epoch_of_a_run() -> None:
    """Hours of training in a batch system must not look like a process that hangs; a bar is no line."""
    from rich.console import Console

    from spectro import progress

    before = progress._console, progress._log
    try:
        progress.enable(Console(file=(log := io.StringIO())))
        for is_log in (True, False):
            with progress.progress("training", 4, log=is_log) as advance:
                advance(2, f"epoch 1/2 log {is_log}")
                advance(2)
    finally:
        progress._console, progress._log = before
    assert log.getvalue() == "epoch 1/2 log True\n"
