"""Comparisons of runs: what may be compared, which runs are one model, and what is shown. Runs are made of files."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import read_json, read_rows

from spectro.comparison import Result, compare
from spectro.comparison.baselines import majority_baseline
from spectro.comparison.load import load_runs
from spectro.comparison.models import Model, models_of
from spectro.comparison.report import sections
from spectro.comparison.statistics import compute
from spectro.comparison.verdict import verdict
from spectro.errors import SpectroError
from spectro.evaluation import METRICS, wilson
from spectro.plugins import load_plugins
from spectro.runs.predictions import Predictions

CLASSES = ("a", "b", "c")
LOOK_ALIKES = {"bc": ["b", "c"]}
TRUTH = ["a"] * 8 + ["b"] * 8 + ["c"] * 8


def make_run(
    folder: Path,
    wrong: Sequence[int] = (),
    *,
    model: str = "hog_svm",
    family: str | None = None,
    seed: int = 0,
    truth: Sequence[str] = TRUTH,
    settings: Mapping[str, Any] | None = None,
    info: Mapping[str, Any] | None = None,
    mapping: Mapping[str, Any] | None = None,
    fingerprint: str = "f" * 16,
    oof: bool = False,
    source: str = "r{:02d}",
) -> Path:
    """A finished run that gets some of the test records wrong: it calls them the next class."""
    folder.mkdir(parents=True)
    number = {label: i for i, label in enumerate(CLASSES)}
    predicted = [CLASSES[(number[label] + (i in wrong)) % 3] for i, label in enumerate(truth)]
    rows = []
    for i, (label, called) in enumerate(zip(truth, predicted, strict=True)):
        p = [0.8 if c == called else 0.1 for c in CLASSES]
        rows.append(["test", f"test/{label}/r{i:02d}.png", source.format(i), label, called, *p])
    header = ["path", "source", "label", "predicted", *(f"p_{c}" for c in CLASSES)]
    write(folder / "predictions.csv", ["split", *header], rows)
    records = [[split, path, source, label, label, f"sha{path}"] for split, path, source, label, *_ in rows]
    train = [(c, i) for c in CLASSES for i in range(2 + (c == "b"))]
    records += [["train", f"train/{c}/t{i}.png", f"t{c}{i}", c, c, f"shat{c}{i}"] for c, i in train]
    write(folder / "records.csv", ["split", "path", "source", "folder", "label", "sha256"], records)
    if oof:
        folds = [[repeat, i % 4 + 1, *row[1:]] for repeat in (1, 2) for i, row in enumerate(rows)]
        write(folder / "oof_predictions.csv", ["repeat", "fold", *header], folds)
    content = {
        "status": "FINISHED",
        "reason": None,
        "run_name": f"{model} flat seed {seed}",
        "experiment": "field",
        "started_at": 1000.0 + seed,
        "tags": {"model": model, "stage": "flat", "mapping": "field"},
        "config": {
            "model": {"name": model, "family": family or model},
            "cascade_stage": {"name": "flat"},
            "mapping": {"name": "field", "classes": None, "look_alikes": LOOK_ALIKES, **(mapping or {})},
            "augmentation": {"name": "none"},
            "data": {"kind": "folder", "root": "/nowhere"},
            "seed": seed,
            **(settings or {}),
        },
        "seed": seed,
        "git_commit": "c" * 40,
        "data": {"name": "records", "root": "/nowhere", "fingerprint": fingerprint, "records": {"train": {"a": 2}}},
        "versions": {"python": "3.11", "spectro": "0.1"},
        "wall_s": {"fit": 2.0 + seed},
        "mlflow": {"tracking_uri": None, "artifact_location": None, "run_id": None, "sent": False},
        **(info or {}),
    }
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def runs(tmp_path: Path) -> Callable[..., Path]:
    """A function that makes a run in ``outputs/runs``."""
    return lambda name, *args, **kwargs: make_run(tmp_path / "outputs" / "runs" / name, *args, **kwargs)


@pytest.fixture
def compared(tmp_path: Path) -> Callable[..., Result]:
    """A function that compares runs with the majority class, and writes nothing."""

    def computed(*names: object) -> Result:
        outputs = tmp_path / "outputs"
        runs, notes = load_runs([str(name) for name in names], outputs=outputs, scratch=tmp_path)
        models, more = models_of(runs)
        groups = {group: members for run in runs for group, members in run.look_alikes.items()}
        return compute([*models, majority_baseline(runs[0])], groups, "test", notes=[*notes, *more])

    return computed


def test_a_model_that_gets_more_records_right_is_better(runs: Any, compared: Any) -> None:
    """The sentence that all this is for, and the tests that it rests on."""
    result = compared(runs("bad", range(0, 24, 2)), runs("good", [0], model="deit_vpt"))
    (pair,) = result.between
    assert (pair.a, pair.b, pair.is_better) == ("deit_vpt", "hog_svm", True)
    assert (pair.mcnemar.n_only_a, pair.mcnemar.n_only_b) == (11, 0)
    assert pair.differences["accuracy"].value == pytest.approx(11 / 24)
    headline, command = verdict(result).headline, verdict(result).command
    assert headline.startswith("Use deit_vpt: macro-F1 0.96 [")
    assert headline.endswith("] on 24 test records; it is better than all others.")
    assert re.fullmatch(r"spectro predict \S*/runs/good new_images/ --out predictions.csv", command)
    assert any(line.startswith("deit_vpt is better than hog_svm: +0.46 [0.") for line in verdict(result).pairs)


@pytest.mark.parametrize(
    ("wrong", "others", "text"),
    [
        ([0, 9, 17], [1, 10, 18], "cannot be told apart"),
        # A bootstrap of a handful of records is too certain: five differences are no proof.
        ([], [0, 1, 8, 9, 16], "on too few records"),
    ],
    ids=["equal", "few"],
)
def test_what_is_not_shown_is_not_called_better(
    wrong: list[int], others: list[int], text: str, runs: Any, compared: Any
) -> None:
    """Models that fail in as many records, or that differ on a handful, must not be ranked."""
    result = compared(runs("one", wrong, model="deit_vpt"), runs("other", others))
    assert not result.between[0].is_better
    assert "cannot be told apart" in verdict(result).headline
    assert text in verdict(result).pairs[0]


def test_of_equal_scores_the_cheaper_model_is_used(runs: Any, compared: Any) -> None:
    """A baseline too; a lower score is not chosen because it is cheap, nor seconds where scores differ."""
    quick, slow = {"cost": {"fit_s": 3.0}}, {"cost": {"fit_s": 40.0}}
    one = runs("one", [0, 9], model="pixels", info=quick)
    other = runs("other", [1, 10], model="resnet18", info=slow)
    worse = runs("worse", [1, 10, 18], model="hog_svm", info=quick)
    found = verdict(compared(other, one))
    assert found.model.name == "pixels"
    assert found.headline.startswith("resnet18 0.92 [")
    assert "cannot be told apart (macro-F1 on 24 test records); pixels is the cheapest (fit 3 s, resnet18 40 s)" in (
        found.headline
    )
    assert found.headline.endswith(": use pixels.")
    found = verdict(compared(other, worse))
    assert found.model.name == "resnet18"
    assert "and hog_svm (0.88) cannot be told apart from it; hog_svm is the cheapest (fit 3 s, resnet" in found.headline
    assert verdict(compared(runs("useless", range(24)), one)).headline.endswith("it is better than all others.")
    found = verdict(compared("useless"))
    assert found.headline.startswith("Use none yet: hog_svm has the highest macro-F1, 0.00")
    assert any("sweeper=NAME" in text for text in found.cautions)
    found = verdict(compared(runs("lonely", source="line")))
    assert found.cautions[0].startswith("The 24 test records come from 1 source: next to nothing")


def test_seeds_are_one_model_and_settings_are_another(runs: Any, compared: Any) -> None:
    """Five seeds must not look like five models, nor two settings like one."""
    small, large = {"svm": {"C": 1.0, "gamma": "0.1x"}}, {"svm": {"C": 10.0, "gamma": "0.1x"}}
    for seed in range(3):
        runs(f"small{seed}", [seed], seed=seed, settings=small, info={"cost": {"fit_s": 2.0 + seed}})
    runs("large", settings=large)
    result = compared("small1", "small0", "large", "small2")
    found = {model.name: model for model in result.candidates}
    assert {name: model.seeds for name, model in found.items()} == {
        "hog_svm C=1.0": [0, 1, 2],
        "hog_svm C=10.0": [0],
    }
    assert result.scores["hog_svm C=1.0"]["macro_f1"].std_seeds is not None
    assert found["hog_svm C=1.0"].cost.fit_s == 3.0
    recall = result.scores["hog_svm C=1.0"]["recall/a"]
    # Seeds are no further records: the interval is that of 7 of 8 records.
    assert (recall.value, recall.ci_low, recall.ci_high) == (7 / 8, *wilson(7, 8))


def test_a_refit_is_another_model(runs: Any, compared: Any) -> None:
    """A model of more records is no other seed of the one without them; runs of before there was a choice had none."""
    kfold = {"name": "kfold", "k": 5}
    runs("older", seed=1, settings={"validation": kfold})
    runs("train", seed=0, settings={"validation": {**kfold, "refit": False}})
    runs("train_and_val", seed=2, settings={"validation": {**kfold, "refit": True}})
    assert {model.name: model.seeds for model in compared("older", "train", "train_and_val").candidates} == {
        "hog_svm train only": [0, 1],
        "hog_svm refit": [2],
    }


NAMES = {
    "one of a kind needs no more": ([{"model": "hog_svm"}, {"model": "pixels"}], ["hog_svm", "pixels"]),
    "what was changed": (
        [{}, {"settings": {"svm": {"C": 1}}}, {"settings": {"svm": {"C": 1, "gamma": 2}, "scaler": "none"}}],
        ["hog_svm default", "hog_svm C=1", "hog_svm"],
    ),
    "the stage, and then of all": (
        [{}, *({"settings": {"cascade_stage": {"name": "full"}}, "model": model} for model in ("hog_svm", "embed"))],
        ["hog_svm flat", "hog_svm cascade", "embed cascade"],
    ),
    "a search": (
        [{}, {"info": {"tags": {"final": "true", "trial": "22"}}, "settings": {"svm": {"C": 3}}}],
        ["hog_svm", "hog_svm tuned (trial 22)"],
    ),
    "another backbone": (
        [
            {"model": "resnet18", "family": "cnn"},
            {"model": "resnet18", "family": "cnn", "settings": {"cnn": {"backbone": "tf_efficientnet_lite0.in1k"}}},
        ],
        ["resnet18", "cnn tf_efficientnet_lite0"],
    ),
    "the user's": ([{"settings": {"name": "mine"}}, {}], ["mine", "hog_svm"]),
    "the user's twice": (
        [{"settings": {"name": "mine"}}, {"settings": {"name": "mine"}, "model": "pixels"}],
        ["mine hog_svm", "mine pixels"],
    ),
    "members": ([{"settings": {"ensemble": {"members": 5}}}, {}], ["hog_svm, 5 members", "hog_svm"]),
    "the smallest difference": (
        [{"settings": {"data": {"crop": {"left": i // 2, "top": i % 2}}, "x": 0}} for i in range(4)],
        [f"hog_svm left={i // 2}, top={i % 2}" for i in range(4)],
    ),
}


@pytest.mark.parametrize("case", NAMES)
def test_models_have_short_names(case: str, runs: Any, compared: Any) -> None:
    """What differs and matters, and never one name for two: tables are useless otherwise."""
    given, names = NAMES[case]
    folders = [
        runs(str(i), model=kwargs.pop("model", "hog_svm"), **kwargs) for i, kwargs in enumerate(map(dict, given))
    ]
    assert [model.name for model in compared(*folders).models[:-1]] == names


def test_a_page_holds_eight_models(runs: Any, tmp_path: Path) -> None:
    """One page, light enough for mail, with a confusion matrix and a row everywhere for each of them."""
    folders = [runs(str(i), [i, 9], settings={"svm": {"C": float(i)}}) for i in range(8)]
    result, folder = compare(folders, outputs=tmp_path / "outputs")
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert text.count('<table class="confusion">') == len(result.candidates) == 8
    assert len(folder.name) <= 60


def test_the_user_names_models_and_settings_that_differ_have_a_table(runs: Any, tmp_path: Path) -> None:
    """Two models must not get one name, nor a model the name of another."""
    one, other = runs("one", settings={"svm": {"C": 1.0}}), runs("other", settings={"svm": {"C": 2.0}})
    result, folder = compare([one, other], outputs=tmp_path / "outputs", labels=["left", "right"])
    assert [model.name for model in result.candidates] == ["left", "right"]
    assert sections(result)[0].tables == [(["", "svm.C"], [["left", "1.0"], ["right", "2.0"]])]
    assert re.fullmatch(r"[\d_-]{20}left_right", folder.name)
    for labels in (["a"], ["a", "a"], ["a", ""]):
        with pytest.raises(
            SpectroError, match=r"--names: got a.*allowed: 2 different names, for hog_svm C=1.0, hog_svm"
        ):
            compare([one, other], outputs=tmp_path / "outputs", labels=labels)


def test_seeds_vote_and_else_the_earliest_counts() -> None:
    """The alphabet would favour the same class each time."""
    classes, probabilities = np.array(["a", "b", "c"], dtype=object), np.eye(3)[[[1, 2, 0], [0, 0, 0], [0, 1, 2]]]
    seeds = [Predictions([], np.array([]), classes, p) for p in probabilities]
    assert Model("m", seeds).votes.tolist() == ["a", "c", "a"]


def test_the_newest_of_two_runs_of_a_seed_counts(runs: Any, compared: Any) -> None:
    """A repeated run is no second seed."""
    runs("old", range(24), info={"started_at": 1.0})
    runs("new", info={"started_at": 2.0})
    result = compared("old", "new")
    assert [run.info.folder.name for run in result.runs] == ["new"]
    assert any(" counts" in note for note in result.notes)


def test_baselines_are_there_and_may_be_better(runs: Any, compared: Any) -> None:
    """The most frequent class of train is always there; that a network loses to pixels must not be hidden."""
    result = compared(runs("net", range(0, 24, 2), model="resnet18"), runs("pixels", [0], model="pixels"))
    assert [model.name for model in result.candidates] == ["resnet18"]
    assert verdict(result).model.name == "pixels"
    (line,) = [line for line in verdict(result).cautions if line.startswith("pixels has the highest score")]
    for hint in ("model=hog_svm_grid and model=embed", "validation=kfold", "sweeper=NAME"):
        assert hint in line
    majority = result.models[-1]
    assert (majority.name, set(majority.votes), result.between) == ("majority class", {"b"}, [])


def test_records_that_every_model_gets_wrong_are_found(runs: Any, compared: Any) -> None:
    """By the vote of the seeds, and whatever the majority class is."""
    for seed, wrong in enumerate(([3, 5], [3, 6], [3, 5])):
        runs(f"s{seed}", wrong, seed=seed)
    result = compared("s0", "s1", "s2", runs("other", [3, 5, 9], model="deit_vpt"))
    assert [(record.path, record.label, record.agreed[:2]) for record in result.wrong] == [
        ("test/a/r03.png", "a", ("b", 2)),
        ("test/a/r05.png", "a", ("b", 2)),
    ]


def test_the_look_alikes_stand_by_themselves(runs: Any, compared: Any) -> None:
    """Their confusion counts only records that are one of them; the third class is kept apart."""
    result = compared(runs("one", [8, 16, 17]))
    (group,) = result.look_alikes
    assert group.confusion["hog_svm"] == [[7, 1, 0], [0, 6, 2]]
    # Shares of c: 0.1 of 0.9, but 0.8 of 0.9 for record 8, and 0.5 of those that are called a.
    assert group.curves["hog_svm"].auc == pytest.approx((6 * 7.5 + 2 * 7) / 64)
    f1 = [2 * 7 / 15, 2 * 6 / 15]
    assert result.scores["hog_svm"]["hard_pair_f1/bc"].value == pytest.approx(np.mean(f1))


def test_common_folds_are_tested_too(runs: Any, compared: Any) -> None:
    """Two cross-validated runs give the corrected resampled t-test; with one of them there is none."""
    one, other = runs("one", [0], model="deit_vpt", oof=True), runs("other", [0, 1, 2, 3, 9, 10, 17, 23], oof=True)
    folds = compared(one, other).between[0].folds
    assert (folds.dof, folds.mean > 0) == (7, True)
    assert compared(one, runs("third", [0, 1], model="resnet18")).between[0].folds is None


PLUGIN = """
from spectro.evaluation import register_metric

@register_metric("wrong_share", "share of wrong records")
def wrong_share(confusion, classes):
    return 1 - confusion.diagonal(0, -2, -1).sum(-1) / confusion.sum((-1, -2))
"""


def test_metrics_of_plugins_are_compared(runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric of a module that the user has named is in the tables too; one that only a run names costs a note."""
    (tmp_path / "plugin_of_a_comparison.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        load_plugins(["plugin_of_a_comparison"])
        settings = {"plugins": ["plugin_of_a_comparison", "no_such_plugin"]}
        result, folder = compare([runs("one", [0, 1, 2], settings=settings)], outputs=tmp_path / "outputs")
    finally:
        METRICS.pop("wrong_share", None)
    assert result.scores["hog_svm"]["wrong_share"].value == pytest.approx(3 / 24)
    assert "wrong_share_ci_low" in (folder / "table.csv").read_text()
    assert any("--plugin no_such_plugin" in note for note in result.notes)


REFUSED = {
    "other data": ({"fingerprint": "0" * 16}, "data fingerprint"),
    "other records": ({"truth": TRUTH[:-1]}, "the files, splits or classes of the data"),
    "other labels": ({"truth": [*TRUTH[:-1], "a"]}, "test/a/r23.png in test, a"),
    "failed": ({"info": {"status": "FAILED", "reason": "no memory"}}, "status FAILED, no memory"),
    "running": ({"info": {"status": "RUNNING"}}, "status RUNNING"),
    "trial": ({"info": {"tags": {"trial": "3"}}}, "a trial of a search"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compared_is_refused(name: str, runs: Any, compared: Any, tmp_path: Path) -> None:
    """A comparison over other records or labels would be no comparison; nothing is written."""
    changed, reason = REFUSED[name]
    with pytest.raises(SpectroError, match=re.escape(reason)) as caught:
        compared(runs("one"), runs("other", model="deit_vpt", **changed))
    assert "other" in str(caught.value)
    assert not (tmp_path / "outputs" / "comparison").exists()


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "message"),
    [
        ("records.csv", "train(?=,train/a/t0.png)", "val", r"got .* train/a/t0.png in val, a, in .*other"),
        ("predictions.csv", r"\bc\b(?!/)|(?<=p_)c", "bc", "has another label"),
    ],
    ids=["splits", "stage"],
)
def test_other_splits_and_stages_are_refused(
    file: str, pattern: str, replacement: str, message: str, runs: Any, compared: Any
) -> None:
    """The same images, dealt differently; the easy stage and the whole task do not answer one question."""
    one, other = runs("one"), runs("other")
    path = other / file
    path.write_text(re.sub(pattern, replacement, path.read_text()))
    with pytest.raises(SpectroError, match=message):
        compared(one, other)


def test_cascade_and_flat_runs_of_the_same_classes_are_compared(runs: Any, compared: Any) -> None:
    """Whether a cascade is worth it: the same records and final classes are enough, a flat mapping needs no groups."""
    flat = runs("flat", [0], mapping={"look_alikes": None, "name": "identity"})
    result = compared(flat, runs("full", [9], settings={"cascade_stage": {"name": "full"}}))
    assert [model.name for model in result.candidates] == ["hog_svm flat", "hog_svm cascade"]
    assert result.look_alikes[0].members == ("b", "c")


def test_of_a_folder_the_largest_set_of_comparable_runs_counts(runs: Any, compared: Any, tmp_path: Path) -> None:
    """An experiment or outputs/runs holds several data sets; what is named outright must be comparable."""
    kinds: list[dict[str, Any]] = [{}, {"fingerprint": "1" * 16}, {"fingerprint": "2" * 16}]
    folders = [runs(str(i), seed=i, **kind) for i, kind in enumerate([*kinds, *kinds[:2]])]
    result = compared(tmp_path / "outputs" / "runs")
    assert [run.info.folder.name for run in result.runs] == ["1", "4"]  # of two each the newest
    assert ["0, 3, 2: data fingerprints differ" in note or "0, 2, 3" in note for note in result.notes] == [True]
    result = compared(tmp_path / "outputs" / "runs", folders[2])
    assert [run.info.folder.name for run in result.runs] == ["2"]


@pytest.mark.parametrize("name", ["nonsense", "/no/such/place", "f" * 32, "", "\0"])
def test_what_is_no_run_is_refused(name: str, compared: Any) -> None:
    """One message, whatever was typed."""
    with pytest.raises(SpectroError, match=r"allowed"):
        compared(name)


@pytest.mark.parametrize("name", ["predictions.csv", "records.csv", "run.json"])
@pytest.mark.parametrize("content", [None, "", "split,path\ntest,x\n"])
def test_damaged_files_are_named(name: str, content: str | None, runs: Any, compared: Any) -> None:
    """What half a disk or an editor left is no traceback."""
    path = runs("one") / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(SpectroError, match=re.escape(name)):
        compared("one")


def test_of_a_folder_the_usable_runs_count(runs: Any, compared: Any, tmp_path: Path) -> None:
    """A sweep with a failed job is compared without it, with a note; a run is not counted twice; sweeps are opened."""
    runs("0"), runs("1", seed=1), runs("2", seed=2, info={"status": "FAILED", "reason": "no memory"})
    folder = tmp_path / "outputs" / "runs"
    (folder / "sweep").mkdir()
    shutil.copy(runs("3", seed=3) / "run.json", folder / "sweep")
    (folder / "3").rename(folder / "sweep" / "3")
    result = compared(folder, folder / "1")
    assert [run.info.folder.name for run in result.runs] == ["0", "1", "3"]
    assert "named twice" in result.notes[0]
    assert "2: not finished (status FAILED, no memory)" in result.notes[1]
    assert [run.info.folder.name for run in compared(tmp_path / "outputs").runs] == ["0", "1", "3"]


def test_the_report_needs_nothing_besides_itself_and_overwrites_nothing(runs: Any, tmp_path: Path) -> None:
    """It is sent by mail, and a label may hold anything; tables hold what is shown."""
    evil, outputs = "<script>alert(1)</script>", tmp_path / "outputs"
    one = runs("one", [0, 9], model="deit_vpt", info={"data": {"name": evil, "fingerprint": "f" * 16, "root": evil}})
    result, folder = compare([one, runs("two", [9])], outputs=outputs)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert all(address.startswith(("data:", "#")) for address in re.findall(r"""(?:src|href)=["']?([^"'>]*)""", text))
    assert text.count("<svg") == 4  # reliability of each, ROC and precision-recall of the pair
    assert len(text) < 100_000
    # Whatever the contents list names is there.
    assert set(re.findall(r'href="#(\w+)"', text)) == set(re.findall(r'id="(\w+)"', text))
    assert "test/b/r09.png" in text
    rows = {row["model"]: row for row in read_rows(folder / "table.csv")}
    assert {name: row["role"] for name, row in rows.items()} == {
        "deit_vpt": "model",
        "hog_svm": "model",
        "majority class": "baseline",
    }
    assert float(rows["hog_svm"]["mcc"]) == result.scores["hog_svm"]["mcc"].value
    assert (rows["hog_svm"]["recall/b"], rows["hog_svm"]["support/b"]) == ("0.875", "8")
    assert "| class | n | deit_vpt | hog_svm | majority class |" in (folder / "table.md").read_text()
    assert read_json(folder / "comparison.json")["n_records"] == 24
    assert any("the baseline pixels" in note and "no longer in" in note for note in result.notes)
    with pytest.raises(SpectroError, match="--out"):
        compare([one], outputs=outputs, out=folder)
    assert compare([one], outputs=outputs, out=tmp_path / "mine")[1] == tmp_path / "mine"
