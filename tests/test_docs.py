"""README and docs: their links lead somewhere, their commands are valid, README's Python examples run."""

import importlib.util
import json
import os
import re
import shlex
import socket
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectro.cli import main as cli
from spectro.cli.commands import COMMANDS
from spectro.config.groups import Groups
from spectro.paths import CONF

HOME = CONF.parent
PAGES = [HOME / "README.md", HOME / "CHANGELOG.md", *sorted((HOME / "docs").rglob("*.md"))]
README = (HOME / "README.md").read_text(encoding="utf-8")
# A comment above a block says why its commands are not run: needs Slurm, for instance.
BLOCK = re.compile(r"^(<!-- (?:not run: .+?|setup) -->\n+)?```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Commands of these pages are run: of the tutorial below, of the others, with the files that stand beside them, by
# test_errands.py.
RUN = {"tutorial.md", *(f"new_{name}.md" for name in ("model", "augmentation", "metric", "search_space"))}


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_exist(page: Path) -> None:
    """A page that was renamed, a heading that was reworded, a script that has moved."""
    text = page.read_text(encoding="utf-8")
    missing = []
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text):
        target = page.parent / link if link else page
        headings = re.findall(r"^#+ (.+)", target.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        if not target.exists() or (anchor and anchor not in map(slug, headings)):
            missing.append(f"{link}#{anchor}")
    paths = re.findall(r"(?:scripts|tests|spectro|docs)/[\w/-]+\.(?:py|jinja|md)", text)
    assert missing + [path for path in paths if not (HOME / path).exists()] == []


def test_pages_that_the_code_names_exist() -> None:
    """A comment or a message that sends its reader to a page that has moved; a promise whose test is gone."""
    files = [path for folder in ("conf", "spectro", "scripts", "tests") for path in (HOME / folder).rglob("*.*")]
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".yaml", ".jinja")]
    pages = {page for text in texts for page in re.findall(r"docs/[\w/-]+\.md", text)}
    assert [page for page in pages if not (HOME / page).exists()] == []
    defined = {name for text in texts for name in re.findall(r"def (test_\w+)\(", text)}
    promises = (HOME / "docs" / "reference" / "promises.md").read_text(encoding="utf-8")
    assert [name for name in re.findall(r"`(test_\w+)`", promises) if name not in defined] == []


def test_the_index_has_every_page_and_the_reference_every_option() -> None:
    """A page or an option that nothing names is not found."""
    index = (HOME / "docs" / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES[2:] if page.name != "index.md" and f"[{page.name}]" not in index] == []
    reference = (HOME / "docs" / "reference" / "config.md").read_text(encoding="utf-8")
    options = Groups()
    for group in ("data", "mapping", "augmentation", "model", "cascade_stage", "validation", "experiment"):
        row = next(line for line in reference.splitlines() if line.startswith(f"| `{group}` |"))
        assert set(re.findall(r"`(\w+)`", row)) == {group, *options.options(group)}


def commands(page: Path) -> list[str]:
    """The command lines of a page: of its ``sh`` blocks that are not marked, of its prose, and of README's tables."""
    text = page.read_text(encoding="utf-8")
    values = dict(re.findall(r'^([A-Z]+)="(.*?)"', text, re.MULTILINE))
    lines = re.findall(r"`(python train\.py [^`]*)`(?! and)", text.replace("\n", " "))
    lines += [f"python train.py {words}" for words in re.findall(r"^\|[^|]+\| `([a-z._]+=[^`]*)`", text, re.MULTILINE)]
    for mark, kind, block in BLOCK.findall(text):
        if kind == "sh" and not mark:
            lines += [part for line in block.replace("\\\n", " ").splitlines() for part in re.split(r" &&? ?", line)]
    for name, value in values.items():
        lines = [re.sub(rf"\${name}\b", value, line) for line in lines]
    return [line for line in lines if line.strip() and not re.match(r" *#|[A-Z]+=", line)]


# Each line once, whichever pages have it.
PAGE_OF = {line: page for page in PAGES if page.name not in RUN | {"CHANGELOG.md"} for line in commands(page)}
COMMAND_LINES = [pytest.param(line, id=f"{page.stem}-{line[:60]}") for line, page in PAGE_OF.items()]


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_commands_are_valid(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever people are shown to type is accepted; of a multirun its first job, of a search one point."""
    program, *words = shlex.split(line.replace("=~", "=").replace("$", "/"), comments=True)
    if program == "python" and words[0].startswith("scripts/benchmarks/"):
        assert (HOME / words[0]).exists()
        return
    if program == "python":
        assert words[0] == "train.py"
        words[0] = "train"
    else:
        assert program == "spectro"
    name, *arguments = words
    overrides = [word for word in arguments if "=" in word and not word.startswith("-") and not word.endswith("=...")]
    if name != "train":
        module = importlib.import_module(f"spectro.cli.{COMMANDS[name][0]}")
        monkeypatch.setattr(sys, "argv", [f"spectro {name}", *arguments])
        monkeypatch.setattr(cli, "guard", lambda *_, **__: None)
        monkeypatch.setattr(module, "resend", lambda *_, **__: 0, raising=False)
        monkeypatch.chdir(tmp_path)
        with suppress(SystemExit) if "--help" in arguments else nullcontext():
            module.main()
    if name in ("train", "show-augmentation") and overrides and not overrides[0].startswith("resume="):
        point = (re.sub(r"=(?:tag\(.*)?(?:choice|interval|range)\(([^,)]+).*", r"=\1", word) for word in overrides)
        cli.composed([re.sub(r"^([^\[{]+=)([^,(\[{]+),.*$", r"\1\2", word) for word in point])


def tutorial(name: str = "notebook") -> Any:
    """A function of the script that makes the notebook of the tutorial."""
    pytest.importorskip("nbclient")
    spec = importlib.util.spec_from_file_location(
        "tutorial_notebook", HOME / "scripts" / "docs" / "tutorial_notebook.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


TUTORIAL = HOME / "docs" / "start" / "tutorial.md"


def test_the_notebook_is_that_of_the_tutorial() -> None:
    """`python scripts/docs/tutorial_notebook.py` makes it anew; by hand one of the two would be forgotten."""
    cells = json.loads(TUTORIAL.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    expected = tutorial()(TUTORIAL.read_text(encoding="utf-8")).cells
    assert ["".join(cell["source"]) for cell in cells] == [cell.source for cell in expected]
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))


@pytest.mark.slow
def test_the_tutorial_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its commands in their order, as the notebook has them, on fewer images; none may end in an error."""
    pytest.importorskip("cleanlab")
    script = tmp_path / "bin" / "spectro"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom spectro.cli.commands import main\nmain()\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(HOME))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    # So few records may show no difference from the baseline.
    page = re.sub(r"(spectro promote .*)", r"\1 --force", TUTORIAL.read_text(encoding="utf-8")).replace("5001", port)
    book = tutorial()(page.replace("scale=4", "scale=1").replace("n_trials=8", "n_trials=2"))
    tutorial("execute")(book, tmp_path)
    assert len((tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 1 + 116
    printed = "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", []))
    assert '"prediction": "' in printed
    assert str(tmp_path) not in printed


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
