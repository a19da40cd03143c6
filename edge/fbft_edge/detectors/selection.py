"""Which engine runs a bundle here, and why; detectors made accordingly.

Capabilities decide, never platforms: an engine is taken when the bundle holds it, it is current, and everything that
it needs is there. Knows nothing about cameras, rates or messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from fbft_edge.bundle import Bundle
from fbft_edge.closeable import Closeable
from fbft_edge.detectors import Detector
from fbft_edge.errors import ArgumentError, EngineError
from fbft_edge.frame import Detection, Uint8
from fbft_edge.pixel_format import PixelFormat
from fbft_edge.sidecar import Sidecar, sidecars

CUDA_RUNTIMES = ("tensorrt", "tensorrt-rtx")
MOST_SIZES = 4

_D = TypeVar("_D", bound=Detector)


@dataclass(frozen=True, slots=True)
class OpenDetector:
    """A detector, and in words which engine runs it and why that one."""

    detector: Detector
    reason: str


def open_detector(
    bundle: Bundle,
    height: int,
    width: int,
    pixel_format: PixelFormat = PixelFormat.RGB8,
    engine: str = "auto",
    beside: Sequence[Detector] = (),
    *,
    sharpen: bool = False,
) -> OpenDetector:
    """Make a detector for frames of one size and pixel format.

    Args:
        bundle: Holds the engines.
        height: Of the frames.
        width: Of the frames.
        pixel_format: Of the frames.
        engine: `openvino`, `tensorrt` or `tensorrt-rtx`; `auto` takes TensorRT, else TensorRT for RTX, else OpenVINO.
        beside: Detectors of the same bundle that are open already and used by the same thread; on OpenVINO their
            compiled model serves this one too, where it can.
        sharpen: Redraw what is flagged along the frame's own edges (docs/refinement.md).

    Raises:
        EngineError: The engine that was asked for cannot run here; the message says what is missing.
        BundleError: The bundle's engine files are not what `fbft-export` writes.
    """
    if engine == "openvino":
        return _openvino(bundle, height, width, pixel_format, "as asked", beside, sharpen)
    if engine != "auto":
        return _cuda(bundle, height, width, pixel_format, engine, "as asked", sharpen)
    held = {sidecar.runtime for sidecar in sidecars(bundle)}
    refusals = [] if held & {*CUDA_RUNTIMES} else ["the bundle holds no GPU engine"]
    for runtime in (runtime for runtime in CUDA_RUNTIMES if runtime in held):
        try:
            return _cuda(bundle, height, width, pixel_format, runtime, "the fastest engine that runs here", sharpen)
        except (EngineError, ArgumentError) as error:
            refusals.append(f"not {runtime}: {error}")
    return _openvino(bundle, height, width, pixel_format, "; ".join(refusals), beside, sharpen)


class DetectorPool(Closeable, Generic[_D]):
    """One detector per frame size, made from height and width; each holds a model, so only the last few are kept."""

    def __init__(self, make: Callable[[int, int], _D]) -> None:
        self._make = make
        self._detectors: dict[tuple[int, int], _D] = {}

    def of(self, height: int, width: int) -> _D:
        """The detector of a frame size, good until four others were asked for."""
        detector = self._detectors.pop((height, width), None)
        if detector is None:
            while len(self._detectors) >= MOST_SIZES:
                self._detectors.pop(next(iter(self._detectors))).close()
            detector = self._make(height, width)
        self._detectors[height, width] = detector
        return detector

    def detect(self, pixels: Uint8) -> Detection:
        """Inspect a picture of any size, (height, width, 3) uint8 RGB."""
        return self.of(*pixels.shape[:2]).begin(pixels)()

    def close(self) -> None:
        """Close every detector."""
        for detector in self._detectors.values():
            detector.close()
        self._detectors.clear()


def engine_for(bundle: Bundle, runtime: str, target: str | None = None) -> Sidecar:
    """The bundle's engine for a runtime and, if named, a GPU.

    Raises:
        EngineError: The bundle has none, or none that is current and for that GPU.
    """
    remedy = f"run fbft-export {bundle.path} --runtime {runtime}"
    held = [sidecar for sidecar in sidecars(bundle) if sidecar.runtime == runtime]
    if not held:
        raise EngineError(f"{bundle.path} holds no {runtime} engine; {remedy}")
    current = [sidecar for sidecar in held if sidecar.is_current(bundle)]
    if not current:
        stale = ", ".join(sidecar.name for sidecar in held)
        raise EngineError(f"{stale} in {bundle.path} is stale (the graph has changed since it was built); {remedy}")
    fitting = [sidecar for sidecar in current if target is None or target in sidecar.targets]
    if not fitting:
        offered = ", ".join(target for sidecar in current for target in sidecar.targets)
        raise EngineError(f"{bundle.path} holds {runtime} engines for {offered}, this GPU is {target}; {remedy} here")
    return fitting[0]


def _openvino(
    bundle: Bundle,
    height: int,
    width: int,
    pixel_format: PixelFormat,
    why: str,
    beside: Sequence[Detector],
    sharpen: bool,
) -> OpenDetector:
    from fbft_edge.detectors.openvino import OpenVinoDetector

    detector = OpenVinoDetector(bundle, height, width, pixel_format=pixel_format, beside=beside, sharpen=sharpen)
    return OpenDetector(detector, f"OpenVINO {detector.engine.precision} on the CPU ({why})")


def _cuda(
    bundle: Bundle, height: int, width: int, pixel_format: PixelFormat, runtime: str, why: str, sharpen: bool
) -> OpenDetector:
    from fbft_edge.cuda_driver import cuda_driver, first_gpu
    from fbft_edge.detectors.cuda import CudaDetector
    from fbft_edge.detectors.tensorrt_engine import TensorRtEngine

    engine_for(bundle, runtime)
    driver = cuda_driver()
    gpu = first_gpu(driver)
    sidecar = engine_for(bundle, runtime, gpu.target)
    make_engine = partial(TensorRtEngine, bundle, sidecar)
    detector = CudaDetector(bundle, height, width, make_engine, pixel_format, sharpen=sharpen)
    return OpenDetector(
        detector, f"{runtime} {sidecar.version} {sidecar.precision} on {gpu.name}, {gpu.target} ({why})"
    )
