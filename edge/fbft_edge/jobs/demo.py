"""The whole job on synthetic parts: render, fit, run a line, inspect; out come what was found and a picture.

Fitting runs in a process of its own, so that nothing here needs torch. Knows nothing about how a part is
rendered, a bundle fitted or a frame inspected.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from fbft_edge.errors import ArgumentError, BundleError, FbftError
from fbft_edge.extras import require_extra
from fbft_edge.frames.drawing import Closeup, Entry, card, contact_sheet
from fbft_edge.frames.frame import Detection, Region, Uint8, Verdict
from fbft_edge.frames.images import read_image, write_image
from fbft_edge.jobs.inspection import inspect
from fbft_edge.jobs.results_file import RESULTS
from fbft_edge.messages.reading import Result
from fbft_edge.progress import SILENT, Progress
from fbft_edge.sockets.subscriber import ResultSubscriber
from fbft_edge.synthetic import GENERATOR_VERSION, render_part

DEFECT_SIZES_PX = (3, 5, 8, 12, 20, 40)
PICTURE = "demo.png"
_STAMP = "demo.json"
_SIDE_PX = 700
_PATCH_PX = 14
_NUM_NOMINAL = 64
_HELD_OUT = 0.6  # of them for thresholds: the more, the lower the false-alarm rate that they support
_STEPS = 600
_NUM_TEST_NOMINAL = 24
_NUM_PER_SIZE = 8
_MESSAGES_HZ = 10
_MOST_SECONDS = 1e9  # what `run` takes
_LINE_SEED = 100_000  # parts that are in no other set


@dataclass(frozen=True, slots=True)
class DemoPart:
    """One rendered part of the test set, and what is wrong with it.

    Attributes:
        name: Of its file, without suffix.
        size_px: Nominal size of its defect; 0 for a nominal part.
        kind: Of its defect; `nominal` without one.
        box_xyxy: Around its defect's visible pixels; the data matrix of a nominal part.
    """

    name: str
    size_px: int
    kind: str
    box_xyxy: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What inspection said about a test part.

    Attributes:
        part: The part.
        detection: Without its anomaly map.
    """

    part: DemoPart
    detection: Detection

    @property
    def is_found(self) -> bool:
        """True when the verdict is anomalous and the mask comes within one patch of the defect."""
        left, top, right, bottom = self.part.box_xyxy
        rows = slice(max(top - _PATCH_PX, 0), bottom + _PATCH_PX)
        columns = slice(max(left - _PATCH_PX, 0), right + _PATCH_PX)
        return self.detection.is_anomalous and bool(self.detection.mask[rows, columns].any())


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
    inspect(bundle, pictures, out / "inspection", progress=progress)
    outcomes = read_outcomes(out / "inspection", parts)
    write_image(out / PICTURE, demo_picture(outcomes, out / "test"))
    return Demonstration(outcomes, figures, out / PICTURE)


def render_set(out: Path, progress: Progress = SILENT) -> list[DemoPart]:
    """Write the nominal parts and the test parts; returns the latter."""
    for folder in (out / "nominal", out / "test"):
        _make_folder(folder)
    for index in progress.track(range(_NUM_NOMINAL), "Rendering nominal parts"):
        write_image(out / "nominal" / f"{index:03}.png", render_part(index, _SIDE_PX, _SIDE_PX).pixels)
    sizes_px = [0] * _NUM_TEST_NOMINAL + [size for size in DEFECT_SIZES_PX for _ in range(_NUM_PER_SIZE)]
    numbered = list(enumerate(sizes_px, start=_NUM_NOMINAL))
    shown = progress.track(numbered, "Rendering test parts")
    return [_render_test_part(out / "test", seed, size_px) for seed, size_px in shown]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"cannot make {folder}: {error.strerror}; choose another --out") from error


def _render_test_part(folder: Path, seed: int, size_px: int) -> DemoPart:
    part = render_part(seed, _SIDE_PX, _SIDE_PX, (float(size_px),) if size_px else ())
    print_xyxy = (int(0.58 * _SIDE_PX), int(0.66 * _SIDE_PX), int(0.74 * _SIDE_PX), int(0.78 * _SIDE_PX))
    kind, box_xyxy = (part.defects[0].kind, part.defects[0].box_xyxy) if size_px else ("nominal", print_xyxy)
    name = f"{seed:03}-{kind}" + (f"-{size_px}px" if size_px else "")
    write_image(folder / f"{name}.png", part.pixels)
    return DemoPart(name, size_px, kind, box_xyxy)


def write_stamp(out: Path, parts: Sequence[DemoPart]) -> None:
    """Note that `out` holds a complete set and its bundle."""
    contents = {**_settings(), "parts": [asdict(part) for part in parts]}
    (out / _STAMP).write_text(json.dumps(contents, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def stamped_parts(out: Path) -> list[DemoPart] | None:
    """The test parts in `out`; None when they or the bundle are of another version, or not complete."""
    try:
        contents = json.loads((out / _STAMP).read_text(encoding="utf-8"))
        parts = [DemoPart(**{**part, "box_xyxy": tuple(part["box_xyxy"])}) for part in contents.pop("parts")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    files = [out / "demo.fbft" / "bundle.json", *(out / "test" / f"{part.name}.png" for part in parts)]
    is_complete = contents == _settings() and all(file.is_file() for file in files)
    return parts if is_complete else None


def _settings() -> dict[str, str | float]:
    return {
        "version": version("fbft-edge"),
        "generator_version": GENERATOR_VERSION,
        "side_px": _SIDE_PX,
        "num_nominal": _NUM_NOMINAL,
        "held_out": _HELD_OUT,
        "steps": _STEPS,
        "num_test_nominal": _NUM_TEST_NOMINAL,
        "num_per_size": _NUM_PER_SIZE,
    }


def fit(nominal: Path, bundle: Path) -> None:
    """Fit and calibrate a bundle in a process of its own, whose output is shown as it comes.

    Raises:
        BundleError: It failed; it has said why.
    """
    options = ["--out", str(bundle), "--steps", str(_STEPS), "--held-out", str(_HELD_OUT)]
    command = [sys.executable, "-m", "fbft_calibration", "fit", str(nominal), *options]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise BundleError(f"fitting ended with status {status}; see what it said above")


def watch_line(bundle: Path, seconds: float) -> list[Result]:
    """Run the line on a synthetic camera in a process of its own; returns every message it published.

    Raises:
        FbftError: The line failed; it has said why.
    """
    camera = f"synthetic://?fps=30&height={_SIDE_PX}&width={_SIDE_PX}&seed={_LINE_SEED}&defect_every=3"
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
        with ResultSubscriber(endpoint) as results, subprocess.Popen(command) as line:
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


def read_outcomes(folder: Path, parts: Sequence[DemoPart]) -> list[Outcome]:
    """Read back what `inspect` wrote about the parts, in their order."""
    lines = (folder / RESULTS).read_text(encoding="utf-8").splitlines()
    return [Outcome(part, _read_detection(folder, json.loads(line))) for part, line in zip(parts, lines, strict=True)]


def _read_detection(folder: Path, line: dict[str, Any]) -> Detection:
    mask = read_image(folder / line["mask"])[..., 0] > 0
    regions = tuple(
        Region(tuple(region["box_xyxy"]), region["area_px"], region["peak"], tuple(region["centroid_xy"]))
        for region in line["regions"]
    )
    return Detection(line["score"], line["peak"], mask, regions, line["verdict"] == Verdict.ANOMALOUS.value)


def found(outcomes: Sequence[Outcome], size_px: int) -> tuple[int, int]:
    """How many parts with a defect of that size were found, and how many there are."""
    of_size = [outcome.is_found for outcome in outcomes if outcome.part.size_px == size_px]
    return sum(of_size), len(of_size)


def false_alarms(outcomes: Sequence[Outcome]) -> tuple[int, int]:
    """How many nominal parts were called anomalous, and how many there are."""
    alarms = [outcome.detection.is_anomalous for outcome in outcomes if not outcome.part.size_px]
    return sum(alarms), len(alarms)


def demo_picture(outcomes: Sequence[Outcome], folder: Path) -> Uint8:
    """A part with a defect of each size, the clearest that was found if any was, and two nominal parts.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    nominal = [outcome for outcome in outcomes if not outcome.part.size_px]
    shown = [_example(outcomes, size_px) for size_px in DEFECT_SIZES_PX] + nominal[:2]
    cards = [card(_entry(outcome, folder)) for outcome in shown]
    by_size = [found(outcomes, size_px) for size_px in DEFECT_SIZES_PX]
    subtitle = (
        f"{sum(one for one, _ in by_size)} of {sum(number for _, number in by_size)} defects of "
        f"{DEFECT_SIZES_PX[0]} to {DEFECT_SIZES_PX[-1]} px found, "
        "{} false alarms on {} nominal parts".format(*false_alarms(outcomes))
    )
    return contact_sheet(cards, "fbft-edge demo", subtitle, num_columns=4)


def _example(outcomes: Sequence[Outcome], size_px: int) -> Outcome:
    of_size = [outcome for outcome in outcomes if outcome.part.size_px == size_px]
    return max(of_size, key=lambda outcome: (outcome.is_found, outcome.detection.peak))


def _entry(outcome: Outcome, folder: Path) -> Entry:
    part = outcome.part
    left, top, right, bottom = part.box_xyxy
    what = f"{part.kind.replace('_', ' ')}, {part.size_px} px" if part.size_px else "print"
    side_px = max(56, round(1.4 * max(right - left, bottom - top)))
    closeup = Closeup(((left + right) / 2, (top + bottom) / 2), side_px, what)
    return Entry(f"part {part.name.split('-')[0]}", read_image(folder / f"{part.name}.png"), outcome.detection, closeup)
