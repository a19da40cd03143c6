"""Parts of a page in, one HTML file that opens anywhere and prints well out.

Templates make every part, and escape whatever no template made. Knows nothing about what the parts say.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES = Environment(
    loader=PackageLoader("fbft_calibration.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)


def write_page(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write a page; the file is there whole or not at all.

    Args:
        path: The HTML file.
        title: Shown as it is.
        parts: `Markup` as it is; other text as a page shows it.
    """
    partial = path.with_name(f".{path.name}.partial")
    page = _TEMPLATES.get_template("page.html.j2").render(title=title, body=Markup("\n").join(parts))
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)


def made(template: str, macro: str, *values: object) -> Markup:
    """What a macro of a template makes of values."""
    return Markup(getattr(_TEMPLATES.get_template(template).module, macro)(*values))


def paragraph(text: str, kind: str = "") -> Markup:
    """Text, shown as it is."""
    return made("parts.html.j2", "paragraph", text, kind)


def heading(text: str, level: int) -> Markup:
    """Text, shown as it is."""
    return made("parts.html.j2", "heading", text, level)


def fact_table(facts: Iterable[tuple[str, str]]) -> Markup:
    """Names and what is to be said about them, shown as they are."""
    return made("parts.html.j2", "fact_table", facts)


def number_table(headings: Sequence[str], rows: Sequence[Sequence[str]], best: Sequence[str | None] = ()) -> Markup:
    """A table whose columns after the first are numbers.

    Args:
        headings: Of the columns.
        rows: Text, shown as it is.
        best: By column, the text that is set in bold.
    """
    return made("parts.html.j2", "number_table", headings, rows, best or [None] * len(headings))


def inline_jpeg(encoded: bytes) -> Markup:
    """A JPEG picture, inside the page."""
    return made("parts.html.j2", "picture", base64.b64encode(encoded).decode())


def figure(pictures: Sequence[Markup], caption: str, kind: str = "") -> Markup:
    """Pictures in a row and what is to be said about them."""
    return made("parts.html.j2", "figure", Markup(" ").join(pictures), caption, kind)


def side_by_side(left: str, right: str) -> Markup:
    """Two drawings beside each other where the page is wide enough."""
    return made("parts.html.j2", "side_by_side", left, right)
