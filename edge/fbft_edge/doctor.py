"""`fbft-edge doctor`: what this machine can run, and what is missing for more.

Asks for capabilities, never for platforms, and starts nothing.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path

import cv2
import openvino
import zmq
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fbft_edge.detectors.openvino import native_precision
from fbft_edge.extras import missing_modules

_ENABLES = {"export": "fbft-export", "calibration": "fbft-calibrate and fbft-edge demo"}


class State(str, Enum):
    """Of one finding."""

    READY = "ready"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing this machine has or lacks; `detail` says what it is, or how to get it."""

    subject: str
    state: State
    detail: str


def run_doctor(console: Console) -> None:
    """Print all findings as a table."""
    table = Table("what", "state", "detail", title=f"fbft-edge {metadata.version('fbft-edge')} on this machine")
    for finding in findings():
        colour = "green" if finding.state is State.READY else "yellow"
        table.add_row(finding.subject, f"[{colour}]{finding.state.value}[/]", escape(finding.detail))
    console.print(table)


def findings() -> Iterator[Finding]:
    """Everything that decides what this machine can run."""
    yield _machine()
    yield _cpu_engine()
    yield from _nvidia()
    yield from _cameras()
    yield _curve()
    for extra, enables in _ENABLES.items():
        yield _extra(extra, enables)


def _machine() -> Finding:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return Finding(
        "machine",
        State.READY,
        f"{cores} cores, {memory_gib:.1f} GiB, {platform.machine()}, Python {platform.python_version()}",
    )


def _cpu_engine() -> Finding:
    core = openvino.Core()
    name = core.get_property("CPU", "FULL_DEVICE_NAME").strip()
    detail = f"{openvino.__version__}, runs {native_precision()} on {name}"
    return Finding("OpenVINO engine", State.READY, detail)


def _nvidia() -> Iterator[Finding]:
    driver = Path("/proc/driver/nvidia/version")
    if driver.is_file():
        yield Finding("NVIDIA driver", State.READY, driver.read_text().splitlines()[0].strip())
    else:
        yield Finding("NVIDIA driver", State.MISSING, "no NVIDIA GPU driver is loaded; the CPU engine runs")


def _cameras() -> Iterator[Finding]:
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    if devices:
        yield Finding("V4L2 cameras", State.READY, ", ".join(devices))
    else:
        yield Finding(
            "V4L2 cameras", State.MISSING, "no /dev/video*; connect a camera, or use a file, folder or stream"
        )
    for backend, enables in (("FFMPEG", "RTSP streams and video files"), ("GStreamer", "gige:// and csi:// cameras")):
        if _is_built_in(backend):
            yield Finding(f"OpenCV {backend}", State.READY, enables)
        else:
            yield Finding(f"OpenCV {backend}", State.MISSING, f"needed for {enables}; use an OpenCV built with it")


def _is_built_in(backend: str) -> bool:
    lines = (line.strip() for line in cv2.getBuildInformation().splitlines())
    return any(line.startswith(f"{backend}:") and "YES" in line for line in lines)


def _curve() -> Finding:
    if zmq.has("curve"):
        return Finding("ZeroMQ CURVE", State.READY, f"libzmq {zmq.zmq_version()}")
    return Finding("ZeroMQ CURVE", State.MISSING, "this libzmq has no CURVE; pip install --upgrade pyzmq")


def _extra(extra: str, enables: str) -> Finding:
    absent = missing_modules(extra)
    if not absent:
        return Finding(f"extra {extra}", State.READY, f"{enables}: all there")
    remedy = f'pip install "fbft-edge[{extra}]"'
    return Finding(f"extra {extra}", State.MISSING, f"{enables}: lacks {', '.join(absent)}; {remedy}")
