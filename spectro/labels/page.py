"""A page of images with text, in one file that needs no other and runs nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spectro.comparison.page import render
from spectro.files import write_text

# The longer side of an image in a page.
SIDE_PX = 240


@dataclass(frozen=True)
class Card:
    """Images with their alternative texts, above lines with their styles: ``true``, ``wrong``, ``muted`` or none."""

    images: Sequence[tuple[str, str]]
    lines: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    note: str
    cards: Sequence[Card]


def write_page(path: Path, title: str, note: str, sections: Sequence[Section]) -> None:
    """Writes HTML in which every text is escaped, and whose policy allows neither scripts nor other files."""
    template = Path(__file__).with_name("page.html.jinja")
    write_text(path, render(template, title=title, note=note, sections=sections))
