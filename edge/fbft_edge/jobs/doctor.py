"""`fbft-edge doctor`: what this machine can run, and what is missing for more.

Asks for capabilities, never for platforms, and starts nothing.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import cv2
import numpy as np
import openvino
import zmq

from fbft_edge.bundle.engines import sidecars
from fbft_edge.bundle.reading import Bundle
from fbft_edge.detectors.cuda_driver import cuda_driver, first_gpu
from fbft_edge.detectors.device import CudaDetector
from fbft_edge.detectors.host import native_precision, openvino_core
from fbft_edge.detectors.kernels.frame_kernels import FrameKernels
from fbft_edge.detectors.tensorrt_library import NAMES, load_library
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.errors import EngineError
from fbft_edge.extras import missing_modules
from fbft_edge.frames.pixel_format import PixelFormat

_ENABLES = {
    "export": "fbft-export",
    "tensorrt": "fbft-export --runtime tensorrt",
    "tensorrt-rtx": "fbft-export --runtime tensorrt-rtx",
    "cuda": "the CUDA detector",
    "calibration": "fbft-calibrate and fbft-edge demo",
    "peers": "fbft-calibrate benchmark --peer, other methods beside ours",
    "rtsp": "rtsp:// cameras",
    "gige": "gige:// cameras, with Aravis from the system (docs/cameras.md)",
    "opcua": "fbft-edge bridge opcua",
    "mqtt": "fbft-edge bridge mqtt",
    "signing": "fbft-edge sign and verify, lines with [trust]",
}


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


def doctor(bundle: Bundle | None = None) -> Iterator[Finding]:
    """Everything that decides what this machine can run, and then the engines of a bundle."""
    yield from machine_findings()
    if bundle is not None:
        yield from engine_findings(bundle)


def machine_findings() -> Iterator[Finding]:
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
    core = openvino_core()
    name = core.get_property("CPU", "FULL_DEVICE_NAME").strip()
    detail = f"{openvino.__version__}, runs {native_precision()} on {name}"
    return Finding("OpenVINO engine", State.READY, detail)


def engine_findings(bundle: Bundle) -> Iterator[Finding]:
    """Which of a bundle's engines are current, and the device memory that each takes on frames of the bundle's size."""
    for sidecar in sidecars(bundle):
        about = f"{sidecar.version.split('-')[0]}, {sidecar.precision}, for {' '.join(sidecar.targets)}"
        subject = f"engine {sidecar.name}"
        if not sidecar.is_current(bundle):
            remedy = f"run fbft-export {bundle.path} --runtime {sidecar.runtime}"
            yield Finding(subject, State.MISSING, f"{about}; stale: the graph has changed since; {remedy}")
        else:
            memory = {**sidecar.memory_bytes, **(_frame_memory(bundle) if sidecar.plan else {})}
            stated = "".join(f", {purpose} {size / 2**20:.1f} MiB" for purpose, size in memory.items())
            yield Finding(subject, State.READY, about + stated)


def _frame_memory(bundle: Bundle) -> dict[str, int]:
    if not bundle.frame_sizes:
        return {}
    kernels = FrameKernels(TilePlan(bundle.tile, *bundle.frame_sizes[0]), PixelFormat.RGB8, np.inf)
    return kernels.memory_bytes(CudaDetector.frames_in_flight)


def _nvidia() -> Iterator[Finding]:
    try:
        gpu = first_gpu(cuda_driver())
    except EngineError as error:
        yield Finding("NVIDIA GPU", State.MISSING, f"{error}; until then the CPU engine runs")
    else:
        memory = "shared with the host" if gpu.shares_memory else "its own"
        yield Finding(
            "NVIDIA GPU", State.READY, f"{gpu.name}, {gpu.target}, {gpu.memory_bytes / 2**30:.1f} GiB, {memory}"
        )
    for runtime, name in NAMES.items():
        try:
            yield Finding(name, State.READY, load_library(runtime).__version__)
        except EngineError as error:
            yield Finding(name, State.MISSING, str(error))


def _cameras() -> Iterator[Finding]:
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    if devices:
        yield Finding("V4L2 cameras", State.READY, ", ".join(devices))
    else:
        yield Finding(
            "V4L2 cameras", State.MISSING, "no /dev/video*; connect a camera, or use a file, folder or stream"
        )
    for backend, enables in (
        ("FFMPEG", "video files"),
        ("GStreamer", "csi:// cameras and gstreamer: pipelines"),
    ):
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
