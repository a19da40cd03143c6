"""Which engine runs a bundle here, and why; detectors made accordingly.

Capabilities decide, never platforms: an engine is taken when the bundle holds it, it is current, and everything that
it needs is there. Knows nothing about cameras, rates or messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from fbft_edge.bundle.engines import Sidecar, sidecars
from fbft_edge.bundle.reading import Bundle
from fbft_edge.detectors import Detector
from fbft_edge.errors import ArgumentError, EngineError
from fbft_edge.frames.pixel_format import FrameLayout
from fbft_edge.names import CUDA_RUNTIMES


@dataclass(frozen=True, slots=True)
class OpenDetector:
    """A detector, and in words which engine runs it and why that one.

    Attributes:
        detector: Made for one layout.
        reason: Which engine and why.
        shares_engine: Its engine is one of those that it was made beside.
    """

    detector: Detector
    reason: str
    shares_engine: bool = False


def open_detector(
    bundle: Bundle,
    layout: FrameLayout,
    engine: str = "auto",
    beside: Sequence[Detector] = (),
    *,
    sharpen: bool = False,
) -> OpenDetector:
    """Make a detector for frames of one layout.

    Args:
        bundle: Holds the engines.
        layout: Of the frames.
        engine: `openvino`, `tensorrt` or `tensorrt-rtx`; `auto` takes TensorRT, else TensorRT for RTX, else OpenVINO.
        beside: Detectors of the same bundle that are open already and used by the same thread; on OpenVINO their
            compiled model serves this one too, where it can.
        sharpen: Redraw what is flagged along the frame's own edges (docs/refinement.md).

    Raises:
        EngineError: The engine that was asked for cannot run here; the message says what is missing.
        BundleError: The bundle's engine files are not what `fbft-export` writes.
    """
    if engine == "openvino":
        return _openvino(bundle, layout, "as asked", beside, sharpen)
    if engine != "auto":
        return _cuda(bundle, layout, engine, "as asked", sharpen)
    held = {sidecar.runtime for sidecar in sidecars(bundle)}
    refusals = [] if held & {*CUDA_RUNTIMES} else ["the bundle holds no GPU engine"]
    for runtime in (runtime for runtime in CUDA_RUNTIMES if runtime in held):
        try:
            return _cuda(bundle, layout, runtime, "the fastest engine that runs here", sharpen)
        except (EngineError, ArgumentError) as error:
            refusals.append(f"not {runtime}: {error}")
    return _openvino(bundle, layout, "; ".join(refusals), beside, sharpen)


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
    layout: FrameLayout,
    why: str,
    beside: Sequence[Detector],
    sharpen: bool,
) -> OpenDetector:
    from fbft_edge.detectors.host import OpenVinoDetector

    detector = OpenVinoDetector(bundle, layout, beside=beside, sharpen=sharpen)
    shares = any(isinstance(other, OpenVinoDetector) and other.engine is detector.engine for other in beside)
    return OpenDetector(detector, f"OpenVINO {detector.engine.precision} on the CPU ({why})", shares)


def _cuda(bundle: Bundle, layout: FrameLayout, runtime: str, why: str, sharpen: bool) -> OpenDetector:
    from fbft_edge.detectors.cuda_driver import cuda_driver, first_gpu
    from fbft_edge.detectors.device import CudaDetector
    from fbft_edge.detectors.tensorrt_engine import TensorRtEngine

    engine_for(bundle, runtime)
    driver = cuda_driver()
    gpu = first_gpu(driver)
    sidecar = engine_for(bundle, runtime, gpu.target)
    make_engine = partial(TensorRtEngine, bundle, sidecar)
    detector = CudaDetector(bundle, layout, make_engine, sharpen=sharpen)
    return OpenDetector(
        detector, f"{runtime} {sidecar.version} {sidecar.precision} on {gpu.name}, {gpu.target} ({why})"
    )
