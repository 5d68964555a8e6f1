"""The contract of all classifiers, the cascade included."""

import copy
import json
import pickle
import subprocess
import sys
import zipfile
from functools import cache

import numpy as np
import pytest
import skops.io
from PIL import Image
from sklearn.base import clone

from spectro.classifiers import (
    CascadeClassifier,
    CnnClassifier,
    EmbedClassifier,
    EnsembleClassifier,
    HogSvmClassifier,
    Loss,
    PixelsClassifier,
    Training,
    VptClassifier,
    families,
    family,
    load,
    register_family,
)
from spectro.classifiers.base import FORMAT
from spectro.classifiers.manifest import write_manifest
from spectro.data import Images, ImageStore, RowCache
from spectro.data.images import file_digest
from spectro.errors import ModelError

LABELS = ("brak_Empty zone", "шум", "a[1].b")


def svm(**options):
    """HOG-SVM with the settings of the original on an image of 32 pixels."""
    original = {"size_px": 32, "orientations": 9, "signed": False, "cell_px": 8, "block_norm": "L2-Hys"}
    return HogSvmClassifier(**{**original, "pca_variance": 0.95, "C": 1.0, "gamma": "1.0x", **options})


def vpt(epochs=25, precision="fp32", **options):
    """Prompts on a random transformer of width 24 with two blocks."""
    tiny = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2} | options.pop("backbone_options", {})
    settings = Training(lr=0.05, epochs=epochs, precision=precision, patience=None)
    defaults = {"backbone": "deit_tiny_patch16_224", "training": settings, "pretrained": False, "size_px": 32}
    return VptClassifier(backbone_options=tiny, **{**defaults, "loss": Loss("focal"), **options})


def cnn(epochs=12, precision="fp32", **options):
    """A random ResNet of four blocks with 16 and 32 channels.

    Not 8: oneDNN's backward pass of a strided 1x1 convolution of 8 channels writes beyond its memory where the batch is
    odd and there are two threads (torch 2.14).
    """
    tiny = {"layers": [1, 1, 1, 1], "channels": [16, 16, 32, 32]}
    settings = Training(lr=0.005, epochs=epochs, precision=precision, patience=None)
    given = {"backbone": "resnet18", "training": settings, "pretrained": False, "size_px": 32} | options
    return CnnClassifier(backbone_options=tiny, **given)


def embed(**options):
    """The second block of a random transformer of width 24."""
    tiny = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    given = {"backbone": "deit_tiny_patch16_224", "backbone_options": tiny, "size_px": 32, "blocks": [2], "grids": [4]}
    return EmbedClassifier(**{**given, "pretrained": False, **options})


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


def stored(folder, images, spec, cache=None):
    """The images as files and records; another call stands for another process. ``cache``: a folder, or none."""
    paths = [folder / f"{number:03d}.png" for number in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).save(path)
    store, digests = ImageStore(RowCache(cache)), [file_digest(path) for path in paths]
    assert store.add(paths, digests, [spec]) == {}
    return Images(store, digests)


RESNET = {"backbone": "resnet18", "backbone_options": {"layers": [1, 1, 1, 1], "channels": [16, 16, 32, 32]}}
GRID = {"pool": "grid", "grid": [2, 4]}
MAKERS = {
    "hog_svm": svm,
    "hog_svm linear": lambda: svm(kernel="linear", scaler="none", signed=True, sqrt=True, block_norm="none"),
    "hog_svm components": lambda: svm(pca_components=3, scaler="none", pixels=[5, 4], C=None),
    "pixels": PixelsClassifier,
    "embed": embed,
    "embed of stages": lambda: embed(**RESNET, blocks=[2, 3], grids=[1, 2], pixels=None, C=None),
    "vpt shallow": vpt,
    "vpt deep": lambda: vpt(variant="deep", prompt_dropout=0.1),
    "vpt bf16": lambda: vpt(precision="bf16"),
    "embed wide": lambda: embed(size_px=[16, 64], grids=[1, [2, 4]]),
    "vpt wide": lambda: vpt(**GRID, size_px=[16, 64], image_fit="pad", pixels=[20, 15]),
    "cnn wide": lambda: cnn(**GRID, stages=1, size_px=[16, 64], freeze=1),
    "vpt eva": lambda: vpt(
        **GRID, backbone="vit_small_patch16_dinov3", backbone_options={"embed_dim": 32}, variant="deep", first_block=1
    ),
    "vpt beit": lambda: vpt(backbone="beit_base_patch16_224", size_px=[16, 64]),
    "vpt grid": lambda: vpt(**GRID, blocks=1, pixels=[5, 4], head_dropout=0.1),
    "vpt cached": lambda: vpt(**GRID, variant="deep", first_block=1),
    "vpt probe": lambda: vpt(prompt_length=0, pixels=[5, 4]),
    "cnn": cnn,
    "cnn grid": lambda: cnn(**GRID, stages=2, freeze=1, freeze_norm=True, pixels=[5, 4]),
    "cnn probe": lambda: cnn(stages=3, freeze="backbone", training=Training(epochs=3, warm_start="probe")),
    "cnn bf16": lambda: cnn(precision="bf16"),
    "cascade of networks": lambda: CascadeClassifier(cnn(), vpt(), {"merged": LABELS[:2]}),
    "ensemble of networks": lambda: EnsembleClassifier(cnn(), 2),
    "averaged pixels": lambda: EnsembleClassifier(PixelsClassifier(), 3),
    "averaged families": lambda: EnsembleClassifier([svm(), embed()], 1),
    "cascade of ensembles": lambda: CascadeClassifier(
        EnsembleClassifier(PixelsClassifier(), 2), svm(), {"merged": LABELS[:2]}
    ),
    "cascade soft": lambda: CascadeClassifier(svm(), svm(), {"merged": LABELS[:2]}),
    "cascade hard": lambda: CascadeClassifier(svm(), svm(C=5.0), {"merged": LABELS[:2]}, gate="hard"),
}


def shortened(classifier):
    """A copy whose networks train for two epochs: for tests that compare two fits and not what they learned."""
    short = {name: 2 for name in classifier.get_params() if name.endswith("training__epochs")}
    return clone(classifier).set_params(**short)


every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.fixture(scope="module")
def fitted():
    """A function that gives a fitted classifier of `MAKERS`, fitted once."""
    return cache(lambda name: MAKERS[name]().fit(*toy((8, 6, 4)), *toy((4, 4, 4), seed=1)))


@pytest.mark.parametrize("name", MAKERS)
def test_it_learns_and_gives_probabilities(fitted, name):
    """Columns in the order of classes_, rows that sum to one, and the prediction is the largest; also of no records."""
    classifier = fitted(name)
    X, y = toy((5, 5, 5), seed=2)
    p = classifier.predict_proba(X)
    assert list(classifier.classes_) == sorted(LABELS)
    assert p.shape == (15, 3)
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_array_equal(classifier.predict(X), classifier.classes_[p.argmax(axis=1)])
    assert (classifier.predict(X) == y).mean() > 0.9
    assert classifier.predict_proba(X[:0]).shape == (0, 3)


@pytest.mark.parametrize("name", ["hog_svm", "pixels"])
def test_a_record_has_the_same_probabilities_in_any_batch(fitted, name):
    """To the last digit: an image that is sent to a server alone must have the numbers of predictions.csv."""
    classifier, (X, _) = fitted(name), toy((31, 30, 9), seed=3)
    together = classifier.predict_proba(X)
    for size in (1, 2, 64, 67):
        parts = [classifier.predict_proba(X[i : i + size]) for i in range(0, len(X), size)]
        np.testing.assert_array_equal(np.concatenate(parts), together)


@pytest.mark.parametrize("name", MAKERS)
def test_outputs_and_features_come_from_one_pass(fitted, name):
    """The outputs are those of the other methods, and an image's nearest neighbour in the features is of its class."""
    classifier = fitted(name)
    X, y = toy((5, 5, 5), seed=2)
    stages, features = classifier.outputs(X)
    np.testing.assert_array_equal(stages[""].probabilities, classifier.predict_proba(X))
    assert features.dtype == np.float64
    distances = ((features[:, None] - features) ** 2).sum(axis=2)
    assert (y[np.argsort(distances, axis=1)[:, 1]] == y).mean() > 0.6  # by chance 0.29
    assert len(classifier.outputs(X[:0])[1]) == 0


@pytest.mark.filterwarnings("ignore:look_alikes")
@every
def test_rare_classes(make):
    """One class only, one record of a class, classes without val records, and val classes that train does not have."""
    X, y = toy((3, 0, 0))
    classifier = shortened(make())
    np.testing.assert_array_equal(classifier.fit(X, y).predict_proba(X), np.ones((3, 1)))
    assert classifier.fit(*toy((5, 1, 1)), *toy((2, 0, 0))).predict_proba(toy((1, 1, 1))[0]).shape == (3, 3)
    assert list(classifier.fit(*toy((5, 5, 0)), *toy((5, 5, 5), seed=1)).classes_) == sorted(LABELS[:2])


@pytest.mark.filterwarnings("ignore:look_alikes")
@every
@pytest.mark.parametrize(("counts", "n_val"), [((8, 6, 4), 4), ((5, 0, 0), 4), ((5, 1, 0), 0)], ids=str)
def test_out_of_fold_is_a_fit_that_is_not_kept(make, counts, n_val):
    """A faster way to other predictions would evaluate another model."""
    X, y = toy(counts)
    X_val, y_val = toy((n_val, n_val, n_val), seed=1)
    X_new, _ = toy((6, 6, 6), seed=2)
    classifier = shortened(make())
    fresh = clone(classifier).fit(X, y, X_val, y_val)
    p = classifier.out_of_fold(X, y, X_val, y_val, X_new)
    assert not hasattr(classifier, "classes_")
    np.testing.assert_allclose(p, fresh.predict_proba(X_new), atol=3e-4)  # the tolerance of libsvm
    np.testing.assert_array_equal(fresh.classes_[p.argmax(axis=1)], fresh.predict(X_new))
    classes, probabilities = classifier.stages_out_of_fold(X, y, X_val, y_val, X_new)[""]
    np.testing.assert_array_equal(probabilities, p)
    assert list(classes) == list(fresh.classes_)


@pytest.mark.parametrize("make", [svm, PixelsClassifier, cnn, MAKERS["cascade soft"]])
def test_invalid_data_are_refused(make):
    """By out_of_fold as by fit."""
    X, y = toy((3, 3, 3))
    for call in (lambda: make().fit(X, y[:8]), lambda: make().out_of_fold(X, y[:8], None, None, X)):
        with pytest.raises(ValueError, match="got 9 images and 8 labels"):
            call()
    with pytest.raises(ValueError, match="got 0 images"):
        make().fit(X[:0], [])


def test_who_chooses_on_val():
    """These give up records for it in every fold."""
    assert not [name for name, make in MAKERS.items() if make().chooses_on_val]
    best = cnn().set_params(training__select="best")
    for classifier in (best, EnsembleClassifier(best, 2), CascadeClassifier(svm(), best, {"merged": LABELS[:2]})):
        assert classifier.chooses_on_val


def test_saved_and_loaded_in_a_new_process(fitted, tmp_path):
    """Probabilities that change on the way to disk make every reported number that of another model."""
    X, _ = toy((4, 4, 4), seed=2)
    np.save(tmp_path / "X.npy", X)
    for name in MAKERS:
        fitted(name).save(tmp_path / name)
    code = (
        "import sys, numpy as np; from pathlib import Path; from spectro.classifiers import load\n"
        "X = np.load('X.npy')\n"
        "for name in sys.argv[1:]: np.save(name + '.npy', load(Path(name)).predict_proba(X))"
    )
    subprocess.run([sys.executable, "-c", code, *MAKERS], cwd=tmp_path, check=True)
    for name in MAKERS:
        expected = fitted(name).predict_proba(X)
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), expected, err_msg=name)


@pytest.mark.parametrize("name", MAKERS)
def test_the_graph_for_export_gives_the_same_probabilities(fitted, name):
    """A step that the graph lacks, or does otherwise, would make the exported file another model."""
    import torch

    from spectro.classifiers.whole_graph import WholeGraph, to_fp32
    from spectro.data.images import pixels_of

    classifier = copy.deepcopy(fitted(name))
    to_fp32(classifier)
    X, _ = toy((6, 6, 6), seed=3)
    X[0], X[1], X[2] = 0, 255, 7  # no gradients, and none of any record
    with torch.no_grad():
        p = WholeGraph(classifier).eval()(*(torch.from_numpy(pixels_of(X, spec)) for spec in classifier.specs))
    np.testing.assert_allclose(p.numpy(), classifier.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("name", ["hog_svm", "pixels", "embed", "vpt deep", "cnn bf16", "cascade soft"])
def test_the_same_fit_gives_the_same_files(fitted, name, tmp_path):
    """Times and addresses in the files would make equal models look different."""
    fitted(name).save(tmp_path / "first")
    MAKERS[name]().fit(*toy((8, 6, 4)), *toy((4, 4, 4), seed=1)).save(tmp_path / "second")
    files = [p.relative_to(tmp_path / "first") for p in (tmp_path / "first").rglob("*") if p.is_file()]
    assert files
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file


class TestRegistry:
    def test_built_in_families(self):
        assert families() == ["cascade", "cnn", "embed", "ensemble", "hog_svm", "pixels", "vpt"]
        assert family("hog_svm") is HogSvmClassifier
        with pytest.raises(ModelError, match=r"got 'os'; allowed: cascade, cnn, embed, ensemble, hog_svm, pixels, vpt"):
            family("os")

    def test_a_name_belongs_to_one_module(self):
        """Two plug-ins with one name must not load each other's models."""
        with pytest.raises(ValueError, match=r"'pixels' for test_classifiers; spectro.classifiers.pixels has"):
            register_family("pixels")(type("Other", (PixelsClassifier,), {"__module__": "test_classifiers"}))


class TestDamagedModels:
    @pytest.fixture
    def model(self, tmp_path):
        svm().fit(*toy((5, 4, 3))).save(tmp_path)
        return tmp_path

    @pytest.mark.parametrize("file", ["model.json", "pipeline.skops"])
    def test_cut_off_and_missing_files(self, model, file):
        data = (model / file).read_bytes()
        for content in (data[: len(data) // 2], pickle.dumps({"a": 1})):
            (model / file).write_bytes(content)
            write_manifest(model)
            with pytest.raises(ModelError, match="damaged or not a"):
                load(model)
        (model / file).unlink()
        with pytest.raises(ModelError, match=rf"{file}: no such file; allowed: the model/ folder of a run"):
            load(model)

    @pytest.mark.parametrize(
        ("entry", "text"),
        [
            ({"family": "os.path"}, r"'os.path' is not registered.*--plugin"),
            ({"format": 99}, f"got format 99; allowed: {FORMAT}"),
        ],
    )
    def test_other_families_and_formats(self, model, entry, text):
        """A family name is looked up among those that are registered, never imported from anywhere."""
        state = json.loads((model / "model.json").read_text())
        (model / "model.json").write_text(json.dumps(state | entry))
        write_manifest(model)
        with pytest.raises(ModelError, match=text):
            load(model)

    def test_code_in_the_file_is_refused(self, model):
        """Loading somebody's model must not run somebody's code."""

        class Evil:
            def __reduce__(self):
                return (print, ("code ran",))

        (model / "pipeline.skops").write_bytes(skops.io.dumps(Evil()))
        write_manifest(model)
        with pytest.raises(ModelError, match="not trusted"):
            load(model)

    def test_skops_file_opens_as_any_other(self, model):
        """Our renumbering must leave a file that skops itself can read."""
        assert zipfile.is_zipfile(model / "pipeline.skops")
        assert skops.io.get_untrusted_types(file=model / "pipeline.skops") == []
