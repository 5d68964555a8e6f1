"""A page of images with text, in one file that needs no other and runs nothing."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

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


def data_uri(pixels: np.ndarray) -> str:
    """An image, uint8 (h, w, 3), as a ``data:`` address."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def write_page(path: Path, title: str, note: str, sections: Sequence[Section]) -> None:
    """Writes HTML in which every text is escaped, and whose policy allows neither scripts nor other files."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.get_template("page.html.jinja")
    write_text(path, template.render(title=title, note=note, sections=sections))
