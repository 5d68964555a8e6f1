"""Which predictions a person should look at: thresholds on confidence, distance to the training data, their files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from spectro.classifiers.manifest import write_manifest
from spectro.data import Record
from spectro.data.inputs import find_inputs
from spectro.errors import ModelError
from spectro.evaluation.neighbours import fit_neighbours
from spectro.evaluation.selective import Thresholds, accuracy_at, confidence_of, n_enough, risk_coverage, thresholds
from spectro.files import read_csv, read_json
from spectro.runs.predict import Predictor
from spectro.runs.predictions import Predictions, read_predictions
from spectro.runs.review import tempered


def drawn(n: int, seed: int, classes: str = "a") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidences that are right as often as they state, predicted labels, and whether they are right."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 1, n)
    return confidence, rng.choice(list(classes), n).astype(object), rng.random(n) < confidence


def test_a_threshold_by_hand() -> None:
    """Nineteen right records and one more that is wrong make 0.95; the next wrong one would not."""
    confidence = np.linspace(0.99, 0.5, 25)
    right = np.arange(25) != 20
    chosen = thresholds(confidence, np.full(25, "a", dtype=object), right, target=0.95, coverage=None)
    assert (chosen.overall, dict(chosen.by_class), n_enough(0.95)) == (confidence[19], {}, 40)
    assert thresholds(confidence[:18], np.full(18, "a"), right[:18], target=0.95, coverage=None).overall is None
    of_share = thresholds(confidence, np.full(25, "a"), right, target=0.95, coverage=0.8)
    assert of_share.automatic(confidence, np.full(25, "a")).sum() == 20


@pytest.mark.parametrize(("n", "slack"), [(60, 0.03), (400, 0.01)])
def test_the_promised_accuracy_is_that_of_new_records(n: int, slack: float) -> None:
    """The smallest threshold that seems good enough is a lucky one: on new records it would promise too much."""
    new_confidence, new_predicted, new_right = drawn(20_000, 1000, "ab")
    hits = total = 0
    for seed in range(150):
        confidence, predicted, right = drawn(n, seed, "ab")
        automatic = thresholds(confidence, predicted, right, target=0.9, coverage=None).automatic(
            new_confidence, new_predicted
        )
        hits, total = hits + new_right[automatic].sum(), total + automatic.sum()
    assert total > 150 * 1000
    assert hits / total > 0.9 - slack


@given(arrays(float, st.integers(1, 40), elements=st.sampled_from([0.4, 0.6, 0.8, 1.0])), st.integers(0, 99))
def test_equal_confidences_are_never_divided(confidence: np.ndarray, seed: int) -> None:
    """The order of files would decide who looks at a record; a tie counts for the share of it that is needed."""
    right = np.random.default_rng(seed).random(len(confidence)) < confidence
    rows = risk_coverage(confidence, right, range(len(right)))
    assert [row["threshold"] for row in rows] == sorted(set(confidence), reverse=True)
    assert rows[-1]["automatic_accuracy"] == right.mean()
    for row in rows:
        assert row["n"] == (confidence >= row["threshold"]).sum()
        assert row["automatic_accuracy_ci_low"] <= row["automatic_accuracy"] <= row["automatic_accuracy_ci_high"]
        value, low, high, _ = accuracy_at(row["automatic"], [confidence], right[None], range(len(right)))
        assert value == pytest.approx(row["automatic_accuracy"])
        assert low <= value <= high
    assert accuracy_at(0.5, [np.ones(4)], np.array([[1, 1, 1, 0]]), range(4))[0] == 0.75


def test_records_of_one_source_make_a_wide_interval() -> None:
    """Ten views of one shot are not ten shots."""
    right = np.repeat([True, True, True, False], 10)
    alone, shared = (risk_coverage(np.ones(40), right, sources)[0] for sources in (range(40), np.arange(40) // 10))
    assert shared["automatic_accuracy_ci_low"] < alone["automatic_accuracy_ci_low"] - 0.1


@pytest.mark.parametrize("d", [8, 300])
def test_one_in_twenty_like_the_training_records_is_further_away(d: int) -> None:
    """The stated rate of false alarms holds for new records, however many features there are; far ones are found."""
    rng, rates, found = np.random.default_rng(0), [], []
    for _ in range(30):
        axes = rng.normal(size=(6, d))
        train, val, new = (rng.normal(size=(n, 6)) @ axes + 0.1 * rng.normal(size=(n, d)) for n in (80, 40, 200))
        for neighbours in (fit_neighbours(train, np.arange(80)), fit_neighbours(train, np.arange(80), val)):
            rates.append((neighbours.distances(new) > neighbours.limit).mean())
            found.append((neighbours.distances(new + 200 / np.sqrt(d)) > neighbours.limit).mean())
    assert 0.02 < np.mean(rates) < 0.07
    assert min(found) > 0.95


def test_odd_training_records_have_neighbours() -> None:
    """One class, one record, one recording, or very many features: a run must not end."""
    alike = fit_neighbours(np.zeros((5, 3)), np.arange(5))
    assert (alike.distances(np.zeros((2, 3))) > alike.limit).tolist() == [False, False]
    assert fit_neighbours(np.ones((1, 3)), np.zeros(1, int)).limit is None
    assert fit_neighbours(np.random.default_rng(0).normal(size=(6, 2)), np.zeros(6, int)).limit is None
    # Features that were learned from the labels of the training records need others for a limit.
    learned = np.random.default_rng(0).normal(size=(60, 4))
    assert fit_neighbours(learned, None, learned[:18]).limit is None
    assert fit_neighbours(learned[:40], None, learned[40:]).limit is not None
    many = fit_neighbours(np.random.default_rng(0).normal(size=(50, 20_000)), np.arange(50))
    assert sum(v.nbytes for v in vars(many).values() if isinstance(v, np.ndarray)) < 200_000


def test_out_of_fold_probabilities_get_the_temperatures_of_the_model() -> None:
    """Their temperature is 1; a threshold on them would not fit the confidence of the final model."""
    rng = np.random.default_rng(0)
    easy, hard = rng.dirichlet([1, 1], 9), rng.dirichlet([1, 1], 9)

    def cascade(easy: np.ndarray, hard: np.ndarray) -> np.ndarray:
        return np.column_stack([easy[:, 0], easy[:, 1:] * hard])

    def sharper(p: np.ndarray, temperature: float) -> np.ndarray:
        return p ** (1 / temperature) / (p ** (1 / temperature)).sum(axis=1, keepdims=True)

    classes = np.array(["a", "b", "c"], dtype=object)
    records = [Record(Path(f"{i}.png"), "", "", str(i)) for i in range(9)]
    predictions = Predictions(records, classes.repeat(3), classes, cascade(easy, hard))
    temperature = {"easy": 0.5, "hard": 0.2}
    done = tempered(predictions, temperature, {"bc": ["b", "c"]}).probabilities
    np.testing.assert_allclose(done, cascade(sharper(easy, 0.5), sharper(hard, 0.2)))
    flat = tempered(predictions, {"flat": 0.3}, {}).probabilities
    np.testing.assert_allclose(flat, sharper(predictions.probabilities, 0.3))
    assert not tempered(Predictions(records, classes.repeat(3), classes, np.zeros((9, 3))), {}, {}).probabilities.any()


@pytest.fixture(scope="module")
def run_dir(run_of: Callable[..., Path]) -> Path:
    """A finished run with folds."""
    return run_of("validation=kfold", "validation.k=2", "review.target_accuracy=0.7", "model=pixels")


def reasons(model: Path, paths: list[Path]) -> list[str]:
    """Why a person should look at each image, as `spectro predict` writes it."""
    predictor = Predictor(model)
    rows = [row for batch in predictor.stream(find_inputs(paths)) for row in predictor.rows_of(batch)]
    assert all(row[-2] == bool(row[-1]) for row in rows)
    by_name = {row[0]: row[-1] for row in rows}
    return [by_name[str(path)] for path in paths]


def test_a_run_leaves_thresholds_a_table_and_scores(run_dir: Path, demo_root: Path, tmp_path: Path) -> None:
    """The saved model flags what the run has called uncertain, and an image of another kind."""
    metrics, review = read_json(run_dir / "metrics.json"), read_json(run_dir / "model" / "review.json")
    assert (review["split"], review["n"]) == ("cv", metrics["cv"]["n_records"])
    rows = read_csv(run_dir / "risk_coverage.csv")
    assert {row["split"] for row in rows} == {"cv", "test"}
    assert all(float(row["automatic_accuracy"]) <= 1 for row in rows)
    test = read_predictions(run_dir / "predictions.csv")["test"]
    chosen = Thresholds(review["overall"], review["by_class"])
    automatic = chosen.automatic(confidence_of(test.probabilities), test.predicted)
    assert metrics["test"]["automatic"] == automatic.mean()
    images = [demo_root / record.path for record in test.records]
    Image.fromarray(np.zeros((220, 300), np.uint8)).save(tmp_path / "black.png")
    *texts, of_black = reasons(run_dir / "model", [*images, tmp_path / "black.png"])
    assert ["confidence" in text for text in texts] == (~automatic).tolist()
    assert "unlike the training data" in of_black


DAMAGES: dict[str, Callable[[dict], object]] = {
    "threshold": lambda d: d.update(overall=7),
    "threshold of text": lambda d: d.update(by_class={"noise_DNS": "0.5"}),
    "a class": lambda d: d.update(by_class={"new": 0.5}),
    "neighbours": lambda d: d["neighbours"].update(k=0),
    "limit": lambda d: d["neighbours"].update(limit=float("nan")),
    "target": lambda d: d.update(target_accuracy=2.0),
    "a key": lambda d: d["neighbours"].update(more=1),
    "no dictionary": lambda d: d.update(by_class=3),
}


@pytest.mark.parametrize("name", [*DAMAGES, "shapes", "NaN", "cut"])
def test_a_damaged_review_is_named(name: str, run_dir: Path, tmp_path: Path, demo_root: Path) -> None:
    """A threshold of a stranger's file must not let everything pass, nor end in a traceback."""
    from safetensors.numpy import load_file, save_file

    model = Path(shutil.copytree(run_dir / "model", tmp_path / "model"))
    path = model / "review.safetensors"
    if name in DAMAGES:
        content = read_json(model / "review.json")
        DAMAGES[name](content)
        (model / "review.json").write_text(json.dumps(content))
    elif name == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        tensors = load_file(path)
        tensors["mean"] = tensors["mean"][1:] if name == "shapes" else tensors["mean"] * np.float32("nan")
        save_file(tensors, path)
    write_manifest(model)
    with pytest.raises(ModelError, match=r"review\.(json|safetensors)"):
        reasons(model, [next((demo_root / "test").rglob("*.png"))])
