"""Comparisons of runs: what may be compared, who is one contender, and what is said of them. Runs are made of files."""

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectro.comparison import compare
from spectro.errors import SpectroError

CLASSES = ("a", "b", "c")
LOOK_ALIKES = {"bc": ["b", "c"]}
TRUTH = ["a"] * 8 + ["b"] * 8 + ["c"] * 8


def make_run(
    folder: Path,
    wrong: Sequence[int] = (),
    *,
    model: str = "hog_svm",
    seed: int = 0,
    truth: Sequence[str] = TRUTH,
    settings: Mapping[str, Any] | None = None,
    info: Mapping[str, Any] | None = None,
    mapping: Mapping[str, Any] | None = None,
    fingerprint: str = "f" * 16,
    oof: bool = False,
) -> Path:
    """A finished run that gets some of the test records wrong: it calls them the next class."""
    folder.mkdir(parents=True)
    number = {label: i for i, label in enumerate(CLASSES)}
    said = [CLASSES[(number[label] + (i in wrong)) % 3] for i, label in enumerate(truth)]
    rows = [
        [
            "test",
            f"test/{label}/r{i:02d}.png",
            f"r{i:02d}",
            label,
            called,
            *(0.8 if c == called else 0.1 for c in CLASSES),
        ]
        for i, (label, called) in enumerate(zip(truth, said, strict=True))
    ]
    header = ["split", "path", "source", "label", "predicted", *(f"p_{c}" for c in CLASSES)]
    write(folder / "predictions.csv", header, rows)
    places = [[split, path, source, label, label, f"sha{path}"] for split, path, source, label, *_ in rows]
    places += [
        ["train", f"train/{c}/t{i}.png", f"t{c}{i}", c, c, f"shat{c}{i}"]
        for c in CLASSES
        for i in range(2 + (c == "b"))
    ]
    write(folder / "records.csv", ["split", "path", "source", "folder", "label", "sha256"], places)
    if oof:
        header = ["repeat", "fold", "path", "source", "label", "predicted", *(f"p_{c}" for c in CLASSES)]
        write(
            folder / "oof_predictions.csv",
            header,
            [
                [repeat, i % 4 + 1, f"train/x/{i}.png", f"x{i}", label, called, 0.8, 0.1, 0.1]
                for repeat in (1, 2)
                for i, (label, called) in enumerate(zip(truth, said, strict=True))
            ],
        )
    content = {
        "status": "FINISHED",
        "reason": None,
        "run_name": f"{model} flat seed {seed}",
        "experiment": "field",
        "started_at": 1000.0 + seed,
        "tags": {"model": model, "stage": "flat", "mapping": "field"},
        "config": {
            "model": {"name": model, "family": model},
            "cascade_stage": {"name": "flat"},
            "mapping": {
                "name": "field",
                "classes": None,
                "left_out": [],
                "look_alikes": LOOK_ALIKES,
                **(mapping or {}),
            },
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
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function that compares without drawing."""
    monkeypatch.setattr("spectro.comparison.write.draw", lambda *_: {})
    return lambda *names, **kwargs: compare(names, outputs=tmp_path / "outputs", **kwargs)


def test_a_model_that_gets_more_records_right_is_called_better(runs: Any, compared: Any) -> None:
    """The sentence that all this is for."""
    good, bad = runs("good", [0], model="deit_vpt"), runs("bad", range(0, 24, 2))
    result, folder = compared(good, bad)
    assert result.verdict.headline.startswith("deit_vpt is the best: macro-F1 0.96 [")
    (said,) = result.verdict.between
    assert re.match(
        r"deit_vpt is better than hog_svm: \+0\.46 \[0\.\d\d, 0\.\d\d\] \(p < 0\.001\); with 24 test records this test "
        r"cannot see differences under 0\.\d\d\. McNemar's exact test on the records agrees \(11 records only deit_vpt",
        said,
    )
    assert {path.name for path in folder.iterdir()} == {
        "run.json",
        "table.csv",
        "table.md",
        "comparison.json",
        "report.html",
    }


def test_equal_models_cannot_be_told_apart(runs: Any, compared: Any) -> None:
    """Two models that fail in as many records must not be ranked."""
    result, _ = compared(runs("one", [0, 9, 17], model="deit_vpt"), runs("other", [1, 10, 18]))
    assert result.verdict.headline.startswith("No model is shown to be the best")
    assert "cannot be told apart: +0.00 [-" in result.verdict.between[0]


def test_few_records_show_nothing(runs: Any, compared: Any) -> None:
    """A bootstrap of a handful of records is too sure of itself: five differences are no proof."""
    result, _ = compared(runs("good", model="deit_vpt"), runs("bad", [0, 1, 8, 9, 16]))
    assert result.between[0].difference.ci_low > 0
    assert "looks better than hog_svm" in result.verdict.between[0]
    assert result.verdict.headline.startswith("No model is shown to be the best")


def test_seeds_are_one_contender_and_settings_are_another(runs: Any, compared: Any) -> None:
    """Five seeds must not look like five models, nor two settings like one."""
    small, large = {"svm": {"C": 1.0, "gamma": 1}}, {"svm": {"C": 10.0, "gamma": 1}}
    for seed in range(3):
        runs(f"small{seed}", [seed], seed=seed, settings=small)
    runs("large", settings=large)
    result, _ = compared("small1", "small0", "large", "small2")
    assert {one.name: one.seeds for one in result.models} == {
        "hog_svm (svm.C=1.0)": [0, 1, 2],
        "hog_svm (svm.C=10.0)": [0],
    }
    assert result.settings == {"svm.C": {"hog_svm (svm.C=1.0)": "1.0", "hog_svm (svm.C=10.0)": "10.0"}}
    assert result.scores["hog_svm (svm.C=1.0)"].averages["macro_f1"].std_seeds is not None
    assert result.cost["hog_svm (svm.C=1.0)"]["fit_s"] == 3.0


def test_seeds_do_not_pretend_more_records(runs: Any, compared: Any) -> None:
    """A recall's interval from five seeds of the same wrong records is that of one seed."""
    once, _ = compared(runs("one", [0, 1], model="deit_vpt"))
    several, _ = compared(*(runs(f"s{seed}", [0, 1], seed=seed) for seed in range(5)))
    assert once.scores["deit_vpt"].recall == several.scores["hog_svm"].recall
    assert once.scores["deit_vpt"].recall["a"]["support"] == 8


def test_the_newest_of_two_runs_of_a_seed_counts(runs: Any, compared: Any) -> None:
    """A repeated run is no second seed."""
    runs("old", range(24), info={"started_at": 1.0})
    runs("new", info={"started_at": 2.0})
    result, _ = compared("old", "new")
    assert [run.folder.name for run in result.runs] == ["new"]
    assert any(" counts" in note for note in result.notes)


def test_one_run_is_compared_with_the_lines(runs: Any, compared: Any) -> None:
    """Without a rival there is still something to beat; that images are gone is said."""
    result, _ = compared(runs("one"))
    assert result.verdict.headline == "hog_svm reaches macro-F1 1.00 [0.87, 1.00] on 24 test records."
    assert result.verdict.against == ["hog_svm beats the majority class."]
    assert [one.name for one in result.lines] == ["majority class"]
    assert set(result.lines[0].votes) == {"b"}
    assert (
        "the pixels line (logistic regression on 20x15 grey pixels) is left out: the images are no longer in"
        in (result.notes[-1])
    )


def test_a_family_that_does_not_beat_pixels_is_said_not_to(runs: Any, compared: Any) -> None:
    """And a pixels run that is there is the line: it is not fitted again, and not a rival."""
    result, _ = compared(runs("net", range(0, 24, 2), model="resnet18"), runs("line", [0], model="pixels"))
    assert result.verdict.against[0].startswith("resnet18 does not beat the pixels line, it is worse: -0.46 [-0.")
    assert [one.name for one in result.models] == ["resnet18"]
    assert result.verdict.between == []


def test_records_that_every_model_gets_wrong_are_found(runs: Any, compared: Any) -> None:
    """By the vote of the seeds, and whatever the lines say."""
    for seed, wrong in enumerate(([3, 5], [3, 6], [3, 5])):
        runs(f"s{seed}", wrong, seed=seed)
    result, folder = compared("s0", "s1", "s2", runs("other", [3, 5, 9], model="deit_vpt"))
    assert [(one.path, one.label, one.agreed[:2]) for one in result.wrong] == [
        ("test/a/r03.png", "a", ("b", 2)),
        ("test/a/r05.png", "a", ("b", 2)),
    ]
    assert "test/a/r05.png" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_look_alikes_stand_by_themselves(runs: Any, compared: Any) -> None:
    """Their confusion counts only records that are one of them; the third class is kept apart."""
    result, _ = compared(runs("one", [8, 16, 17]))
    (group,) = result.look_alikes
    assert group.support == {"b": 8, "c": 8}
    assert group.confusion["hog_svm"] == [[7, 1, 0], [0, 6, 2]]
    assert group.truth is not None
    assert np.allclose(group.second["hog_svm"][[0, 1, 8, 9]], [0.8 / 0.9, 0.1 / 0.9, 0.5, 0.5])
    f1 = [2 * 7 / 15, 2 * 6 / 15]
    assert result.scores["hog_svm"].pair_f1["bc"].value == pytest.approx(np.mean(f1))


def test_common_folds_are_tested_too(runs: Any, compared: Any) -> None:
    """Two cross-validated runs give the corrected resampled t-test; with one of them there is none."""
    one, other = runs("one", [0], model="deit_vpt", oof=True), runs("other", [0, 1, 2, 3, 9, 10, 17, 23], oof=True)
    result, _ = compared(one, other)
    folds = result.between[0].folds
    assert (folds.repeats, folds.k, folds.n_records, folds.test.dof) == (2, 4, 24, 7)
    assert "Over 2 x 4 folds of train and val: +0." in result.verdict.between[0]
    result, _ = compared(one, runs("third", [0, 1], model="pixels_like"))
    assert result.between[0].folds is None


REFUSED = {
    "other data": ({"fingerprint": "0" * 16}, "data fingerprint"),
    "other mapping": ({"mapping": {"look_alikes": {"ab": ["a", "b"]}}}, "mapping.look_alikes"),
    "left out": ({"mapping": {"left_out": ["d"]}}, "mapping.left_out"),
    "other records": ({"truth": TRUTH[:-1]}, "the files of the data"),
    "other labels": ({"truth": [*TRUTH[:-1], "a"]}, "the files of the data"),
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


def test_other_splits_are_refused_with_an_example(runs: Any, compared: Any) -> None:
    """The same images, dealt differently."""
    one, other = runs("one"), runs("other")
    path = other / "records.csv"
    path.write_text(path.read_text().replace("train,train/a/t0.png", "val,train/a/t0.png"))
    with pytest.raises(
        SpectroError, match=r"the splits differ(.|\n)*train/a/t0.png is in train of the first and in val"
    ):
        compared(one, other)


def test_stages_that_tell_other_classes_apart_are_refused(runs: Any, compared: Any) -> None:
    """The easy stage and the whole task do not answer one question."""
    one, other = runs("one"), runs("other")
    path = other / "predictions.csv"
    path.write_text(re.sub(r"\bc\b(?!/)", "bc", path.read_text()).replace("p_c", "p_bc"))
    with pytest.raises(
        SpectroError, match=r"the classes that they tell apart differ(.|\n)*a, b, c in(.|\n)*a, b, bc in"
    ):
        compared(one, other)


@pytest.mark.parametrize("name", ["nonsense", "/no/such/place", "f" * 32, "", "\0"])
def test_what_is_no_run_is_refused(name: str, compared: Any) -> None:
    """One message, whatever was typed."""
    with pytest.raises(SpectroError, match=r"allowed"):
        compared(name)


@pytest.mark.parametrize("name", ["predictions.csv", "records.csv", "run.json"])
@pytest.mark.parametrize("content", [None, "", "{", "split,path\ntest,x\n", "\0"])
def test_damaged_files_are_named(name: str, content: str | None, runs: Any, compared: Any) -> None:
    """What half a disk or an editor left is no traceback."""
    path = runs("one") / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(SpectroError, match=re.escape(name)):
        compared("one")


def test_of_a_folder_the_usable_runs_count(runs: Any, compared: Any, tmp_path: Path) -> None:
    """A sweep with a failed job is compared without it, and says so; a run is not counted twice."""
    runs("0"), runs("1", seed=1), runs("2", seed=2, info={"status": "FAILED", "reason": "no memory"})
    folder = tmp_path / "outputs" / "runs"
    result, _ = compared(folder, folder / "1")
    assert [run.folder.name for run in result.runs] == ["0", "1"]
    assert result.notes[0].endswith("2: not finished (status FAILED, no memory)")
    assert result.notes[1].endswith("was named twice and counts once")


def test_nothing_is_overwritten(runs: Any, compared: Any, tmp_path: Path) -> None:
    """Two comparisons in a second get two folders, and a folder in use is refused."""
    _, first = compared(runs("one"))
    _, second = compared("one")
    assert first != second
    with pytest.raises(SpectroError, match="--out"):
        compared("one", out=first)
    assert compared("one", out=tmp_path / "mine")[1] == tmp_path / "mine"


class _Page(HTMLParser):
    """Addresses and tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href")]


def test_the_page_needs_nothing_besides_itself(runs: Any, tmp_path: Path) -> None:
    """It is sent by mail and opened on a phone, and a label may hold anything."""
    evil = "<script>alert(1)</script>"
    one = runs("one", [0, 9], model="deit_vpt", info={"data": {"name": evil, "fingerprint": "f" * 16, "root": evil}})
    (one / "figures").mkdir()
    (one / "figures" / "attribution_test.png").write_bytes(b"\x89PNG")
    _, folder = compare([one, runs("two", [9])], outputs=tmp_path / "outputs")
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert "script" not in page.tags
    assert "link" in page.tags
    assert all(address.startswith("data:") for address in page.addresses)
    assert page.tags.count("img") == 4  # scores, recall, the pair, attribution
    assert "url(" not in text
    assert 'name="viewport"' in text
    assert "&lt;script&gt;" in text
    assert "{{" not in text


def test_tables_hold_what_is_shown(runs: Any, compared: Any) -> None:
    """``table.csv`` is for a program, ``table.md`` for a README."""
    result, folder = compared(runs("one", [0]), runs("two", [0, 1, 2], model="deit_vpt"))
    with (folder / "table.csv").open(newline="") as file:
        rows = {row["contender"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["hog_svm", "deit_vpt", "majority class"]
    assert float(rows["hog_svm"]["macro_f1"]) == result.scores["hog_svm"].averages["macro_f1"].value
    assert (rows["hog_svm"]["recall/a"], rows["hog_svm"]["support/a"]) == ("0.875", "8")
    text = (folder / "table.md").read_text()
    assert "| class | n | hog_svm | deit_vpt | majority class |" in text
    json.loads((folder / "comparison.json").read_text())
