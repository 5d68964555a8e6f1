"""The review of labels: wrong ones, near-duplicates, images to label next, and classes that look alike."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import read_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spectro.cli import main as cli
from spectro.data import Record
from spectro.errors import DataError
from spectro.labels.audit import write_corrected
from spectro.labels.look_alikes import confusions, groups_of_look_alikes
from spectro.labels.runs import read_kfold_run
from spectro.labels.suggest import choose
from spectro.runs.predictions import Predictions
from spectro.runs.runinfo import RunInfo

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Two classes that are alike, and a third one; as names of folders.
ALIKE, OTHER = ["b ${oc.env:HOME}", "<img src=x onerror=\"document.title='ran'\">"], "c"
# Of the third class, and not in its folder; and a re-encoded copy of test/c/ec00.png.
WRONG, TWIN = Path("train", ALIKE[0], "wrong.png"), Path("train", OTHER, "twin.jpg")


def draw(path: Path, label: str, rng: np.random.Generator) -> None:
    """An image of noise; the third class is bright on its left side."""
    pixels = rng.integers(0, 90, (32, 32))
    pixels[:, :16] += 120 * (label == OTHER)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose two alike classes no model can tell apart, one with the wrong label, and a near-duplicate."""
    root, rng = tmp_path_factory.mktemp("labels") / "records", np.random.default_rng(0)
    for label in (*ALIKE, OTHER):
        for split, n in (("train", 12), ("val", 4), ("test", 4)):
            for i in range(n):
                draw(root / split / label / f"{split[1]}{label[:1]}{i:02d}.png", label, rng)
    draw(root / WRONG, OTHER, rng)
    Image.open(root / "test" / OTHER / "ec00.png").save(root / TWIN, quality=90)
    return root


@pytest.fixture(scope="module")
def flat_run(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat run with out-of-fold predictions."""
    from spectro.runs import run as experiment

    words = ["data=folder", f"data.root={records}", "model=pixels", "cascade_stage=flat", "validation=kfold"]
    folder = tmp_path_factory.mktemp("outputs") / "run"
    folder.mkdir()
    fixed = ["validation.k=4", "tracking.uri=null", "data.cache_dir=null", "figures=none"]
    experiment.run(cli.composed([*words, *fixed]), folder, quiet=True)
    return folder


def predictions(true: str, predicted: str, sources: list[int] | None = None) -> Predictions:
    """Predictions whose classes are letters."""
    classes = np.array(sorted(set(true)), dtype=object)
    p = np.array([[0.8 if c == label else 0.2 / (len(classes) - 1) for c in classes] for label in predicted])
    names = sources or range(len(true))
    found = [
        Record(Path(f"{i}.png"), "", "", str(s), label=y) for i, (s, y) in enumerate(zip(names, true, strict=True))
    ]
    return Predictions(found, np.array(list(true), dtype=object), classes, p)


def test_confusion_beyond_chance_counts_sources_and_makes_cliques() -> None:
    """Ten records of one source are one observation, and a class that merely neighbours both ends joins no group."""
    true, predicted = "a" * 20 + "b" * 20 + "c" * 20, "a" * 12 + "b" * 20 + "a" * 8 + "c" * 20
    (first, *others) = confusions([predictions(true, predicted)])
    assert (first.classes, first.n, first.confused, first.wrong) == (("a", "b"), (20, 20), 16, 16)
    # Three classes of one size: a third of the wrong predictions is of each pair; Holm multiplies by three.
    assert (first.chance, first.p_value) == (pytest.approx(1 / 3), pytest.approx(3 * 3.0**-16))
    assert not any(pair.is_beyond_chance for pair in others)
    assert groups_of_look_alikes([first, *others]) == {"a or b": ["a", "b"]}
    one_source = [0] * 8 + list(range(1, 13)) + [100] * 8 + list(range(101, 133))
    wrong_together = "b" * 8 + "a" * 12 + "a" * 8 + "b" * 12 + "c" * 20
    (first, *_) = confusions([predictions(true, wrong_together, one_source)])
    assert (first.confused, first.n, first.is_beyond_chance) == (2, (13, 13), False)
    with pytest.raises(DataError, match="got 2 classes; allowed: three or more"):
        confusions([predictions("aabb", "abab")])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde")), min_size=1, max_size=60))
def test_chance_covers_all_pairs_and_groups_never_hold_all_classes(pairs: list[tuple[str, str]]) -> None:
    """An easy stage of a single class would be no stage."""
    true, predicted = ("".join(letters) + "abcde" for letters in zip(*pairs, strict=True))
    found = confusions([predictions(true, predicted)])
    assert sum(pair.chance for pair in found) == pytest.approx(1)
    groups = groups_of_look_alikes(found)
    members = [label for group in groups.values() for label in group]
    assert len(members) == len(set(members))
    assert all(len(group) < 5 for group in groups.values())


def test_look_alikes_become_a_mapping_that_a_cascade_takes(
    flat_run: Path, records: Path, tmp_path: Path, spectro: Callable[..., Any], run_here: Callable[..., Path]
) -> None:
    """The file is valid, whatever the folders are called; the cascade that is named gives the numbers of the one fitted
    here; a run of another kind is refused with the command that makes the right one."""
    done = spectro("look-alikes", flat_run)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "look_alikes").iterdir()
    assert [row["look_alike"] for row in read_rows(folder / "pairs.csv")].count("True") == 1
    words = ["data=folder", f"data.root={records}", "model=pixels", "validation=kfold", "validation.k=4"]
    words += [f"hydra.searchpath=['{folder}']", "mapping=look_alikes"]
    (members,) = cli.composed(words).mapping.look_alikes.values()
    assert members == sorted(ALIKE)
    comparison = next(line for line in done.stdout.splitlines() if "macro-F1" in line)
    assert "is not shown to be better than" in comparison
    cascade = run_here(*words, name="cascade")
    named = spectro("look-alikes", flat_run, "--cascade", cascade)
    assert comparison in named.stdout, named.stderr
    made = len(list((tmp_path / "outputs" / "look_alikes").iterdir()))
    trial = RunInfo.read(flat_run)
    trial.folder, trial.data = tmp_path / "trial", None
    trial.folder.mkdir()
    trial.write()
    assert "a trial of one, or a comparison; allowed: a finished run" in spectro("look-alikes", trial.folder).stderr
    for run in (cascade, run_here(*words[:3], "cascade_stage=flat", name="holdout")):
        done = spectro("look-alikes", run)
        assert done.returncode == 2
        command = done.stderr.splitlines()[1].split()
        assert command[:2] == ["spectro", "train"]
        assert command[-2:] == ["cascade_stage=flat", "validation=kfold"]
    assert len(list((tmp_path / "outputs" / "look_alikes").iterdir())) == made


def test_an_audit_finds_what_is_wrong_and_applies_what_a_person_decides(
    flat_run: Path, records: Path, tmp_path: Path, spectro: Callable[..., Any], run_here: Callable[..., Path]
) -> None:
    """The flipped label ranks first, the copy across the splits is found, and the corrected copy trains. The user's
    files stay as they are, and a table that does not fit is refused as a whole."""
    pytest.importorskip("cleanlab")
    before = {path: path.read_bytes() for path in records.rglob("*.*g")}
    done = spectro("audit", flat_run)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "audit").iterdir()
    rows = read_rows(folder / "audit.csv")
    assert len(rows) == len(before)
    assert (rows[0]["path"], rows[0]["suggested"], rows[0]["issue"]) == (WRONG.as_posix(), OTHER, "True")
    assert all(row["suggested"] == "" for row in rows if row["split"] == "test")
    (pair,) = [row for row in read_rows(folder / "duplicates.csv") if row["differs_in"]]
    assert (pair["path_a"], pair["path_b"], pair["differs_in"]) == ("test/c/ec00.png", TWIN.as_posix(), "split")

    header, *lines = (folder / "audit.csv").read_text(encoding="utf-8").splitlines()
    edited = [line + OTHER * line.startswith("1,") for line in lines if TWIN.as_posix() not in line.split(",")[1]]
    for wrong, message in (
        ([*edited, edited[0]], "twice; allowed: each record of RUN once"),
        ([edited[0][: -len(OTHER)] + "d", *edited[1:]], "new_label of train/b ${oc.env:HOME}/wrong.png: got 'd'"),
        ([], "no rows"),
    ):
        (tmp_path / "edited.csv").write_text("\n".join([header, *wrong]), encoding="utf-8")
        done = spectro("audit", flat_run, "--apply", tmp_path / "edited.csv")
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
        assert not (tmp_path / "labels.csv").exists()
    run = read_kfold_run(flat_run, ["flat"], [])
    run.info.config["mapping"]["look_alikes"] = {"alike": ALIKE}
    rest = [line for line in edited if f"/{ALIKE[0]}/" not in line]
    (tmp_path / "edited.csv").write_text("\n".join([header, *rest]), encoding="utf-8")
    with pytest.raises(DataError, match=r"label 'b \$.*': got no row"):
        write_corrected(run, tmp_path / "edited.csv", tmp_path / "labels.csv")
    (tmp_path / "edited.csv").write_text("\n".join([header, *edited]), encoding="utf-8-sig")
    odd = tmp_path / "a=[b], it's (${1})"
    odd.mkdir()
    done = spectro("audit", flat_run, "--apply", tmp_path / "edited.csv", "--out", odd / "labels.csv")
    words = shlex.split(next(line for line in done.stdout.splitlines() if line.startswith("train:")))
    data = cli.composed([word for word in words if word.startswith("data")]).raw["data"]
    assert data["table"] == str(odd / "labels.csv")
    done = spectro("audit", flat_run, "--apply", tmp_path / "edited.csv")
    assert done.stdout.startswith("1 labels changed, 1 of 62 records left out"), done.stderr
    assert "data=table data.table=" in done.stdout
    again = run_here("data=table", f"data.table={tmp_path / 'labels.csv'}", f"data.root={records}", "model=pixels")
    changed = {row["path"]: row["label"] for row in read_rows(again / "records.csv")}
    original = {row["path"]: row["label"] for row in read_rows(flat_run / "records.csv")}
    assert changed == {**{k: v for k, v in original.items() if k != TWIN.as_posix()}, WRONG.as_posix(): OTHER}
    assert spectro("audit", flat_run, "--apply", tmp_path / "edited.csv").returncode == 2  # labels.csv is there
    assert {path: path.read_bytes() for path in records.rglob("*.*g")} == before


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_of_an_audit_shows_images_and_runs_nothing(
    flat_run: Path, tmp_path: Path, spectro: Callable[..., Any]
) -> None:
    """A label that is HTML stays text. The probe at the end of the page shows that the browser does run scripts."""
    pytest.importorskip("cleanlab")
    assert spectro("audit", flat_run).returncode == 0
    (page,) = (tmp_path / "outputs" / "audit").glob("*/audit.html")
    text = page.read_text(encoding="utf-8")
    probe = "<script>document.body.id = [...document.images].filter(i => i.naturalWidth > 0).length</script>"
    policy = next(line for line in text.splitlines() if "Content-Security-Policy" in line)
    # Without its policy nothing but the escaping holds a label back.
    (tmp_path / "probe.html").write_text(text.replace(policy, "").replace("</body>", f"{probe}</body>"), "utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--dump-dom", (tmp_path / "probe.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    assert text.count('<img src="data:image/jpeg') == text.count("<img") > 0
    assert f'<body id="{text.count("<img")}">' in done.stdout
    assert "<title>Labels of records" in done.stdout
    assert "<script" not in text


def test_a_missing_extra_is_one_message(
    flat_run: Path, tmp_path: Path, spectro: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names what to install, before anything is read or written."""
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    done = spectro("audit", flat_run)
    assert (done.returncode, done.stderr) == (2, "error: cleanlab is not installed; pip install 'spectro[audit]'\n")
    assert not (tmp_path / "outputs").exists()


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 99))
def test_chosen_images_differ_and_hold_the_least_certain_one(n_images: int, n: int, seed: int) -> None:
    """An image twice in a batch, or a batch without the image that the model knows least about, wastes an hour."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(3), n_images)
    rows = choose(rng.normal(size=(n_images, 4)), p, n)
    assert len(set(rows.tolist())) == len(rows) == min(n, n_images)
    assert rows[0] == np.diff(np.sort(p, axis=1)[:, 1:])[:, 0].argmin()


def test_one_image_of_each_kind_is_chosen() -> None:
    """Twenty shots of one station at one hour are the least certain, and say the same twenty times."""
    margin = np.linspace(0, 0.9, 30)
    p = np.stack([0.5 + margin / 2, 0.5 - margin / 2], axis=1)
    features = np.repeat([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], [20, 5, 5], axis=0)
    assert choose(features + np.random.default_rng(0).normal(0, 0.1, (30, 2)), p, 3).tolist() == [0, 20, 25]


def test_suggestions_leave_out_what_is_labelled_and_what_is_no_image(
    flat_run: Path, records: Path, tmp_path: Path, spectro: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the run's records, under whatever name, is not suggested again; a folder of nothing else is refused. A
    whole batch that holds no image is passed over."""
    new, rng = tmp_path / "new", np.random.default_rng(1)
    for i in range(8):
        draw(new / f"{i}.png", ALIKE[0], rng)
    shutil.copy(next((records / "train" / OTHER).iterdir()), new / "old.png")
    shutil.copy(new / "0.png", new / "twice.png")
    (new / "bad.png").write_bytes(b"no image")
    monkeypatch.setattr("spectro.runs.predict._BATCH", 8)
    done = spectro("suggest", flat_run, new, "-n", 5)
    assert (done.returncode, "bad.png" in done.stderr) == (3, True), done.stderr
    assert done.stdout.startswith("5 of 8 images; 2 more")
    (folder,) = (tmp_path / "outputs" / "suggest").iterdir()
    rows = read_rows(folder / "suggest.csv")
    assert len({row["path"] for row in rows}) == 5
    assert {Path(row["path"]).stem for row in rows} <= set("01234567")
    assert [row["label"] for row in rows] == [""] * 5
    assert (folder / "suggest.html").read_text(encoding="utf-8").count("data:image/jpeg") == 5
    done = spectro("suggest", flat_run, records / "test")
    assert (done.returncode, "got no image to label" in done.stderr) == (2, True)
    assert len(list((tmp_path / "outputs" / "suggest").iterdir())) == 1
