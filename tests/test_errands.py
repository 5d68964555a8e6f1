"""The errands of the pages docs/new_*.md, done in a folder of one's own exactly as the pages show them.

A page's code blocks are its files (a line with the file's path in backquotes stands above each) and its commands.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from spectro.paths import CONF

HOME = CONF.parent
_BLOCK = re.compile(
    r"^(?:`(?P<path>[^`\n]+)`[^\n]*:\n\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
# Small data, and no second store of results.
QUICK = ["data.scale=0.3", "tracking.uri=null"]
pytestmark = pytest.mark.slow


def spectro(arguments: Sequence[str], folder: Path) -> str:
    """What ``spectro`` prints in a folder; it must succeed."""
    code = "import sys; sys.argv[0] = 'spectro'; from spectro.cli.commands import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"spectro {shlex.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def follow(tmp_path: Path) -> Callable[[str], list[str]]:
    """A function that writes the files of a page into an empty folder and runs its commands: what they print."""

    def follow_page(name: str) -> list[str]:
        outputs = []
        for block in _BLOCK.finditer((HOME / "docs" / f"{name}.md").read_text(encoding="utf-8")):
            if block["path"]:
                path = tmp_path / block["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block["text"], encoding="utf-8")
            elif block["kind"] == "sh":
                for line in block["text"].replace("\\\n", " ").splitlines():
                    program, *arguments = shlex.split(line, comments=True)
                    assert program == "spectro"
                    takes_overrides = arguments[0] in ("train", "show-augmentation") and "--help" not in arguments
                    outputs.append(spectro([*arguments, *(QUICK if takes_overrides else [])], tmp_path))
        return outputs

    return follow_page


def metrics_of(folder: Path) -> list[dict]:
    """``metrics.json`` of all runs in a folder, oldest first."""
    paths = sorted(folder.glob("outputs/runs/*/metrics.json"), key=lambda path: path.stat().st_mtime)
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def test_new_metric(follow: Callable[[str], list[str]], tmp_path: Path) -> None:
    """A metric of the user's module is in files with its interval, on the terminal, and an objective."""
    outputs = follow("new_metric")
    first, second = metrics_of(tmp_path)
    assert "worst recall" in outputs[0]
    assert {"worst_recall", "worst_recall_ci_low"} <= set(first["test"])
    assert first["objective"] == first["val"]["worst_recall"]
    assert {"worst_recall", "macro_f2", "macro_f2_ci_high"} <= set(second["test"])


def test_new_search_space(follow: Callable[[str], list[str]], tmp_path: Path) -> None:
    """A space of the user's folder is searched, and the command line changes it."""
    follow("new_search_space")
    lines = [path.read_text(encoding="utf-8").splitlines() for path in tmp_path.glob("outputs/sweeps/*/trials.csv")]
    assert sorted(len(trials) - 1 for trials in lines) == [4, 6]
