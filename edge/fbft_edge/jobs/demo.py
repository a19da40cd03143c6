"""The whole job on synthetic parts: render, fit, run a line, inspect; out come what was found and a picture.

Fitting runs in a process of its own, so that nothing here needs torch. Knows nothing about how a part is
rendered, a bundle fitted or a frame inspected.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fbft_edge.errors import ArgumentError, BundleError, FbftError
from fbft_edge.extras import require_extra
from fbft_edge.frames.frame import Verdict
from fbft_edge.frames.images import write_image
from fbft_edge.jobs.demo_outcomes import Outcome, demo_picture, read_outcomes
from fbft_edge.jobs.demo_parts import HELD_OUT, SIDE_PX, STEPS, render_set, stamped_parts, write_stamp
from fbft_edge.jobs.earlier_results import Earlier
from fbft_edge.jobs.inspection import inspect
from fbft_edge.messages.reading import Result
from fbft_edge.progress import SILENT, Progress
from fbft_edge.sockets.subscriber import ResultSubscriber

PICTURE = "demo.png"
_MESSAGES_HZ = 10
_MOST_SECONDS = 1e9  # what `run` takes
_LINE_SEED = 100_000  # parts that are in no other set


@dataclass(frozen=True, slots=True)
class LineFigures:
    """How the line ran, as its subscriber saw it.

    Attributes:
        messages: Received.
        lost: Messages that the gaps in `sequence` tell of.
        inspected_hz: Frames with a verdict of their own per second.
        latency_ms: Capture to publish, 50th and 99th percentile; None when no frame was inspected.
    """

    messages: int
    lost: int
    inspected_hz: float
    latency_ms: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What came of a demo: every test part, the line, and the picture's path."""

    outcomes: list[Outcome]
    figures: LineFigures
    picture: Path


def demo(out: Path, seconds: float, fresh: bool, progress: Progress = SILENT) -> Demonstration:
    """Run the demo in a folder; what a former run of the same version left there is used again.

    Args:
        out: Made if it does not exist.
        seconds: How long the line runs.
        fresh: Render and fit again in any case.
        progress: Told how it goes.

    Raises:
        ArgumentError: `seconds` is not positive, or endless.
        BundleError: What fitting needs is not installed, or fitting failed.
        FbftError: Whatever else the user can act on.
    """
    if not 0 < seconds <= _MOST_SECONDS:
        raise ArgumentError(f"--seconds {seconds:g} is no time to run; use some seconds, such as 15")
    bundle = out / "demo.fbft"
    parts = None if fresh else stamped_parts(out)
    if parts is None:
        require_extra("calibration", "fitting")
        parts = render_set(out, progress)
        fit(out / "nominal", bundle)
        write_stamp(out, parts)
    else:
        progress.say(f"Using the parts and the bundle in {out} again; --fresh fits a new one.")
    progress.say(f"Running a line on a synthetic camera for {seconds:g} s")
    figures = line_figures(watch_line(bundle, seconds))
    pictures = [out / "test" / f"{part.name}.png" for part in parts]
    inspect(bundle, pictures, out / "inspection", earlier=Earlier.OVERWRITTEN, progress=progress)
    outcomes = read_outcomes(out / "inspection", parts)
    write_image(out / PICTURE, demo_picture(outcomes, out / "test"))
    return Demonstration(outcomes, figures, out / PICTURE)


def fit(nominal: Path, bundle: Path) -> None:
    """Fit and calibrate a bundle in a process of its own, whose output is shown as it comes.

    Raises:
        BundleError: It failed; it has said why.
    """
    options = ["--out", str(bundle), "--steps", str(STEPS), "--held-out", str(HELD_OUT)]
    command = [sys.executable, "-m", "fbft_calibration", "fit", str(nominal), *options]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise BundleError(f"fitting ended with status {status}; see what it said above")


def watch_line(bundle: Path, seconds: float) -> list[Result]:
    """Run the line on a synthetic camera in a process of its own; returns every message it published.

    Raises:
        FbftError: The line failed; it has said why.
    """
    camera = f"synthetic://?fps=30&height={SIDE_PX}&width={SIDE_PX}&seed={_LINE_SEED}&defect_every=3"
    options = ["--camera", camera, "--fps", str(_MESSAGES_HZ), "--duration", str(seconds), "--site", "demo"]
    with tempfile.TemporaryDirectory(prefix="fbft-") as folder:
        endpoint = f"ipc://{folder}/line"
        command = [
            sys.executable,
            "-m",
            "fbft_edge",
            "run",
            "--bundle",
            str(bundle),
            "--bind",
            endpoint,
            *options,
        ]
        with ResultSubscriber(endpoint, every=True) as results, subprocess.Popen(command) as line:
            received = _received(results, line)
    if line.returncode:
        raise FbftError(f"the line ended with status {line.returncode}; see what it said above")
    return received


def _received(results: ResultSubscriber, line: subprocess.Popen[bytes]) -> list[Result]:
    """Everything the line sends until it ends; the line ends with an interrupted demo."""
    received = []
    try:
        while (result := results.receive(timeout_s=0.5)) is not None or line.poll() is None:
            if result is not None:
                received.append(result)
    finally:
        line.terminate()
    return received


def line_figures(results: Sequence[Result]) -> LineFigures:
    """Sum up what a subscriber received."""
    fresh = [result for result in results if result.verdict in (Verdict.OK, Verdict.ANOMALOUS)]
    latencies = [(one.published_ns - one.captured_ns) / 1e6 for one in fresh if one.captured_ns is not None]
    span_ns = results[-1].published_ns - results[0].published_ns if results else 0
    return LineFigures(
        messages=len(results),
        lost=sum(result.lost for result in results),
        inspected_hz=len(fresh) / (span_ns / 1e9) if span_ns else 0.0,
        latency_ms=(float(np.percentile(latencies, 50)), float(np.percentile(latencies, 99))) if latencies else None,
    )
