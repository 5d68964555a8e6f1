"""Numbers and tables as people read them, on the terminal, in figures, Markdown and MLflow. A dash stands for None."""

import re
from collections.abc import Sequence

DASH = "–"


def format_number(
    value: float | None, low: float | None = None, high: float | None = None, *, signed: bool = False
) -> str:
    """``0.89``, with an interval ``0.89 [0.80, 0.97]``; ``signed`` writes a plus sign before a value above 0."""
    if value is None:
        return DASH
    text = f"{value:+.2f}" if signed else f"{value:.2f}"
    return text if low is None or high is None else f"{text} [{low:.2f}, {high:.2f}]"


def format_interval(low: float | None, high: float | None) -> str:
    """``0.80–0.97``, for a column of its own."""
    return DASH if low is None or high is None else f"{low:.2f}–{high:.2f}"


def format_p(value: float | None) -> str:
    """``0.034``, ``0.21`` or ``< 0.001``."""
    if value is None:
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def format_amount(value: float | None) -> str:
    """A number of any size, such as seconds or parameters: ``0.123``, ``12.3``, ``12,345``."""
    return DASH if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def markdown_text(text: str) -> str:
    """Text that ends no cell of a Markdown table and starts no markup."""
    for mark in ("\\", "|", "*", "`", "<"):
        text = text.replace(mark, f"\\{mark}")
    # Links and images are of a pair of brackets and what follows; an interval in brackets is neither.
    text = re.sub(r"\](?=[(\[:])", r"\]", text)
    return " ".join(text.split())
