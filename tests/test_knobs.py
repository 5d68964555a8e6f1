"""Keys of a configuration are declared by the constructors of the classifiers, and by nothing else."""

from typing import Annotated

import numpy as np
import pytest
from omegaconf import OmegaConf
from pydantic import Field

from spectro.classifiers import CnnClassifier, HogSvmClassifier, PixelsClassifier, VptClassifier, family
from spectro.cli import main as cli
from spectro.config.groups import Groups
from spectro.errors import ConfigError
from spectro.knobs import build


# Those on a grid are other settings of the same families.
@pytest.mark.parametrize("model", [name for name in Groups().options("model") if not name.endswith("_grid")])
def test_yaml_and_python_have_the_same_defaults(model):
    """A default that is one thing in YAML and another in Python makes two models of one name."""
    config = cli.composed([f"model={model}", "mapping=identity"])
    cls = family(config.common.model.family)
    assert config.estimator().get_params() == cls().get_params() == cls.from_config({}, seed=0).get_params()


def test_seed_and_sections_reach_a_network():
    classifier = VptClassifier.from_config({"vpt": {"fit": "pad"}, "train": {"lr": 2}, "device": "cpu"}, seed=7)
    assert (classifier.image_fit, classifier.training.lr, classifier.device, classifier.seed) == ("pad", 2, "cpu", 7)


def test_all_problems_are_listed_with_their_keys():
    """Who made several mistakes should not need several starts to learn of them."""
    values = {"vpt": {"variant": "flat", "lenght": 3}, "train": {"lr": 0}, "loss": {"class_weights": {"a": -1}}}
    with pytest.raises(ConfigError) as caught:
        VptClassifier.from_config(values, seed=0, prefix="stages.hard.", context=" under model=x")
    lines = str(caught.value).splitlines()
    assert sorted(line.split(":")[0] for line in lines) == [
        "stages.hard.loss.class_weights",
        "stages.hard.loss.class_weights.a",
        "stages.hard.train.lr",
        "stages.hard.vpt.lenght",
        "stages.hard.vpt.variant",
    ]
    assert any("unknown key under model=x" in line for line in lines)


@pytest.mark.parametrize(
    ("cls", "values", "key"),
    [
        (HogSvmClassifier, {"hog": {"cell_px": 100}}, "hog.cell_px"),
        (PixelsClassifier, {"pixels": {"width_px": 61, "height_px": 59}}, "pixels.width_px"),
        (CnnClassifier, {"cnn": {"pretrained": False, "weights": "x.pt"}}, "cnn.weights"),
    ],
)
def test_contradictions_between_keys_are_named(cls, values, key):
    with pytest.raises(ConfigError, match=rf"^stages.easy.{key}: got .*; allowed: "):
        cls.from_config(values, seed=0, prefix="stages.easy.")


@pytest.mark.filterwarnings("ignore:the fitted SVM")
def test_python_parameters_are_validated_when_a_classifier_is_fitted():
    """A misspelled norm must not silently be another one."""
    X, y = np.zeros((4, 32, 32), np.uint8), ["a", "a", "b", "b"]
    with pytest.raises(ValueError, match=r"hog.block_norm: got 'l2'; allowed: 'L1', .* or 'none'"):
        HogSvmClassifier(size_px=32, block_norm="l2").fit(X, y)
    with pytest.raises(ValueError, match=r"hog.cell_px: got 64"):
        HogSvmClassifier(size_px=32, cell_px=64).fit(X, y)
    HogSvmClassifier(size_px=np.int64(64), C=np.float32(1)).fit(X, y)


def test_a_plain_constructor_is_enough():
    """A user's own family needs no base class to declare its keys."""

    class Forest:
        family = "forest"

        def __init__(self, *, n_trees: Annotated[int, Field(ge=1)] = 10, depth: int | None = None):
            self.n_trees, self.depth = n_trees, depth

    assert build(Forest, OmegaConf.to_container(OmegaConf.create({"forest": {"n_trees": 3}}))).n_trees == 3
    with pytest.raises(ConfigError, match=r"forest.ntrees: unknown key .*did you mean forest.n_trees"):
        build(Forest, {"forest": {"ntrees": 3}})
