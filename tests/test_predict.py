"""Classifying new images: inputs, the table, killed and resumed commands, folders of sorted images, warnings."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import read_rows, save_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spectro.cli import main as cli
from spectro.data.decode import BadImageError
from spectro.data.inputs import find_inputs
from spectro.data.look import LookCheck, look_of, ranges_of
from spectro.errors import DataError
from spectro.files import draft_of
from spectro.runs import predict, prediction_table, sorted_images
from spectro.runs.predict import Predictor
from spectro.runs.prediction_table import PredictionTable
from spectro.runs.sorted_images import folder_name, sort_into


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Path:
    """A finished cascade of logistic regressions on pixels."""
    from spectro.runs.run import run

    folder = tmp_path_factory.mktemp("predict") / "run"
    folder.mkdir()
    words = [f"data.demo_dir={demo_root}", "data.scale=0.1", "data.cache_dir=null", "tracking.uri=null"]
    run(cli.composed([*words, "model=pixels", "figures=none"]), folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, demo_root: Path) -> Path:
    """Ten images and a file that is none."""
    folder = tmp_path_factory.mktemp("new") / "new"
    folder.mkdir()
    for number, path in enumerate(sorted((demo_root / "train").rglob("*.png"))[:10]):
        shutil.copy(path, folder / f"{number}.png")
    (folder / "5b.png").write_text("no image")
    return folder


def rows_of(path: Path) -> list[dict[str, object]]:
    """The rows of a table of any format, with the values that JSON has."""
    if path.suffix == ".parquet":
        return pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return list(map(prediction_table._values, read_rows(path)))


def test_all_formats_hold_the_same_rows(run_dir: Path, images: Path, tmp_path: Path, spectro: Callable) -> None:
    """A number, an empty cell or a flag must not depend on the ending of the file."""
    tables = []
    for ending in ("csv", "jsonl", "parquet"):
        out, sheet = tmp_path / f"out.{ending}", tmp_path / f"{ending}.png"
        done = spectro("predict", run_dir, images, "--out", out, "--contact-sheet", sheet)
        assert (done.returncode, done.stdout) == (3, "")
        assert "5b.png: not a PNG" in done.stderr
        tables.append(rows_of(out))
        with Image.open(sheet) as image:
            assert image.width > 300
    assert tables[0] == tables[1] == tables[2]
    good, bad = tables[0][0], tables[0][6]
    assert list(good)[:2] + list(good)[-2:] == ["path", "prediction", "review", "reason"]
    assert {name for name in good if name.startswith("easy/p_")}
    assert (bad["prediction"], bad["review"], bad["reason"]) == (None, True, "not a PNG, JPEG, TIFF, BMP or WebP image")
    assert sorted(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_whole_table_is_compared_before_it_is_left_as_it_is(
    ending: str, run_dir: Path, images: Path, tmp_path: Path, spectro: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script with --resume must learn of bad images again, of new ones, and of another model."""
    out, command = tmp_path / f"out.{ending}", ["predict", run_dir, images, "--out", tmp_path / f"out.{ending}"]
    with mock.patch.object(Predictor, "thumbnail", side_effect=BadImageError("it has vanished")):
        assert spectro(*command, "--contact-sheet", tmp_path / "a.png").returncode == 3
    whole, files = out.read_bytes(), set(tmp_path.iterdir())
    done = spectro(*command, "--resume", "--contact-sheet", tmp_path / "a.png")
    assert (done.returncode, "whole already" in done.stderr) == (3, True)
    assert set(tmp_path.iterdir()) - files == {tmp_path / "a.png"}
    for changed, message in (
        (["predict", run_dir, images / "0.png", "--out", out], "not among the images"),
        ([*command[:3], save_image(tmp_path / "more" / "more.png"), "--out", out], "has no .*more.png"),
    ):
        done = spectro(*changed, "--resume")
        assert (done.returncode, bool(re.search(message, done.stderr))) == (2, True), done.stderr
    rows_of_model = Predictor.rows_of
    with mock.patch.object(
        Predictor, "rows_of", lambda self, batch: [[*r[:2], 0.55, *r[3:]] for r in rows_of_model(self, batch)]
    ):
        done = spectro(*command, "--resume")
    assert (done.returncode, "another model" in done.stderr, out.read_bytes()) == (2, True, whole)
    if ending == "parquet":
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        done = spectro("predict", run_dir, images, "--out", tmp_path / "new.parquet")
        assert (done.returncode, "pyarrow" in done.stderr, list(tmp_path.glob("new*"))) == (2, True, [])


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_rows_are_predict_proba_in_any_batch(run_dir: Path, images: Path, data: st.DataObject) -> None:
    """A row must not depend on the images beside it, nor on how many are classified together."""
    predictor, inputs = Predictor(run_dir / "model"), find_inputs([images])
    some = data.draw(st.lists(st.sampled_from(inputs), unique_by=lambda item: item.name))
    with mock.patch.object(predict, "_BATCH", data.draw(st.integers(1, 12))):
        rows = [row for batch in predictor.stream(some) for row in predictor.rows_of(batch)]
    assert [row[0] for row in rows] == [item.name for item in some]
    k = len(predictor.classifier.classes_)
    for item, row in zip(some, rows, strict=True):
        if item.path.name != "5b.png":
            predictions, _ = predict.predict_files(run_dir / "model", [item.path])
            assert row[1] == predictions.predicted[0]
            assert row[2 : 2 + k] == predictions.probabilities[0].tolist()


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at_call(cls: type, name: str, number: int, *, before: bool, cut: int = 0) -> None:
    """Kills this process at a call of a method, before or after its work, and cuts the draft by some bytes."""
    method, calls = getattr(cls, name), iter(range(1, 10**6))

    def spied(self: PredictionTable, *args: object) -> object:
        is_now = next(calls) == number
        if is_now and before:
            _die()
        result = method(self, *args)
        if is_now:
            if cut:
                os.truncate(self._draft, self._draft.stat().st_size - cut)
            _die()
        return result

    setattr(cls, name, spied)


MOMENTS: dict[str, Callable[[], None]] = {
    "before the first row": lambda: _at_call(Predictor, "_classify", 1, before=True),
    "before a batch is written": lambda: _at_call(PredictionTable, "append", 3, before=True),
    "in the middle of a row": lambda: _at_call(PredictionTable, "append", 2, before=False, cut=9),
    "before the table has its name": lambda: _at_call(PredictionTable, "finish", 1, before=True),
    "while the table gets its name": lambda: setattr(prediction_table, "drafted", _die),
    "at the end": lambda: _at_call(PredictionTable, "finish", 1, before=False),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_no_row_is_lost_or_doubled(
    moment: str, ending: str, run_dir: Path, images: Path, tmp_path: Path, spectro: Callable, monkeypatch
) -> None:
    """An afternoon of classifying must not begin again, and a table must not look whole before it is."""
    monkeypatch.setattr(predict, "_BATCH", 3)
    whole, out = tmp_path / f"whole.{ending}", tmp_path / f"out.{ending}"
    assert spectro("predict", run_dir, images, "--out", whole, "--sort-into", tmp_path / "a").returncode == 3
    command = ["predict", run_dir, images, "--out", out, "--sort-into", tmp_path / "b"]
    left = [draft_of(out).name, f"b/{next((tmp_path / 'a').iterdir()).name}/{draft_of(out).name}"]
    if (child := os.fork()) == 0:
        for name in left:
            path = tmp_path / name.replace(f".{os.getppid()}.", f".{os.getpid()}.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        MOMENTS[moment]()
        spectro(*command)
        os._exit(0)
    is_parquet_only = moment == "while the table gets its name" and ending != "parquet"
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]) != is_parquet_only
    assert out.exists() == (moment == "at the end" or is_parquet_only)
    if not out.exists() and out.with_name(f"{out.name}.part").stat().st_size:
        done = spectro(*command)
        assert (done.returncode, "--resume" in done.stderr) == (2, True)
    spectro(*command, "--resume")
    assert rows_of(out) == rows_of(whole)
    inside = [sorted(p.relative_to(top).as_posix() for p in top.rglob("*")) for top in (tmp_path / "a", tmp_path / "b")]
    assert inside[0] == inside[1]
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".part", ".tmp")]


def test_a_draft_of_something_else_is_left_alone(
    run_dir: Path, images: Path, tmp_path: Path, spectro: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of two models in one table look like those of one."""
    out, draft = tmp_path / "out.csv", tmp_path / "out.csv.part"
    assert spectro("predict", run_dir, images, "--out", out).returncode == 3
    whole = out.read_text(encoding="utf-8")
    out.unlink()
    lines = whole.splitlines(keepends=True)
    other_model = "".join([*lines[:4], re.sub(r",0\.\d\d", ",0.55", lines[4])])
    cases = {
        "other model": other_model,
        "other columns": whole.replace("p_", "q_"),
        "other images": "".join(lines[:2]).replace("0.png", "zero.png"),
        "no table": "something of a browser",
    }
    for name, text in cases.items():
        draft.write_text(text, encoding="utf-8")
        done = spectro("predict", run_dir, images, "--out", out, "--resume")
        assert (done.returncode, out.exists(), draft.read_text(encoding="utf-8")) == (2, False, text), name
        assert str(draft) in done.stderr
    pytest.importorskip("fcntl")
    columns = whole.splitlines()[0].split(",")
    for text in ("", "".join(lines[:4]) + "half"):
        draft.write_text(text, encoding="utf-8")
        # Its half row may be one that it is writing.
        with closing(PredictionTable(out, columns, resume=True)):
            text = draft.read_text(encoding="utf-8")
            with draft.open("a", encoding="utf-8") as file:
                file.write("half" if text else "")
            for more in ([], ["--resume"]):
                done = spectro("predict", run_dir, images, "--out", out, *more)
                assert (done.returncode, "another process" in done.stderr) == (2, True)
            assert draft.read_text(encoding="utf-8") == text + ("half" if text else "")
        assert draft.exists() == bool(text)
    # The other process ends between a look at its table and the lock.
    monkeypatch.setattr(prediction_table, "_locked_draft", lambda path: path.rename(out).open("a"))
    with pytest.raises(DataError, match="exists already"):
        PredictionTable(out, columns)
    assert out.read_text(encoding="utf-8") == text + "half"


@pytest.mark.slow
def test_stdout_that_is_closed_or_full_has_a_message_at_most(run_dir: Path, images: Path) -> None:
    """``| head -1`` is no error of the program, and ``> /dev/full`` must be named."""
    main = "from spectro.cli.commands import main; main()"
    command = [sys.executable, "-c", main, "predict", str(run_dir), str(images / "0.png")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        child.stdout.close()
        assert (child.stderr.read(), child.wait()) == ("", 141)
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, done.stderr.count("\n"), "stdout" in done.stderr) == (2, 1, True), done.stderr


def test_entries_of_an_archive_leave_it_only_as_rows(
    run_dir: Path, images: Path, tmp_path: Path, spectro: Callable
) -> None:
    """Names that lead out, links, bombs and damage: a row with its reason each, and nothing outside of DIR."""
    archive, good = tmp_path / "day.zip", (images / "0.png").read_bytes()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in (
            "a/good.png",
            "b/good.png",
            "b/B__R.png",
            "../../out.png",
            "/root.png",
            "damaged.png",
            ".hidden.png",
            "x.txt",
        ):
            zipped.writestr(name, good)
        zipped.writestr("folder.png/", "")
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(link, "/etc/passwd")
        zipped.writestr("bomb.png", bytes(40_000_000))
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as zipped:
        content[zipped.getinfo("damaged.png").header_offset + 100] ^= 255
    # As `zip` writes a name in UTF-8, without a mark of the encoding.
    archive.write_bytes(bytes(content).replace(b"B__R", "BÄR".encode()))
    place = tmp_path / "deep" / "deeper"
    place.mkdir(parents=True)
    done = spectro("predict", run_dir, archive, "--out", place / "out.csv", "--sort-into", place / "sorted")
    assert done.returncode == 3
    rows = {row["path"].partition("day.zip/")[2]: row for row in read_rows(place / "out.csv")}
    assert {name for name, row in rows.items() if row["prediction"]} == {"a/good.png", "b/good.png", "b/BÄR.png"}
    reasons = {"link.png": "a link", "bomb.png": "large", "damaged.png": "unpacked", "/root.png": "out of"}
    for name, reason in {**reasons, "../../out.png": "out of"}.items():
        assert reason in rows[name]["reason"]
    assert len(rows) == 8
    # Two entries of one name and one content are one file.
    assert len([path for path in (place / "sorted").rglob("*") if path.is_file()]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["day.zip", "deep"]
    (tmp_path / "no.zip").write_text("no archive")
    assert spectro("predict", run_dir, tmp_path / "no.zip").returncode == 2


def test_inputs_are_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, folders, globs and links, in any spelling, in one order; a pipe would be read for ever."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.png", "a/b/2.JPG", "c/3.png"):
        save_image(tmp_path / name.replace("JPG", "jpg"))
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    inputs = find_inputs([tmp_path / "*" / "*.png", tmp_path / "a", Path("a"), Path("c", "3.png")])
    assert [item.path.name for item in inputs] == ["1.png", "2.jpg", "pipe.png", "3.png"]
    with pytest.raises(ValueError, match="regular"):
        inputs[2].read(1)
    with pytest.raises(ValueError, match="large"):
        inputs[0].read(-0.2)
    for path in ("nothing.png", "*.bmp"):
        with pytest.raises(DataError, match="no such"):
            find_inputs([tmp_path / path])
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scan(f"{path}/not there" if str(path).endswith("b") else path))
    with pytest.raises(DataError, match=r"b/not there: cannot be read"):
        find_inputs([tmp_path / "a"])


def test_sorted_images_and_the_sheet_are_no_inputs(
    run_dir: Path, images: Path, tmp_path: Path, spectro: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A glob finds them after --resume: each image would get a second row. One that is gone meanwhile ends nothing."""
    shutil.copytree(images, tmp_path / "new")
    command = ["predict", run_dir, "new/**/*.png", "--sort-into", "new/sorted", "--contact-sheet", "new/sheet.png"]
    for options in (["--out", "one.csv"], ["--out", "two.csv", "--resume"]):
        assert spectro(*command, *options).returncode == 3
    assert len(read_rows(tmp_path / "one.csv")) == 11
    assert read_rows(tmp_path / "one.csv") == read_rows(tmp_path / "two.csv")
    assert spectro("predict", run_dir, "new/sorted/**/*.png", "--sort-into", "new/sorted").returncode == 2
    monkeypatch.setattr(sorted_images, "sort_into", mock.Mock(side_effect=BadImageError("cannot be opened (gone)")))
    done = spectro(*command[:5], "--out", "three.csv")
    assert (done.returncode, done.stderr.count("not sorted: new/")) == (3, 11)  # the sheet is one


def test_sorted_images_overwrite_nothing(tmp_path: Path) -> None:
    """A folder may hold the work of a person, and a received model may have any label."""
    first, second = (save_image(tmp_path / name / "x.png", seed) for seed, name in enumerate(("one", "two")))
    folder = tmp_path / "sorted" / "a"
    folder.mkdir(parents=True)
    (folder / "x.png").write_text("mine")
    for _ in range(2):
        names = [sort_into(folder, item, 100).name for item in find_inputs([first, second])]
        assert names == ["x_2.png", "x_3.png"]
    assert ((folder / "x.png").read_text(), len(list(folder.iterdir()))) == ("mine", 3)
    labels = ["../../x", "/etc", "..", ".", "", "review", "Review", "a\\b", "a:b", "x" * 300, "Землетрясение" * 20]
    names = [folder_name(label) for label in labels]
    for name in names:
        assert (tmp_path / "sorted" / name).resolve().parent == (tmp_path / "sorted").resolve()
        (tmp_path / "sorted" / name).mkdir()
    assert folder_name("noise_Tip-off, slow (2)") == "noise_Tip-off, slow (2)"


def test_images_unlike_those_of_training_are_named(
    run_dir: Path, images: Path, tmp_path: Path, spectro: Callable
) -> None:
    """A model on images of another plot gives labels without a word."""
    assert "warning" not in spectro("predict", run_dir, images).stderr
    other = tmp_path / "other"
    other.mkdir()
    for path in list(images.glob("[0-3].png")):
        with Image.open(path) as image:
            dark = image.convert("L").resize((1500, 700)).point(lambda value: value // 4)
        dark.save(other / path.name)
    warnings = [line for line in spectro("predict", run_dir, other).stderr.splitlines() if line.startswith("warning")]
    named = " ".join(warnings)
    assert all(name in named for name in ("width", "height", "aspect", "brightness", "saturation"))
    assert "4 of 4" in warnings[0]
    # A model from before this has no ranges.
    use = json.loads((run_dir / "model" / "use.json").read_text())
    assert use["training_images"]["width in pixels"][0] > 100
    assert not LookCheck(None).warnings()


def test_looks_of_images_that_are_alike_raise_no_warning() -> None:
    """A tenth of the images may lie outside, and grey levels a little."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 20, 30, 3), dtype=np.uint8)
    looks = np.array([look_of(Image.fromarray(image)) for image in pixels])
    check = LookCheck(ranges_of(looks[:10]))
    check.add(looks[10:])
    assert not check.warnings()
    check.add(np.array([look_of(Image.fromarray(image[..., ::-1] // 2)) for image in pixels]))
    assert [line.split(":")[0] for line in check.warnings()] == ["brightness", "saturation"]
    assert not check.warnings()
