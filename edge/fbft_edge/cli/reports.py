"""What came of a job in; the tables and lines that show it to a person out.

Knows nothing about how the jobs are done, and loads none but the one that was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fbft_edge.jobs.results_file import RESULTS

if TYPE_CHECKING:
    from fbft_edge.config.line_config import LineConfig
    from fbft_edge.jobs import check_config, doctor
    from fbft_edge.jobs.bench import Timing
    from fbft_edge.jobs.demo import LineFigures
    from fbft_edge.jobs.demo_outcomes import Outcome
    from fbft_edge.jobs.inspection import Inspection
    from fbft_edge.jobs.replay_results import Summary

_NUM_LISTED = 10


def show_demo(outcomes: Sequence[Outcome], figures: LineFigures, console: Console) -> None:
    """Show what was found, by size, and how the line ran."""
    from fbft_edge.jobs.demo_outcomes import false_alarms, found
    from fbft_edge.jobs.demo_parts import DEFECT_SIZES_PX

    table = Table(title="Demo", show_header=False)
    for size_px in DEFECT_SIZES_PX:
        table.add_row(f"defects of {size_px} px found", "{} of {}".format(*found(outcomes, size_px)))
    table.add_section()
    table.add_row("false alarms on nominal parts", "{} of {}".format(*false_alarms(outcomes)))
    table.add_section()
    table.add_row("frames inspected", f"{figures.inspected_hz:.1f} per second")
    if figures.latency_ms:
        table.add_row("capture to publish", "p50 {:.0f} ms, p99 {:.0f} ms".format(*figures.latency_ms))
    table.add_row("messages", f"{figures.messages} received, {figures.lost} lost")
    console.print(table)


def show_inspection(inspection: Inspection, out: Path, console: Console) -> None:
    """Show how many images got which verdict."""
    from fbft_edge.frames.frame import Verdict
    from fbft_edge.frames.images import about_dark_16_bit
    from fbft_edge.names import size_text

    table = Table("verdict", "images", title=f"Results in {escape(str(out))}")
    table.columns[1].justify = "right"
    for verdict, what in (
        (Verdict.OK, "ok"),
        (Verdict.ANOMALOUS, "anomalous"),
        (Verdict.FAULT, "no verdict"),
    ):
        table.add_row(what, str(inspection.counts[verdict]))
    console.print(table)
    for size, number in inspection.foreign_sizes.items():
        console.print(
            f"{number} images have {size_text(size)}, a size that the thresholds were not found on, and so no verdict. "
            "Inspect images as the line's camera sends them, or fit again with images of that size."
        )
    if inspection.foreign_look:
        console.print(
            f"{inspection.foreign_look} images are mono where the nominal ones have colour, or the other way round, "
            "and so have no verdict. Inspect images as the line's camera sends them, or fit again with such images."
        )
    if inspection.dark:
        console.print(about_dark_16_bit(inspection.dark), markup=False, soft_wrap=True)


def show_replay(summary: Summary, out: Path, console: Console) -> None:
    """Show how many recordings came out how, and what explains it."""
    from fbft_edge.jobs.replay import Outcome

    table = Table("outcome", "recordings", title=f"Replay, results in {escape(str(out))}")
    table.columns[1].justify = "right"
    for outcome in Outcome:
        table.add_row(outcome.value, str(summary.counts[outcome]))
    console.print(table)
    for line in _explanations(summary, out):
        console.print(line, markup=False, soft_wrap=True)


def _explanations(summary: Summary, out: Path) -> Iterator[str]:
    yield f"largest change of a score: {summary.largest_change:.3%} of the image threshold"
    for (then, now), number in (+summary.other_bundles).most_common():
        yield (
            f"{number} recordings were made with another bundle: {then[:16]}, replayed with {now[:16]}; "
            "what differs in them differs between the bundles"
        )
    for (then, now), number in (+summary.other_engines).most_common():
        yield f"{number} recordings were made with another engine: {then}, replayed with {now}; try --tolerance 0.02"
    if summary.dark:
        from fbft_edge.frames.images import about_dark_16_bit

        yield about_dark_16_bit(summary.dark)
    yield from (f"  {line}" for line in summary.differing[:_NUM_LISTED])
    if len(summary.differing) > _NUM_LISTED:
        yield f"  and {len(summary.differing) - _NUM_LISTED} more in {out / RESULTS}"


def show_timing(timing: Timing, console: Console) -> None:
    """Show each stage's time, beside what the machine can do at best."""
    from fbft_edge.names import size_text

    figures, floors = timing.figures, timing.floors
    height, width = figures["frame"]
    table = Table(
        title=f"{size_text((height, width))}, {figures['tiles']} tiles of {figures['tile_px']} px: "
        f"{figures['frames_per_s']:.2f} frames/s, {figures['flops_share_of_peak']:.0%} of the matrix peak",
    )
    for heading in ("stage", "ms", "share", "GFLOP", "of peak", "MB", "of copy rate"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in timing.stages:
        seconds = stage.median_ms / 1e3
        table.add_row(
            stage.name,
            f"{stage.median_ms:.2f}",
            f"{stage.median_ms / figures['frame_ms']:.1%}",
            f"{stage.flops / 1e9:.2f}",
            f"{stage.flops / seconds / floors.flops_per_s:.1%}",
            f"{stage.bytes_moved / 1e6:.1f}",
            f"{stage.bytes_moved / seconds / floors.bytes_per_s:.1%}",
        )
    console.print(table)


def show_machine(findings: Iterable[doctor.Finding], console: Console) -> None:
    """Show what a machine has and lacks."""
    from fbft_edge.jobs.doctor import State

    table = Table("what", "state", "detail", title=f"fbft-edge {version('fbft-edge')} on this machine")
    for finding in findings:
        colour = "green" if finding.state is State.READY else "yellow"
        table.add_row(escape(finding.subject), f"[{colour}]{finding.state.value}[/]", escape(finding.detail))
    console.print(table)


def show_config(config: LineConfig, findings: Iterable[check_config.Finding], console: Console) -> None:
    """Show what a configuration would run, what speaks against it, and what it leaves off."""
    from fbft_edge.jobs.check_config import switched_off

    count = len(config.cameras)
    title = f"{config.site}: {count} camera{'s' if count > 1 else ''}, {config.fps:g} messages per second each"
    table = Table("what", "state", "detail", title=title)
    for finding in findings:
        state = "[green]ready[/]" if finding.problem is None else "[red]problem[/]"
        table.add_row(escape(finding.key), state, escape(finding.detail))
    if absent := switched_off(config):
        table.add_row(", ".join(absent), "off", "not in the configuration")
    console.print(table)
