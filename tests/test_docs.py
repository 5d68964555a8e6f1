"""README and docs: their links lead somewhere, their commands are valid, README's Python examples run."""

import re
import shlex

import numpy as np
import pytest

from spectro.cli import main as cli
from spectro.paths import CONF

HOME = CONF.parent
PAGES = [HOME / "README.md", HOME / "CHANGELOG.md", *sorted((HOME / "docs").rglob("*.md"))]
README = (HOME / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_exist(page) -> None:
    """A page that was renamed, a script that has moved."""
    text = page.read_text(encoding="utf-8")
    targets = [page.parent / link for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text)]
    targets += [HOME / path for path in re.findall(r"(?:scripts|tests|spectro)/[\w/]+\.(?:py|jinja)", text)]
    assert [str(path) for path in targets if not path.exists()] == []


def _commands() -> list[str]:
    """The words after ``python train.py`` of README's commands, without those that a reader has to fill in."""
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
    rows = "\n".join(
        f"python train.py {words}" for words in re.findall(r"^\|[^|]+\| `([a-z._]+=[^`]*)`", README, re.MULTILINE)
    )
    commands = re.findall(r"python train\.py (.+)", f"{blocks}\n{rows}")
    return [words for words in commands if not re.search(r"\$|RUN|DIR", words)]


@pytest.mark.parametrize("words", _commands())
def test_commands_are_valid(words: str) -> None:
    """Whatever README tells people to type is accepted; of a multirun its first job."""
    overrides = [word for word in shlex.split(words.replace("=~", "=")) if not word.startswith("--")]
    if "--multirun" in words:
        overrides = [re.sub(r"^([^\[{]+=)(?:range\()?([^,(]+),.*$", r"\1\2", word) for word in overrides]
    cli.composed(overrides)


def test_the_examples_with_arrays_run() -> None:
    """The classifiers in scikit-learn's own tools, as README shows them."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.array(["noise", "p_onset", "s_onset"], dtype=object), 6)
    X = rng.integers(0, 60, (len(y), 32, 32), dtype=np.uint8)
    for row, (left, top) in enumerate(np.repeat([[0, 0], [12, 4], [20, 20]], 6, axis=0)):
        X[row, top : top + 10, left : left + 10] += 150
    examples = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    names = {"X": X, "y": y, "X_new": X[:4]}
    exec(next(code for code in examples if "VotingClassifier" in code), names)
    assert names["scores"].shape == (5,)
    assert set(names["predicted"]) <= set(y)
    assert names["probabilities"].shape == (4, 3)
