"""The engines of a bundle in its report: sidecars in, a table in `report.html` out.

Calibration writes the report, every export brings this table up to date. Knows nothing about the rest of the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fbft_edge.bundle.engines import Sidecar, sidecars
from fbft_edge.bundle.reading import REPORT, Bundle
from fbft_edge.bundle.sealing import written

_HEADINGS = ("engine", "targets", "version", "compared with float32", "tiles", "map", "mean", "score", "verdict flips")
_TEMPLATES = Environment(loader=PackageLoader("fbft_export"), autoescape=True, undefined=StrictUndefined)
_TABLE = re.compile("<!-- engines -->.*<!-- end of engines -->", re.DOTALL)


def engine_table(bundle: Bundle) -> Markup:
    """The table as HTML, between two comments by which `update_report` finds it again."""
    rows = [cells for sidecar in sidecars(bundle) for cells in _cells(bundle, sidecar)]
    return Markup(_TEMPLATES.get_template("engine_table.html.j2").render(headings=_HEADINGS, rows=rows))


def update_report(draft: Bundle) -> Bundle:
    """Write the table anew into a bundle's report, if it has one.

    Returns:
        The draft that vouches for the report, to be sealed by the caller.
    """
    path = draft.path / REPORT
    if not path.is_file():
        return draft
    page = path.read_text(encoding="utf-8")
    path.write_text(_TABLE.sub(lambda _: engine_table(draft), page), encoding="utf-8")
    return written(draft, REPORT)


def _cells(bundle: Bundle, sidecar: Sidecar) -> Iterator[tuple[str, ...]]:
    name = sidecar.name if sidecar.is_current(bundle) else f"{sidecar.name}, stale"
    for place, parity in sidecar.parity.items():
        flips = parity.get("verdict_flips")
        yield (
            *(name, " ".join(sidecar.targets), sidecar.release, _PLACES.get(place, place)),
            f"{parity['num_tiles']:.0f}",
            *(f"{parity[figure]:.2%}" for figure in ("map_max", "map_mean", "score_max")),
            "not known" if flips is None else f"{flips:.0f}",
        )


_PLACES = {"device": "where it runs", "emulated": "its arithmetic on a CPU"}
