"""The contract that every classifier keeps, the cascade included."""

import json
import subprocess
import sys
import zipfile
from functools import cache

import numpy as np
import pytest
from sklearn.base import clone

from spectro.classifiers import (
    CascadeClassifier,
    CnnClassifier,
    HogSvmClassifier,
    Loss,
    PixelsClassifier,
    Training,
    VptClassifier,
    families,
    family,
    load,
)
from spectro.errors import ModelError

LABELS = ("brak_Empty zone", "шум", "a[1].b")


def svm(**options):
    return HogSvmClassifier(size_px=32, **options)


def vpt(epochs=25, precision="fp32", **options):
    """Prompts on a random transformer of width 24 with two blocks."""
    tiny = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2} | options.pop("backbone_options", {})
    settings = Training(lr=0.05, epochs=epochs, precision=precision, patience=None)
    own = {"backbone": "deit_tiny_patch16_224", "training": settings, "pretrained": False, "size_px": 32}
    given = own | {"loss": Loss("focal")} | options
    return VptClassifier(backbone_options=tiny, **given)


def cnn(epochs=12, precision="fp32", **options):
    """A random ResNet of four blocks with 16 and 32 channels.

    Not 8: oneDNN's backward pass of a strided 1x1 convolution of 8 channels writes beyond its memory where the batch is
    odd and there are two threads (torch 2.14).
    """
    tiny = {"layers": [1, 1, 1, 1], "channels": [16, 16, 32, 32]}
    settings = Training(lr=0.005, epochs=epochs, precision=precision, patience=None)
    given = {"backbone": "resnet18", "training": settings, "pretrained": False, "size_px": 32} | options
    return CnnClassifier(backbone_options=tiny, **given)


def stripes(label: str, rng: np.random.Generator) -> np.ndarray:
    """A 32 x 32 image whose stripes tell its class: across, down, or none."""
    across = np.sin(np.arange(32) / 2)[:, None] * np.ones(32)
    wave = {LABELS[0]: across, LABELS[1]: across.T, LABELS[2]: np.zeros((32, 32))}[label]
    return np.clip(128 + 60 * wave + rng.normal(0, 20, (32, 32)), 0, 255).astype(np.uint8)


def toy(counts, seed=0):
    """Images ``(n, 32, 32)`` and labels with so many of each class."""
    rng = np.random.default_rng(seed)
    y = np.array([label for label, n in zip(LABELS, counts, strict=False) for _ in range(n)], dtype=object)
    return np.array([stripes(label, rng) for label in y]), y


MAKERS = {
    "hog_svm": svm,
    "hog_svm linear": lambda: svm(kernel="linear", scaler="minmax"),
    "hog_svm components": lambda: svm(pca_components=3, scaler="robust"),
    "pixels": PixelsClassifier,
    "vpt shallow": vpt,
    "vpt deep": lambda: vpt(variant="deep", prompt_dropout=0.1),
    "vpt bf16": lambda: vpt(precision="bf16"),
    "cnn": cnn,
    "cnn bf16": lambda: cnn(precision="bf16"),
    "cascade of networks": lambda: CascadeClassifier(cnn(), vpt(), {"merged": LABELS[:2]}),
    "cascade soft": lambda: CascadeClassifier(svm(), svm(), {"merged": LABELS[:2]}),
    "cascade hard": lambda: CascadeClassifier(svm(), svm(C=5.0), {"merged": LABELS[:2]}, gate="hard"),
}


def shortened(classifier):
    """A copy whose networks train for two epochs: for tests that compare two fits and not what they learned."""
    short = {name: 2 for name in classifier.get_params() if name.endswith("training__epochs")}
    return clone(classifier).set_params(**short)


every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@cache
def fitted(make):
    """A classifier that has learned, for tests that only look at it: each is fitted once."""
    return make().fit(*toy((8, 6, 4)), *toy((4, 4, 4), seed=1))


@every
def test_it_learns_and_its_probabilities_are_some(make):
    """Columns in the order of classes_, rows that sum to one, and the prediction is the largest."""
    X, y = toy((5, 5, 5), seed=2)
    p = fitted(make).predict_proba(X)
    assert (fitted(make).predict(X) == y).mean() > 0.9
    assert list(fitted(make).classes_) == sorted(LABELS)
    assert p.shape == (15, 3)
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_array_equal(fitted(make).predict(X), fitted(make).classes_[p.argmax(axis=1)])
    assert fitted(make).predict_proba(X[:0]).shape == (0, 3)


@every
def test_constructor_only_stores_and_clone_copies(make):
    """scikit-learn's tools (clone, grid search) rely on it."""
    classifier = make()
    copy = clone(classifier)
    assert copy is not classifier
    assert copy.get_params().keys() == classifier.get_params().keys()
    assert repr(copy) == repr(classifier)


@every
@pytest.mark.parametrize(
    ("train", "val"),
    [((6, 5, 4), (0, 0, 0)), ((3, 0, 0), (0, 0, 0)), ((5, 1, 1), (2, 0, 0)), ((5, 5, 0), (5, 5, 5))],
    ids=["no val", "one class", "classes of one record", "val has a class that train has not"],
)
def test_any_counts_are_fitted(make, train, val):
    """A fold of a rare class can hold one record of it, or none; the input stays as it is."""
    X, y = toy(train)
    X_before, y_before = X.copy(), y.copy()
    classifier = shortened(make())
    assert classifier.fit(X, y, *(toy(val, seed=1) if any(val) else (None, None))) is classifier
    p = classifier.predict_proba(X)
    assert p.shape == (len(X), len(set(y)))
    assert len(set(y)) > 1 or (p == 1).all()
    np.testing.assert_array_equal(X, X_before)
    np.testing.assert_array_equal(y, y_before)


@every
@pytest.mark.parametrize(("counts", "n_val"), [((8, 6, 4), 4), ((5, 0, 0), 4), ((5, 1, 0), 0)], ids=str)
def test_out_of_fold_is_a_fit_that_is_thrown_away(make, counts, n_val):
    """A shorter way that came to other predictions would evaluate another model."""
    X, y = toy(counts)
    X_val, y_val = toy((n_val, n_val, n_val), seed=1)
    X_new, _ = toy((6, 6, 6), seed=2)
    classifier = shortened(make())
    fresh = clone(classifier).fit(X, y, X_val, y_val)
    p = classifier.out_of_fold(X, y, X_val, y_val, X_new)
    assert not hasattr(classifier, "classes_")
    np.testing.assert_allclose(p, fresh.predict_proba(X_new), atol=1e-4)
    np.testing.assert_array_equal(fresh.classes_[p.argmax(axis=1)], fresh.predict(X_new))
    assert make().out_of_fold(X, y, None, None, X_new[:0]).shape == (0, len(set(y)))


@every
def test_out_of_fold_says_what_is_wrong_as_fit_does(make):
    X, y = toy((3, 3, 3))
    with pytest.raises(ValueError, match="got 9 images and 8 labels"):
        make().out_of_fold(X, y[:8], None, None, X)


def test_who_chooses_on_val():
    """These give up records for it in every fold."""
    chooses = {name: make().chooses_on_val for name, make in MAKERS.items()}
    without = ("hog_svm", "pixels", "cascade soft", "cascade hard")
    assert chooses == {name: not name.startswith(without) for name in MAKERS}
    assert CascadeClassifier(svm(), cnn(), {"merged": LABELS[:2]}).chooses_on_val


@every
def test_nothing_to_fit(make):
    with pytest.raises(ValueError, match="got 0 images"):
        make().fit(np.empty((0, 32, 32), np.uint8), [])


def test_saved_and_loaded_in_a_new_process(tmp_path):
    """Probabilities that change on the way to disk make every reported number that of another model."""
    X, _ = toy((4, 4, 4), seed=2)
    np.save(tmp_path / "X.npy", X)
    before = {}
    for name, make in MAKERS.items():
        fitted(make).save(tmp_path / name)
        before[name] = fitted(make).predict_proba(X)
    code = (
        "import sys, numpy as np; from pathlib import Path; from spectro.classifiers import load\n"
        "X = np.load('X.npy')\n"
        "for name in sys.argv[1:]: np.save(name + '.npy', load(Path(name)).predict_proba(X))"
    )
    subprocess.run([sys.executable, "-c", code, *MAKERS], cwd=tmp_path, check=True)
    for name, probabilities in before.items():
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), probabilities, err_msg=name)


@every
def test_the_same_fit_gives_the_same_files(make, tmp_path):
    """Times and addresses in the files would make equal models look different."""
    for name in ("first", "second"):
        shortened(make()).fit(*toy((8, 6, 4)), *toy((4, 4, 4), seed=1)).save(tmp_path / name)
    files = [p.relative_to(tmp_path / "first") for p in (tmp_path / "first").rglob("*") if p.is_file()]
    assert files
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file


def test_every_family_is_found():
    assert families() == ["cascade", "cnn", "hog_svm", "pixels", "vpt"]
    assert family("hog_svm") is HogSvmClassifier
    with pytest.raises(ModelError, match=r"got 'os'; allowed: cascade, cnn, hog_svm, pixels, vpt"):
        family("os")


class TestDamagedModels:
    @pytest.fixture
    def model(self, tmp_path):
        fitted(svm).save(tmp_path)
        return tmp_path

    def test_no_model(self, tmp_path):
        with pytest.raises(ModelError, match=r"model.json: no such file; allowed: the model/ folder of a run"):
            load(tmp_path)

    def test_cut_off_json(self, model):
        text = (model / "model.json").read_text()
        (model / "model.json").write_text(text[: len(text) // 2])
        with pytest.raises(ModelError, match="damaged or not a model"):
            load(model)

    def test_cut_off_skops(self, model):
        data = (model / "pipeline.skops").read_bytes()
        (model / "pipeline.skops").write_bytes(data[: len(data) // 2])
        with pytest.raises(ModelError, match=r"pipeline\.skops: damaged"):
            load(model)

    def test_unknown_family(self, model):
        """A family name is looked up among those that are registered, never imported from anywhere."""
        state = json.loads((model / "model.json").read_text())
        (model / "model.json").write_text(json.dumps(state | {"family": "os.path"}))
        with pytest.raises(ModelError, match=r"'os.path' is not registered.*--plugin"):
            load(model)

    def test_code_in_the_file_is_refused(self, model):
        """Loading somebody's model must not run somebody's code."""
        import skops.io

        class Evil:
            def __reduce__(self):
                return (print, ("code ran",))

        (model / "pipeline.skops").write_bytes(skops.io.dumps(Evil()))
        with pytest.raises(ModelError, match="not trusted"):
            load(model)

    def test_a_pickle_is_refused(self, model):
        import pickle

        (model / "pipeline.skops").write_bytes(pickle.dumps({"a": 1}))
        with pytest.raises(ModelError, match="damaged or not a skops file"):
            load(model)

    def test_newer_format(self, model):
        state = json.loads((model / "model.json").read_text())
        (model / "model.json").write_text(json.dumps(state | {"format": 99}))
        with pytest.raises(ModelError, match="got format 99; allowed: 1"):
            load(model)

    def test_skops_file_opens_as_any_other(self, model):
        """Our renumbering must leave a file that skops itself can read."""
        import skops.io

        assert zipfile.is_zipfile(model / "pipeline.skops")
        assert skops.io.get_untrusted_types(file=model / "pipeline.skops") == []
