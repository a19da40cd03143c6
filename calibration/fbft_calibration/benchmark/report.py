"""The results of one run in; `summary.json`, `summary.md` and a `report.html` with its pictures inside out.

Pictures come first: what was missed, what looked wrong and was not, what stands out. Knows nothing about how figures
were found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup
from scipy.stats import beta

from fbft_calibration.benchmark.beside import beside_as_html, beside_as_markdown
from fbft_calibration.benchmark.glossary import glossary
from fbft_calibration.benchmark.origins import mixed, settings_in_words
from fbft_calibration.benchmark.pictures import PANELS
from fbft_calibration.benchmark.result import SCHEMA, SUMMARY, CategoryResult, Picture, Run, write_json
from fbft_calibration.benchmark.tables import (
    COLUMNS,
    NOT_THERE,
    RESULT_HEADINGS,
    Row,
    markdown_table,
    markdown_text,
    result_rows,
    shown,
)
from fbft_calibration.fitting.thresholds import CONFIDENCE
from fbft_calibration.metrics.figures import LIMITS_PERCENT
from fbft_calibration.pages.charts import bar_chart, line_chart
from fbft_calibration.pages.page import (
    fact_table,
    figure,
    heading,
    inline_jpeg,
    made,
    number_table,
    paragraph,
    side_by_side,
    write_page,
)
from fbft_edge.names import size_text

REPORT = "report.html"
MARKDOWN = f"{SUMMARY}.md"

_TYPE_HEADINGS = ("type", "images", "flagged", "image AUROC", "defects", "touched", "AUPRO 30 %", "AUPRO 5 %")
_LONG_RUN = "in the long run"
_SIZE_HEADINGS = ("diameter", "defects", "touched", _LONG_RUN, "images", "flagged", _LONG_RUN, "false regions")
_AUPRO_KINDS = {"aupro": "every threshold", "aupro_paper": "the paper's thresholds"}
_FILES = "Files that do not serve"
_LIMIT_HEADINGS = tuple(f"{percent} %" for percent in LIMITS_PERCENT)


def write_summary(run: Run, out: Path, peers: Sequence[Run] = (), failed: Mapping[str, str] | None = None) -> None:
    """Write `summary.json`, `summary.md` and `report.html`.

    Args:
        run: With at least one result; its pictures are files below its folder.
        out: A folder that exists.
        peers: Runs of other methods on the same data set.
        failed: Of those, what failed, with its cause.
    """
    has_peers = bool(peers or failed)
    beside = beside_as_html(run, peers, failed or {}) if has_peers else ()
    beside_markdown = beside_as_markdown(run, peers, failed or {}) if has_peers else ()
    write_json(_summary(run), out / f"{SUMMARY}.json")
    (out / MARKDOWN).write_text("\n\n".join((*_markdown(run), *beside_markdown)) + "\n", encoding="utf-8")
    write_page(
        out / REPORT, f"{run.results[0].dataset}: how well defects are found", (*_page(run), *beside, *glossary())
    )


def in_words(result: CategoryResult) -> str:
    """What the calibrated thresholds achieve, in two sentences."""
    detected, defective = result.flagged(is_defective=True)
    false_alarms, good = result.flagged(is_defective=False)
    said, known = [], []
    if defective:
        said.append(f"{detected} of {defective} defective images were flagged{_located(result)}")
        known.append(_range(detected, defective))
    if good:
        said.append(f"{false_alarms} of {good} good ones raised a false alarm")
        known.append(_range(false_alarms, good))
    return (
        f"{' and '.join(said)}; with {CONFIDENCE:.0%} confidence, that is {' and '.join(known)} in the long run. "
        f"{_marked(result.figures['thresholds'])}"
    )


def _located(result: CategoryResult) -> str:
    """How many of the flagged images were flagged at the defect, as far as masks tell."""
    flagged = [image for image in result.images if image.is_flagged and image.is_defective]
    known = [image.is_located for image in flagged if image.is_located is not None]
    if not known:
        return ""
    which = "of them" if len(known) == len(flagged) else f"of the {len(known)} with a usable mask"
    return f" ({sum(known)} {which} at the defect)"


def cautions_of(result: CategoryResult) -> list[str]:
    """A line for whatever keeps figures from being known or trusted; files that do not serve are counted here."""
    tests = result.counts["test_nominal"] + result.counts["test_defective"]
    _, defective = result.flagged(is_defective=True)
    left_out = result.counts["nominal"] - result.bundle["fitted_on"] - result.bundle["thresholds"]["num_images"]
    counted = {
        f"{left_out} of {result.counts['nominal']} nominal images were left out": left_out,
        f"{tests - len(result.images)} of {tests} test images cannot be read": tests - len(result.images),
        f"{result.figures['images_without_truth']} of {defective} defective images have no usable mask and count for "
        "image figures only": result.figures["images_without_truth"],
    }
    return [*result.cautions, *(f'{line}; see "{_FILES}".' for line, number in counted.items() if number)]


def _range(part: int, whole: int) -> str:
    """What the true share may be, by Clopper and Pearson."""
    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, part, whole - part + 1)) if part else 0.0
    high = float(beta.ppf(1 - tail, part + 1, whole - part)) if part < whole else 1.0
    return f"{low:.0%} to {high:.0%}"


def _marked(figures: Mapping[str, Any]) -> str:
    """How small a defect is found, and how sure that is."""
    count, found = figures["components"], figures["components_found"]
    if not count:
        return "No true masks, so nothing is known about the size of defects."
    beyond = f"{figures['false_regions']} marked regions touch no defect"
    smallest = f", the smallest {_length_of(figures, 'smallest_found')} across" if found else ""
    if found == count:
        return f"All {count} defects were touched ({_range(count, count)} in the long run){smallest}; {beyond}."
    largest = _length_of(figures, "largest_missed")
    return (
        f"{found} of {count} defects were touched{smallest}; the largest that was not is {largest} across"
        f"{_larger(figures.get('components_larger'))}; {beyond}."
    )


def _larger(count: int | None) -> str:
    """What is known about defects larger than the largest that was missed; None where a result does not count them."""
    if count is None:
        return ""
    if not count:
        return ", and none was larger"
    which = f"all {count} larger ones were" if count > 1 else "the only larger one was"
    return f", and {which} touched ({_range(count, count)} in the long run)"


def _length_of(figures: Mapping[str, Any], name: str) -> str:
    return _length(figures[f"{name}_px"], figures[f"{name}_mm"])


def _length(length_px: float, length_mm: float | None) -> str:
    return f"{length_px:.0f} px" + (f" ({length_mm:.3g} mm)" if length_mm is not None else "")


def _summary(run: Run) -> dict[str, Any]:
    return {
        "schema": f"{SCHEMA}.{SUMMARY}",
        "dataset": run.results[0].dataset,
        "settings": dict(run.results[0].settings),
        "categories": {result.category: _key_figures(result) for result in run.results},
        "mean": {column.name: column.mean(run.results) for column in COLUMNS},
        "cautions": {result.category: cautions_of(result) for result in run.results},
        "problems": {result.category: list(result.problems) for result in run.results},
        "refused": dict(run.refused),
    }


def _key_figures(result: CategoryResult) -> dict[str, float | None]:
    thresholds = result.figures["thresholds"]
    counts = ("defective_images", "detected", "nominal_images", "false_alarms", "components", "components_found")
    return {column.name: column.value(result) for column in COLUMNS} | {name: thresholds[name] for name in counts}


def _cautions(run: Run) -> list[str]:
    """A line for whatever keeps the table from being whole, or its mean from being of one thing."""
    lines = [*(f"{name} could not be measured: {cause}" for name, cause in run.refused.items()), *mixed(run.results)]
    return [f"Caution: {line}" for line in lines]


def _page(run: Run) -> Iterator[Markup]:
    """HTML, part by part."""
    is_alone = len(run.results) == 1
    if is_alone:
        yield paragraph(in_words(run.results[0]), "lead")
    yield from (paragraph(line, "caution") for line in _cautions(run))
    yield number_table(RESULT_HEADINGS, result_rows(run.results))
    yield paragraph(_conditions(run.results[0]), "note")
    for result in run.results:
        yield from _category(result, run.folder, is_alone=is_alone)


def _conditions(result: CategoryResult) -> str:
    """On what all of this was measured, in a sentence."""
    machine, versions = result.provenance["machine"], result.provenance["versions"]
    commit = f" ({result.provenance['commit']})" if result.provenance["commit"] else ""
    return (
        "Original resolution; thresholds as calibrated on held-out good images. Measured with fbft-edge "
        f"{versions['fbft-edge']}{commit}, OpenVINO {versions['openvino']} in {result.bundle['precision']}, on "
        f"{machine['cores']} cores of {machine['cpu']}, {result.provenance['created'][:10]}."
    )


def _category(result: CategoryResult, folder: Path, *, is_alone: bool) -> Iterator[Markup]:
    yield heading(result.category, 2)
    if not is_alone:
        yield paragraph(in_words(result), "lead")
    yield from (paragraph(line, "caution") for line in cautions_of(result))
    yield from _picture_parts(result.pictures, result.bundle["thresholds"], folder)
    yield heading("How small a defect is found", 3)
    yield side_by_side(*_drawings(result))
    yield number_table(_SIZE_HEADINGS, _size_rows(result))
    if result.figures["types"]:
        yield heading("By type of defect", 3)
        yield number_table(_TYPE_HEADINGS, _type_rows(result))
    yield heading("AUPRO at each limit of wrongly marked pixels", 3)
    tables = [
        number_table((words, *_LIMIT_HEADINGS), _aupro_rows(result, kind)) for kind, words in _AUPRO_KINDS.items()
    ]
    yield side_by_side(*tables)
    yield paragraph(_precision(result), "note")
    yield heading("Facts", 3)
    yield fact_table(_facts(result))
    if result.problems:
        yield heading(_FILES, 3)
        yield from (paragraph(line, "note") for line in result.problems)


def _picture_parts(pictures: Sequence[Picture], thresholds: Mapping[str, Any], folder: Path) -> Iterator[Markup]:
    yield made("pictures.html.j2", "legend")
    outlines = "" if thresholds.get("outline") is None else ", with what lies around it above half of the largest value"
    yield paragraph(
        f"An image is flagged when its score exceeds {thresholds['image']:.4g}, or its anomaly map "
        f"{thresholds['pixel']:.4g} somewhere; what exceeds that is marked{outlines}.",
        "note",
    )
    for group, members in groupby(pictures, key=lambda picture: picture.group):
        yield heading(group, 3)
        yield made("pictures.html.j2", "panels", PANELS)
        for picture in members:
            yield figure([inline_jpeg((folder / picture.file).read_bytes())], picture.caption)


def _drawings(result: CategoryResult) -> tuple[Markup, Markup]:
    sizes = result.figures["thresholds"]["sizes"]
    bars = {_size_tick(size): (size["components_found"], size["components"]) for size in sizes if size["components"]}
    bins = result.figures["size_bins"]
    ticks = ["\n".join((part["name"], *(f"to {length}" for length in _largest(part, result)))) for part in bins]
    lines = {f"{percent} %": [part[f"aupro_{percent}"] for part in bins] for percent in LIMITS_PERCENT}
    return (
        paragraph("Defects touched by the mask, by diameter in px")
        + bar_chart("Share of defects that the mask touches, by diameter", bars),
        paragraph("AUPRO over the smallest quarter of the defects, half, three quarters, all")
        + line_chart("AUPRO over the size of defects, a line per limit", ticks, lines),
    )


def _largest(part: Mapping[str, Any], result: CategoryResult) -> list[str]:
    """Diameter of the largest defect of Q1 to Q4 in px, and in mm where the pixel size is known."""
    diameter_px = 2 * math.sqrt(part["largest_area_px"] / math.pi)
    pixel_size_mm = result.settings.get("pixel_size_mm")
    return [f"{diameter_px:.0f} px", *([f"{diameter_px * pixel_size_mm:.3g} mm"] if pixel_size_mm else [])]


def _size_tick(size: Mapping[str, Any]) -> str:
    """`64-128`, below it the same in millimetres."""
    units = [("px", ""), *([("mm", " mm")] if size["from_mm"] is not None else [])]
    return "\n".join(_span(size[f"from_{unit}"], size[f"to_{unit}"]) + suffix for unit, suffix in units)


def _span(start: float, end: float | None) -> str:
    return f"{start:.3g}+" if end is None else f"{start:.3g}-{end:.3g}"


def _size_range(size: Mapping[str, Any]) -> str:
    text = _from_to(size["from_px"], size["to_px"], "px")
    return text if size["from_mm"] is None else f"{text}, {_from_to(size['from_mm'], size['to_mm'], 'mm')}"


def _from_to(start: float, end: float | None, unit: str) -> str:
    if end is None:
        return f"from {start:.3g} {unit}"
    return f"{start:.3g} to {end:.3g} {unit}" if start else f"below {end:.3g} {unit}"


def _size_rows(result: CategoryResult) -> list[Row]:
    counts = ("components", "components_found", "images", "images_found", "false_regions")
    return [
        (
            _size_range(size),
            *_shares(size["components_found"], size["components"]),
            *_shares(size["images_found"], size["images"]),
            str(size["false_regions"]),
        )
        for size in result.figures["thresholds"]["sizes"]
        if any(size[count] for count in counts)
    ]


def _shares(part: int, whole: int) -> tuple[str, str, str]:
    return str(whole), str(part), _range(part, whole) if whole else NOT_THERE


def _type_rows(result: CategoryResult) -> list[Row]:
    return [
        (
            *(kind["defect_type"], str(kind["images"]), str(kind["detected"]), shown(kind["image_auroc"])),
            *(str(kind["components"]), str(kind["components_found"]), shown(kind["aupro_30"]), shown(kind["aupro_5"])),
        )
        for kind in result.figures["types"]
    ]


def _aupro_rows(result: CategoryResult, kind: str) -> list[Row]:
    """AUPRO of all defects and of each size bin, and rho; `kind` is `aupro` or `aupro_paper`."""
    figures = result.figures
    parts = [("all defects", figures)]
    parts += [(", to ".join((part["name"], *_largest(part, result))), part) for part in figures["size_bins"]]
    rows: list[Row] = [
        (name, *(shown(part[f"{kind}_{percent}"]) for percent in LIMITS_PERCENT)) for name, part in parts
    ]
    rho = kind.replace("aupro", "rho")
    return [*rows, ("rho", *(shown(figures[f"{rho}_{percent}"]) for percent in LIMITS_PERCENT))]


def _precision(result: CategoryResult) -> str:
    figures = result.figures
    return (
        f"Pixel figures and AUPRO are within {figures['quantisation_error']:.1e} of the exact ones, those from the "
        f"paper's thresholds within {figures['paper_quantisation_error']:.1e}, rho within about three times that."
    )


def _facts(result: CategoryResult) -> Iterator[tuple[str, str]]:
    bundle, seconds, counts = result.bundle, result.seconds, result.counts
    tile, teacher, thresholds = bundle["tile"], bundle["teacher"], bundle["thresholds"]
    yield "fitted on", f"{bundle['fitted_on']} of {counts['nominal']} good images"
    yield (
        "thresholds",
        f"image score {thresholds['image']:.4g}, anomaly map {thresholds['pixel']:.4g}, "
        f"from {thresholds['num_images']} held-out good images, expected false-alarm rate "
        f"{thresholds['supported_rate']:.1%} (asked for: {thresholds['requested_rate']:.1%})",
    )
    yield "teacher", f"{teacher['name']}, blocks {teacher['blocks'][0]} and {teacher['blocks'][1]}"
    yield "frames", size_text(*bundle["frame_sizes"]) if bundle["frame_sizes"] else "many sizes"
    yield "tiles", f"{tile['tile_px']} px, overlap {tile['overlap_patches']} patches, scale {tile['scale']:.4g}"
    yield "time", f"{shown(seconds['image_median'], '.3f')} s an image (median), fitted in {seconds['fit']:.0f} s"
    yield "layout", result.layout
    yield "settings", settings_in_words(result.settings)


def _markdown(run: Run) -> Iterator[str]:
    """Markdown, part by part."""
    yield f"# {markdown_text(run.results[0].dataset)}: how well defects are found"
    yield from (markdown_text(line) for line in _cautions(run))
    yield markdown_table(RESULT_HEADINGS, result_rows(run.results))
    yield markdown_text(_conditions(run.results[0]))
    for result in run.results:
        yield f"## {markdown_text(result.category)}"
        yield markdown_text(in_words(result))
        yield from (f"- {markdown_text(line)}" for line in cautions_of(result))
        for picture in result.pictures:
            caption = markdown_text(f"{picture.group}: {picture.caption}")
            yield f"![{caption}](<{picture.file}>)\n\n{caption}"
        yield markdown_table(_SIZE_HEADINGS, _size_rows(result))
        if result.figures["types"]:
            yield markdown_table(_TYPE_HEADINGS, _type_rows(result))
        yield markdown_text(_precision(result))
        for kind, words in _AUPRO_KINDS.items():
            yield markdown_table((f"AUPRO, {words}", *_LIMIT_HEADINGS), _aupro_rows(result, kind))
        if result.problems:
            yield f"### {_FILES}"
            yield "\n".join(f"- {markdown_text(line)}" for line in result.problems)
