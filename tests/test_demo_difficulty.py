"""How hard the demo data are; ``pytest -m slow -n 0 -s`` of this file prints the table of docs/how-to/data.md."""

import numpy as np
import pytest

from spectro.classifiers import CascadeClassifier, HogSvmClassifier
from spectro.classifiers.cascade import merge
from spectro.data import (
    Augmentation,
    Crop,
    ImageSpec,
    ImageStore,
    Mapping,
    labels_of,
    load_dataset,
)
from spectro.data.transforms import BUILT_IN_VIEWS
from spectro.demo.generate import CROP_PX, make_demo

# The measure of difficulty stays the same whatever the defaults become: docs/how-to/data.md has its numbers.
CLASSIC = HogSvmClassifier(orientations=9, signed=False, cell_px=8, block_norm="L2-Hys", pca_variance=0.95, C=1.0)
CLASSIC.set_params(gamma="1.0x")
PAIRS = {"field": ("noise_DNS", "noise_Tip-off"), "lake": ("noise_ice_cracking", "noise_lake")}


def macro_f1(truth, predicted):
    from sklearn.metrics import f1_score

    return f1_score(truth.astype(str), predicted.astype(str), average="macro")


def brightness_macro_f1(train, y, test, y_test):
    """Logistic regression on the mean grey value alone."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    def mean(X):
        return X.pixels(ImageSpec(128, "L")).mean(axis=(1, 2))[:, None]

    scaler = StandardScaler().fit(mean(train))
    model = LogisticRegression(class_weight="balanced").fit(scaler.transform(mean(train)), y.astype(str))
    return macro_f1(y_test, model.predict(scaler.transform(mean(test))))


@pytest.mark.slow
@pytest.mark.parametrize("label_set", PAIRS)
def test_easy_is_easy_and_the_pair_is_hard_but_learnable(label_set, tmp_path):
    """A demo that anything solves, or nothing, shows nobody what the cascade is for. Tests are tiny: means count."""
    look_alikes = {"noise_combined": PAIRS[label_set]}
    scores = []
    for seed in range(10):
        root = make_demo(tmp_path / f"{label_set}{seed}", label_set, seed=seed)
        store = ImageStore(crop=Crop(**CROP_PX))
        data = load_dataset(root, Mapping(look_alikes=look_alikes), store=store, specs=CLASSIC.specs)
        train, test = data.of("train"), data.of("test")
        views = Augmentation(BUILT_IN_VIEWS)
        X, rows = data.images(train).augmented(views, [r.source for r in train], per_epoch=False)
        y = labels_of(train)[rows]
        cascade = CascadeClassifier(CLASSIC, CLASSIC, look_alikes).fit(X, y)
        X_test, y_test = data.images(test), labels_of(test)
        pair, pair_test = np.isin(y, PAIRS[label_set]), np.isin(y_test, PAIRS[label_set])
        scores.append(
            (
                macro_f1(merge(y_test, look_alikes), cascade.easy_.predict(X_test)),
                macro_f1(y_test[pair_test], cascade.hard_["noise_combined"].predict(X_test[pair_test])),
                brightness_macro_f1(X[pair], y[pair], X_test[pair_test], y_test[pair_test]),
            )
        )
    easy, hard, brightness = np.array(scores).T
    for name, values in (("easy", easy), ("hard", hard), ("brightness, hard", brightness)):
        print(f"{label_set:6} {name:18} {values.mean():.2f} ({values.min():.2f} to {values.max():.2f})")
    assert easy.mean() > 0.9
    assert 0.65 < hard.mean() < 0.9
    assert brightness.mean() < 0.6
