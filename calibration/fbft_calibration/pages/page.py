"""Parts of a page in, one HTML file that opens anywhere and prints well out.

Knows nothing about what the parts say.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from pathlib import Path
from string import Template

_PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>$title</title>
<style>
@page { margin: 14mm }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1.5rem; color: #1b2530;
  background: #fff; -webkit-print-color-adjust: exact; print-color-adjust: exact }
h1, h2, h3 { font-weight: 600; line-height: 1.25; break-after: avoid } h3 { margin: 2rem 0 .6rem }
h2 { margin-top: 3.5rem; padding-top: 1.2rem; border-top: 1px solid #dfe5ea }
p { max-width: 58rem } p.lead { font-size: 1.15rem } p.note { color: #5a6b7b } p.caution { color: #8a4b00 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4rem 0 1rem }
td, th { padding: .2rem 1rem .2rem 0; text-align: left; vertical-align: top }
th { font-weight: 500; color: #5a6b7b } tbody th, .n { white-space: nowrap }
thead th, thead th.n { border-bottom: 1px solid #c5ced6; vertical-align: bottom; white-space: normal }
.n { text-align: right } .best { font-weight: 700 } div.wide { overflow-x: auto }
tr, div.wide { break-inside: avoid } h3 + p.note { break-after: avoid }
figure { margin: 0 0 1.1rem; break-inside: avoid } figure img { width: 100%; height: auto; display: block }
figure.small img { display: inline; width: auto; max-width: 48%; max-height: 26rem }
figcaption { font-size: .9rem; margin-top: .2rem } figcaption small { color: #5a6b7b; font-size: .85rem }
div.panels { display: grid; grid-template-columns: repeat(4, 1fr); gap: .4rem; color: #5a6b7b; font-size: .85rem;
  break-after: avoid }
div.pair { display: grid; gap: 2.5rem; grid-template-columns: 1fr 1fr; align-items: start; break-inside: avoid }
svg { width: 100%; height: auto } b.blue { color: #2f6fe0 } b.amber { color: #b97f00 }
@media print { body { font-size: 11px; max-width: none; margin: 0; padding: 0 } h2 { margin-top: 2rem }
  html { font-size: 12px } div.wide { overflow: visible } td, th { padding-right: .6rem } }
@media (max-width: 40rem) { div.pair { grid-template-columns: 1fr } }
</style>
<h1>$title</h1>
$body
</html>
""")


def write_page(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write a page; the file is there whole or not at all.

    Args:
        path: The HTML file.
        title: Shown as it is.
        parts: HTML.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(_PAGE.substitute(title=html.escape(title), body="\n".join(parts)), encoding="utf-8")
    partial.replace(path)


def paragraph(text: str, kind: str = "") -> str:
    """Text, shown as it is."""
    return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"


def heading(text: str, level: int) -> str:
    """Text, shown as it is."""
    return f"<h{level}>{html.escape(text)}</h{level}>"


def fact_table(facts: Iterable[tuple[str, str]]) -> str:
    """Names and what is to be said about them, shown as they are."""
    rows = "".join(f"<tr><th>{html.escape(name)}<td>{html.escape(text)}" for name, text in facts)
    return f"<table>{rows}</table>"


def inline_jpeg(encoded: bytes) -> str:
    """A JPEG picture, inside the page."""
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(encoded).decode()}">'


def side_by_side(left: str, right: str) -> str:
    """Two drawings beside each other where the page is wide enough."""
    return f'<div class="pair"><div>{left}</div><div>{right}</div></div>'
