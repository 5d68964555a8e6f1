"""Makes docs/start/tutorial.ipynb of docs/start/tutorial.md, and runs it: ``python scripts/docs/tutorial_notebook.py``.

Commands become cells; what they print is left out, as the cells print it. A comment ``<!-- figure: GLOB -->`` becomes a
cell that shows the newest such file. Needs nbclient and ipykernel, which are in ``spectro[test]``.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

PAGE = Path(__file__).parents[2] / "docs" / "start" / "tutorial.md"
# The newest multirun; searches have names.
_SWEEP = "$(ls outputs/sweeps | grep ^2 | tail -1)"
# Notebooks ask programs for colours and bars that move.
_HEAD = "%%bash\nset -euo pipefail\nunset FORCE_COLOR\n"
_PART = re.compile(r"^(?:<!-- figure: (\S+) -->|(?<!-->\n)```(?:sh|text)\n(.*?)^```)\n", re.MULTILINE | re.DOTALL)
_FIGURE = """from pathlib import Path

from IPython.display import Image

Image(max(Path().glob("{}"), key=lambda path: path.stat().st_mtime))"""


def notebook(page: str) -> Any:
    """The notebook of a page, without outputs."""
    cells, end = [], 0
    for match in _PART.finditer(page):
        cells.append(nbformat.v4.new_markdown_cell(page[end : match.start()].strip()))
        end = match.end()
        if match[1]:
            cells.append(nbformat.v4.new_code_cell(_FIGURE.format(match[1])))
        elif match[0].startswith("```sh"):
            commands = match[2].replace("SWEEP", _SWEEP)
            cells.append(nbformat.v4.new_code_cell(f"{_HEAD}{commands}".rstrip()))
    cells.append(nbformat.v4.new_markdown_cell(page[end:].strip()))
    cells = [cell for cell in cells if cell.source]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def execute(book: Any, folder: Path) -> None:
    """Runs all cells in a folder, whose place is left out of what they print."""
    place: dict[str, Any] = {"metadata": {"path": str(folder)}}
    NotebookClient(book, timeout=1800, kernel_name="python3", resources=place, coalesce_streams=True).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # times
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = output.text.replace(f"{folder}/", "").replace(str(folder), ".")


if __name__ == "__main__":
    made = notebook(PAGE.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        (folder := Path(scratch) / "survey").mkdir()
        execute(made, folder)
    made.metadata.pop("language_info", None)
    nbformat.write(made, PAGE.with_suffix(".ipynb"))
