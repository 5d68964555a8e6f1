"""Pretrained weights: the right ones are taken, everything else is refused before it can do harm."""

import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from test_classifiers import cnn, toy, vpt

from spectro.classifiers.networks import weights
from spectro.errors import ConfigError, ModelError


def state(classifier, classes):
    """A backbone's weights as timm would publish them, with a head for so many classes."""
    options = classifier.backbone_options | ({"img_size": 32} if classifier.family == "vpt" else {})
    options |= classifier.backbone_options
    model, _ = weights.create(classifier.backbone, classes, family="x", options=options, pretrained=False, weights=None)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def tiny_vit(**options):
    return vpt(backbone_options={"img_size": 32}, pretrained=True, **options)


def tiny_cnn(**options):
    return cnn(pretrained=True, **options)


families = pytest.mark.parametrize("make", [tiny_vit, tiny_cnn], ids=["vpt", "cnn"])


def backbone_of(classifier):
    network, _ = classifier._build(2, empty=False)
    return weights._without_head(network.backbone.state_dict(), network.backbone)


@families
@pytest.mark.parametrize("classes", [1000, 2, 0])
@pytest.mark.parametrize("kind", ["safetensors", "torch", "nested"])
def test_a_file_with_a_head_of_any_size(make, classes, kind, tmp_path):
    tensors = state(make(), classes)
    path = tmp_path / "weights.bin"
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors if kind == "torch" else {"model": tensors, "epoch": torch.tensor(3)}, path)
    loaded = backbone_of(make(weights=str(path)))
    for name, tensor in loaded.items():
        assert torch.equal(tensor, tensors[name]), name


def test_half_precision_files(tmp_path):
    tensors = {name: tensor.half() for name, tensor in state(tiny_vit(), 5).items()}
    save_file(tensors, tmp_path / "w.safetensors")
    loaded = backbone_of(tiny_vit(weights=str(tmp_path / "w.safetensors")))
    assert all(torch.equal(tensor, tensors[name].float()) for name, tensor in loaded.items())


def test_another_grid_of_positions_is_resampled(tmp_path):
    """Weights of a larger image serve a smaller one; those of the same grid are not touched, see above."""
    save_file(state(vpt(backbone_options={"img_size": 64}), 0), tmp_path / "w.safetensors")
    loaded = backbone_of(tiny_vit(weights=str(tmp_path / "w.safetensors")))
    assert loaded["pos_embed"].shape[1] == 17


@families
def test_the_run_can_say_which_weights_it_used(make, tmp_path):
    import hashlib

    path = tmp_path / "w.safetensors"
    save_file(state(make(), 7), path)
    classifier = make(weights=str(path), epochs=1).fit(*toy((3, 3, 3)))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert classifier.facts["weights"] == {"source": str(path), "sha256": digest}


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

    def test_another_width(self, tmp_path):
        tensors = state(tiny_cnn(), 10)
        tensors["layer1.0.conv1.weight"] = torch.zeros(9, 8, 3, 3)
        save_file(tensors, tmp_path / "w")
        self.refused(tiny_cnn(weights=str(tmp_path / "w")), r"conv1.weight is \(9, 8, 3, 3\), not \(16, 64, 3, 3\)")

    @pytest.mark.parametrize("name", ["bn1.running_mean", "layer1.0.conv1.weight"])
    def test_a_part_is_missing(self, name, tmp_path):
        """A layer left at random would be a silent fall-back."""
        tensors = state(tiny_cnn(), 10)
        del tensors[name]
        save_file(tensors, tmp_path / "w")
        self.refused(tiny_cnn(weights=str(tmp_path / "w")), f"{name} is missing")

    @pytest.mark.parametrize("kind", ["safetensors", "torch"])
    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
    def test_truncated(self, kind, share, file):
        if kind == "torch":
            torch.save(state(tiny_cnn(), 10), file)
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * share)])
        self.refused(tiny_cnn(weights=str(file)), "damaged, or not a safetensors or torch file")

    def test_text(self, file):
        file.write_text("<html>404 not found</html>")
        self.refused(tiny_cnn(weights=str(file)), "damaged, or not a safetensors or torch file")

    @pytest.mark.parametrize("zipped", [False, True])
    def test_a_pickle_with_code_in_it(self, zipped, tmp_path):
        mark = tmp_path / "code_ran"

        class Evil:
            def __reduce__(self):
                return (open, (str(mark), "w"))

        path = tmp_path / "evil.pth"
        if zipped:
            torch.save({"weight": Evil()}, path)
        else:
            path.write_bytes(pickle.dumps({"weight": Evil()}))
        self.refused(tiny_cnn(weights=str(path)), "refused, it holds more than tensors")
        assert not mark.exists()

    def test_no_table_of_tensors(self, tmp_path):
        torch.save({"weight": 3}, tmp_path / "w.pth")
        self.refused(tiny_cnn(weights=str(tmp_path / "w.pth")), "got no table of tensors")

    def test_unknown_backbone(self):
        with pytest.raises(ConfigError, match=r"cnn.backbone: got 'resnet19'; allowed: a model that timm has"):
            cnn(backbone="resnet19").prepare()

    def test_a_wrong_tag(self):
        """timm has the architecture, but no such weights."""
        with pytest.raises(ConfigError, match=r"cnn.backbone: got 'resnet18.x'; allowed after resnet18: .*tv_in1k"):
            cnn(backbone="resnet18.x").prepare()

    def test_unknown_option(self):
        with pytest.raises(ConfigError, match=r"vpt.backbone: timm makes no deit_tiny_patch16_224 of .*colour=red"):
            vpt(backbone_options={"colour": "red"}).prepare()


OFFLINE = """
import socket, sys
def refuse(*a, **k): raise OSError("Name or service not known")
socket.create_connection = socket.getaddrinfo = refuse
from spectro.classifiers import CnnClassifier
from spectro.errors import ModelError
try: CnnClassifier().fit(*[__import__("numpy").zeros((2, 32, 32), "uint8"), ["a", "b"]])
except ModelError as error: print(error)
"""


@pytest.mark.slow
def test_without_network_and_file_training_does_not_begin(tmp_path, monkeypatch):
    """Random weights in place of pretrained ones would be a result of another experiment."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, timeout=180)
    for hint in ("cnn.pretrained: the pretrained weights of resnet18.tv_in1k are not available", "cnn.weights=PATH"):
        assert hint in done.stdout, done.stderr
    assert "HF_ENDPOINT" in done.stdout
    assert "cnn.pretrained=false" in done.stdout


def test_a_download_is_made_once_and_named(monkeypatch):
    """Two stages and many trials must not ask the network again and again."""
    made = []
    make = weights._make

    def pretend(*arguments, pretrained=False):
        made.append(pretrained)
        return make(*arguments)

    monkeypatch.setattr(weights, "_make", pretend)
    weights._downloaded.cache_clear()
    first, second = (backbone_of(tiny_cnn()) for _ in range(2))
    weights._downloaded.cache_clear()
    assert made.count(True) == 1
    assert all(torch.equal(first[name], second[name]) for name in first)
