"""Help shows every group, option and knob, says what holds under which model, and is there at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from spectro.cli.help import groups, help_text, knobs, options
from spectro.paths import CONF

TRAIN = CONF.parent / "train.py"


def test_every_group_and_option_is_shown_with_the_chosen_ones_marked() -> None:
    text = help_text(["cascade_stage=flat", "mapping=nope", "svm.C=3"])
    for group in groups():
        assert f"\n  {group}\n" in text
        for option, line in options(group).items():
            assert f" {option} " in text
            assert line in text
    marked = [line.split()[1] for line in text.splitlines() if line.startswith("    * ")]
    # An option that does not exist is passed over: help is for finding the ones that do.
    assert marked == list((groups() | {"cascade_stage": "flat"}).values())


def test_every_knob_of_the_chosen_options_is_shown_with_default_and_comment() -> None:
    """A knob that help leaves out has to be looked for in the source."""
    lines = [" ".join(line.split()) for line in help_text().splitlines()]
    for group, option in groups().items():
        for key, value, comment in knobs(CONF / group / f"{option}.yaml", group):
            shown = f"{key}={value}" if value and len(value) < 30 else key
            assert any(line.startswith(shown) for line in lines), key
            assert any(line.endswith(" ".join(comment.split())) for line in lines), comment
    assert "svm.C=1.0 inverse regularisation strength" in lines
    assert "seed=0 seed of everything random in a run" in lines


def test_knobs_follow_the_options() -> None:
    """Knobs of an option that is not chosen would be refused if they were typed."""
    assert "cascade.gate" in help_text()
    assert "cascade.gate" not in help_text(["cascade_stage=flat"])
    assert "data.split.val" in help_text(["data=folder"])
    assert "data.scale" not in help_text(["data=folder"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1  # one", [("g.a", "1", "one")]),
        ("a: 1", []),
        ("# @package _global_\na:\n  b: x: y  # two words", [("a.b", "x: y", "two words")]),
        (
            "a:  # all\n  b: 1  # inner\nc: [1, 2]  # outer",
            [("g.a", "", "all"), ("g.a.b", "1", "inner"), ("g.c", "[1, 2]", "outer")],
        ),
        ("a: '#1'  # hash in a value", [("g.a", "'#1'", "hash in a value")]),
        ("brak_Empty zone: 1", []),
    ],
)
def test_comments_behind_keys_are_read(tmp_path: Path, text: str, expected: list[tuple[str, str, str]]) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    assert list(knobs(path, "g")) == expected


@pytest.mark.parametrize("flags", [["--help"], ["-h", "cascade_stage=flat"], ["svm.C=[", "--help"]])
def test_help_ends_well_and_leaves_nothing_behind(tmp_path: Path, flags: list[str]) -> None:
    """Help must work from any folder, also for who has already mistyped something."""
    done = subprocess.run([sys.executable, TRAIN, *flags], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("Which of several model families")
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
