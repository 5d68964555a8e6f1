"""Pretrained weights: the right ones are taken, everything else is refused before it can do harm."""

import hashlib
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from test_classifiers import cnn, embed, toy, vpt

from spectro.classifiers import load
from spectro.classifiers.networks import weights
from spectro.errors import ConfigError, ModelError


def tiny_vit(**options):
    return vpt(backbone_options={"img_size": 32}, pretrained=True, **options)


def tiny_cnn(**options):
    return cnn(pretrained=True, **options)


def state(classifier, classes):
    """A backbone's weights as timm would publish them, with a head for so many classes."""
    model = timm.create_model(classifier.backbone, num_classes=classes, **classifier.backbone_options)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def backbone_of(classifier):
    """The tensors that a new network starts from, without its head."""
    network, _ = classifier._build(2, empty=False)
    return {name: t for name, t in network.backbone.state_dict().items() if not name.startswith(("fc.", "head."))}


families = pytest.mark.parametrize("make", [tiny_vit, tiny_cnn], ids=["vpt", "cnn"])


@families
@pytest.mark.parametrize("classes", [1000, 2, 0])
@pytest.mark.parametrize("kind", ["safetensors", "half", "torch", "nested"])
def test_a_file_with_a_head_of_any_size(make, classes, kind, tmp_path):
    tensors = state(make(), classes)
    path = tmp_path / "weights.bin"
    if kind == "half":
        tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    if kind in ("safetensors", "half"):
        save_file(tensors, path)
    else:
        torch.save(tensors if kind == "torch" else {"model": tensors, "epoch": torch.tensor(3)}, path)
    for name, tensor in backbone_of(make(weights=str(path))).items():
        assert torch.equal(tensor, tensors[name].to(tensor.dtype)), name


def test_another_grid_of_positions_is_resampled(tmp_path):
    """Weights of a larger image serve a smaller one; those of the same grid are not touched, see above."""
    save_file(state(vpt(backbone_options={"img_size": 64}), 0), tmp_path / "w")
    assert backbone_of(tiny_vit(weights=str(tmp_path / "w")))["pos_embed"].shape[1] == 17


@families
def test_the_run_can_say_which_weights_it_used(make, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(state(make(), 7), path)
    classifier = make(weights=str(path), epochs=1).fit(*toy((3, 3, 3)))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert classifier.facts["weights"] == {"source": str(path), "sha256": digest}


def folder_of(classifier, path):
    """A folder as timm writes it for the hub, with a mean of its own."""
    options = {
        key: list(value) if isinstance(value, tuple) else value for key, value in classifier.backbone_options.items()
    }
    cfg = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "input_size": [3, 32, 32], "num_classes": 7}
    cfg |= {"classifier": "head" if "deit" in classifier.backbone else "fc"}
    config = {"architecture": classifier.backbone, "pretrained_cfg": cfg, "model_args": options, "num_classes": 7}
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    save_file(state(classifier, 7), path / "model.safetensors")
    return f"local-dir:{path}"


@pytest.mark.parametrize("make", [tiny_vit, tiny_cnn, embed], ids=["vpt", "cnn", "embed"])
def test_a_folder_gives_architecture_weights_and_normalisation(make, tmp_path):
    """And a saved model needs it no more."""
    plain = make()
    plain.backbone_options = {**plain.backbone_options, "img_size": 32} if make is embed else plain.backbone_options
    name = folder_of(plain, tmp_path / "weights")
    given = {"training__epochs": 1} if make is not embed else {}
    classifier = make().set_params(backbone=name, backbone_options=None, pretrained=True, **given)
    X, y = toy((3, 3, 3))
    classifier.fit(X, y)
    origin, file = classifier.facts["weights"], tmp_path / "weights" / "model.safetensors"
    assert (origin["source"], origin["sha256"]) == (str(file), hashlib.sha256(file.read_bytes()).hexdigest())
    model = classifier.backbone_ if make is embed else classifier.network_.backbone
    assert tuple(weights.normalisation(model)[0]) == (0.1, 0.2, 0.3)
    classifier.save(tmp_path / "model")
    (tmp_path / "weights").rename(tmp_path / "moved")
    np.testing.assert_array_equal(load(tmp_path / "model").predict_proba(X), classifier.predict_proba(X))
    with pytest.raises(ConfigError, match=r"\.backbone: got 'local-dir:.*'; allowed: a folder with a config.json"):
        classifier.prepare()
    (tmp_path / "moved" / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"\.backbone: got 'local-dir:.*moved', of which timm reads no config.json"):
        classifier.set_params(backbone=f"local-dir:{tmp_path / 'moved'}").prepare()


class TestRefused:
    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "w.safetensors"
        save_file(state(tiny_cnn(), 10), path)
        return path

    def refused(self, classifier, text):
        with pytest.raises(ModelError, match=text):
            classifier.prepare()

    @families
    def test_no_such_file(self, make, tmp_path):
        self.refused(make(weights=str(tmp_path / "none")), r"\.weights: got '.*none', no such file; allowed: a safe")

    def test_another_architecture(self, file):
        self.refused(tiny_vit(weights=str(file)), r"not the weights of vpt.backbone=deit_tiny.*is missing.* more")

    @pytest.mark.parametrize("name", ["bn1.running_mean", "layer1.0.conv1.weight"])
    def test_a_part_is_missing_or_of_another_width(self, name, file):
        """A layer left at random would be a silent fall-back."""
        tensors = state(tiny_cnn(), 10)
        save_file({**tensors, name: torch.zeros(9, 8)}, file)
        self.refused(tiny_cnn(weights=str(file)), rf"{name} is \(9, 8\), not \(")
        del tensors[name]
        save_file(tensors, file)
        self.refused(tiny_cnn(weights=str(file)), f"{name} is missing")

    @pytest.mark.parametrize("kind", ["safetensors", "torch"])
    def test_damaged(self, kind, file):
        if kind == "torch":
            torch.save(state(tiny_cnn(), 10), file)
        data = file.read_bytes()
        for content in (*(data[: int(len(data) * share)] for share in (0.0, 0.001, 0.5, 0.999)), b"<html>404</html>"):
            file.write_bytes(content)
            self.refused(tiny_cnn(weights=str(file)), "damaged, or not a safetensors or torch file")

    @pytest.mark.parametrize("zipped", [False, True])
    def test_a_pickle_with_code_in_it(self, zipped, file):
        mark = file.parent / "code_ran"

        class Evil:
            def __reduce__(self):
                return (open, (str(mark), "w"))

        if zipped:
            torch.save({"weight": Evil()}, file)
        else:
            file.write_bytes(pickle.dumps({"weight": Evil()}))
        self.refused(tiny_cnn(weights=str(file)), "refused, it holds more than tensors")
        assert not mark.exists()

    def test_no_table_of_tensors(self, file):
        torch.save({"weight": 3}, file)
        self.refused(tiny_cnn(weights=str(file)), "got no table of tensors")

    @pytest.mark.parametrize(
        ("classifier", "text"),
        [
            (cnn(backbone="resnet19"), "cnn.backbone: got 'resnet19'; allowed: a model that timm has"),
            (cnn(backbone="resnet18.x"), "cnn.backbone: got 'resnet18.x'; allowed after resnet18: .*tv_in1k"),
            (
                vpt(backbone_options={"colour": "red"}),
                "vpt.backbone_options: got .*'colour': 'red'.*timm makes no deit_tiny",
            ),
            (vpt(backbone="deit_tiny"), "vpt.backbone: got 'deit_tiny'; allowed: a model that timm has"),
        ],
    )
    def test_what_timm_does_not_have(self, classifier, text):
        with pytest.raises(ConfigError, match=text):
            classifier.prepare()


OFFLINE = """
import socket, sys
def refuse(*a, **k): raise OSError("Name or service not known")
socket.create_connection = socket.getaddrinfo = refuse
from spectro.classifiers import CnnClassifier
from spectro.errors import ModelError
for options in {}, {"backbone": "hf-hub:timm/resnet18.a1_in1k"}:
    try: CnnClassifier(**options).fit(*[__import__("numpy").zeros((2, 32, 32), "uint8"), ["a", "b"]])
    except ModelError as error: print(error)
"""


@pytest.mark.slow
def test_without_network_and_file_training_does_not_begin(tmp_path, monkeypatch):
    """Random weights in place of pretrained ones would be a result of another experiment."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, timeout=180)
    assert "cnn.pretrained: the pretrained weights of resnet18.tv_in1k are not available" in done.stdout, done.stderr
    assert "cnn.backbone: got 'hf-hub:timm/resnet18.a1_in1k', of which timm reads no config.json" in done.stdout
    for hint in ("cnn.weights=PATH", "HF_ENDPOINT", "cnn.pretrained=false"):
        assert hint in done.stdout


def test_a_download_is_made_once(monkeypatch):
    """Two stages and many trials must not ask the network again and again."""
    made, create = [], timm.create_model

    def pretend(name, *, pretrained, **arguments):
        made.append(pretrained)
        return create(name, **arguments)

    monkeypatch.setattr(timm, "create_model", pretend)
    first, second = (backbone_of(tiny_cnn(backbone="resnet26")) for _ in range(2))
    assert made.count(True) == 1
    assert all(torch.equal(first[name], second[name]) for name in first)
