"""Help shows every group, option and knob, says what holds under which model, and is there at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spectro.cli.help import description, help_text, knobs
from spectro.config.groups import Groups
from spectro.paths import CONF

GROUPS = Groups()


def shown(*overrides: str, groups: Groups = GROUPS) -> list[str]:
    """The lines of help, with single spaces."""
    return [" ".join(line.split()) for line in help_text(overrides, groups).splitlines()]


def test_help_is_two_screens() -> None:
    """Who looks for a first word must not have to scroll through two hundred knobs."""
    lines = help_text([], GROUPS).splitlines()
    assert len(lines) <= 90
    assert max(map(len, lines)) <= 100
    joined = " ".join(shown())
    for knob in ("data.root=...", "data.table=...", "mapping.look_alikes=null", "n_trials=50", "seed=0"):
        assert knob in joined
    # Groups come first, the data before all others.
    assert joined.index(" data: ") < joined.index(" model: ") < joined.index("Knobs")


def test_every_group_and_option_is_shown_with_the_chosen_ones_marked() -> None:
    """Help is for finding what exists, also for who has already mistyped something."""
    lines = shown("cascade_stage=flat", "mapping=nope", "svm.C=[")
    choices = GROUPS.composition(["cascade_stage=flat"]).choices
    assert choices.keys() == {path.name for path in CONF.iterdir() if path.is_dir()} - {"hydra"}
    for group, choice in choices.items():
        assert any(line.startswith(f"{group}: ") for line in lines)
        for option in GROUPS.options(group):
            text = description(GROUPS.text(f"{group}/{option}"))
            assert len(text) > 10
            assert f"{'* ' if option == choice else ''}{option} {text}" in lines


@pytest.mark.parametrize(
    ("override", "present", "absent"),
    [
        ("cascade_stage=flat", "svm.C=30.0 inverse regularisation strength", "cascade.gate"),
        ("data=demo", "data.cache_limit_gb=20.0 ", "vpt."),  # from a file that options share
        ("data=folder", "data.split.val", "data.scale"),
        ("data=demo_lake", "data.label_set=lake", "data.label_set=field"),
        ("validation=kfold", "objective=cv/macro_f1", "objective=val/macro_f1"),
        ("sweeper=hog_svm", "n_trials=50", "n_trials=30"),
    ],
)
def test_knobs_and_values_follow_the_options(override: str, present: str, absent: str) -> None:
    """Knobs of an option that is not chosen would be refused if they were typed."""
    lines = shown(override)
    assert any(line.startswith(present) for line in lines)
    assert not any(line.startswith(absent) for line in lines)


def test_options_of_a_users_directory_are_shown(tmp_path: Path) -> None:
    """A model of one's own is found where the built-in ones are."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# @package _global_\n# My forest\nforest:\n  trees: 3  # how many\n")
    lines = shown("model=mine", groups=Groups([str(CONF), f"file://{tmp_path}"]))
    assert {"* mine My forest", "forest.trees=3 how many"} <= set(lines)


def test_a_list_of_options_is_marked_and_its_knobs_shown() -> None:
    """Knobs of a composed augmentation would otherwise have to be looked for in the files."""
    lines = shown("augmentation=[mirror,spectrogram]")
    assert [line.split()[1] for line in lines if line.startswith("* ")][4:6] == ["mirror", "spectrogram"]
    assert any(line.startswith("augmentation.mirror.views") for line in lines)
    assert any(line.startswith("augmentation.spectrogram.gain_percent") for line in lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1  # one", [("g.a", "1", "one")]),
        ("# @package _global_\na:\n  b: x: y  # two words", [("g.a", "", ""), ("g.a.b", "x: y", "two words")]),
        (
            "a:  # all\n  b: 1  # inner\nc: [1, 2]  # outer",
            [("g.a", "", "all"), ("g.a.b", "1", "inner"), ("g.c", "[1, 2]", "outer")],
        ),
        ("a: '#1'  # hash in a value", [("g.a", "'#1'", "hash in a value")]),
        ("brak_Empty zone: 1", []),
    ],
)
def test_keys_and_comments_are_read(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert list(knobs(text, "g")) == expected


@pytest.mark.parametrize(
    ("line", "code", "start"),
    [
        ("svm.C=[ -h --config-dir nowhere", 0, ""),
        ("--cfg all --resolve svm.C=2", 0, ""),
        ("+seeed=1", 2, "error: seeed: unknown key"),
        ("--config-dir nowhere model=mine", 2, "error: --config-dir: got 'nowhere'"),
        ("-m seed=0,1 svm.c=1", 2, "error: svm.c: unknown key"),
        ("sweeper=hog_svm", 2, "error: sweeper=hog_svm needs --multirun"),
        ("-m sweeper=hog_svm svm.C=tag(log,interval(0,1))", 2, "error: svm.C: got tag(log,interval(0,1)); allowed: "),
        ("resume=nowhere", 2, "error: resume: got "),
        ("--seed 1", 2, "error: got '--seed'; expected KEY=VALUE; did you mean seed=1?"),
        ("--model=pixels", 2, "error: got '--model=pixels'; expected KEY=VALUE; did you mean model=pixels?"),
        ("-model=pixels", 2, "error: got '-model=pixels'; expected KEY=VALUE; did you mean model=pixels?"),
        ("--multi-run", 2, "error: got '--multi-run'; expected KEY=VALUE, or one of --cfg, "),
        (
            "--config-dir . sweeper=pixels",
            2,
            "error: sweeper=pixels needs --multirun (-m): spectro train --multirun --config-dir . sweeper=pixels",
        ),
    ],
)
def test_commands_that_run_nothing_leave_nothing_behind(
    tmp_path: Path, spectro: Callable[..., Any], line: str, code: int, start: str
) -> None:
    """One message, exit code 2 and no files: a mistyped command must cost nothing."""
    done = spectro("train", *line.split())
    assert (done.returncode, list(tmp_path.iterdir())) == (code, [])
    assert done.stderr.startswith(start)
    assert done.stderr.count("\n") == (code != 0)


def test_a_tilde_is_the_home_folder(spectro: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """``data.root=~/records`` comes as it is typed: no shell expands it, and Hydra's grammar refuses it."""
    monkeypatch.setenv("HOME", "/home/me")
    done = spectro("train", "data=folder", "data.root=~/records", "--cfg", "job", "-p", "data.root")
    assert done.stdout.strip() == "/home/me/records"
