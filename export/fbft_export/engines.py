"""Engines of a bundle: built or configured, held to the parity gate, recorded in a sidecar.

Knows nothing about nominal images or thresholds.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx
import openvino

from fbft_edge.bundle.engines import Sidecar, sidecars, write_sidecar
from fbft_edge.bundle.reading import ENGINES, GRAPH, Bundle
from fbft_edge.bundle.sealing import removed, revising, seal_bundle, written
from fbft_edge.detectors.host import OpenVinoEngine, accepted_precision
from fbft_edge.detectors.tensorrt_engine import TensorRtEngine
from fbft_edge.detectors.tensorrt_library import NAMES
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.progress import SILENT, Progress
from fbft_export.cubins import write_cubins
from fbft_export.device_parity import measure_device_parity, target_here
from fbft_export.engine_report import update_report
from fbft_export.half_precision import EmulatedHalfEngine, half_graph
from fbft_export.parity import OF_THRESHOLDS, Parity, measure_parity
from fbft_export.precisions import engine_name
from fbft_export.tensorrt_builder import Plan, build_plan, offered_targets, require_targets, targets_by_plan

_LEAST_MOST_TILES = 16


@dataclass(frozen=True, slots=True)
class TensorRtSettings:
    """How to build a TensorRT engine.

    Attributes:
        precision: `fp16` or `f32`.
        targets: GPUs, `sm_86` for example; None is all that TensorRT for RTX lists, or this machine's.
        workspace_bytes: Most scratch memory of any layer; None leaves it to the library.
        timing_cache: File that keeps what TensorRT timed for the next build.
    """

    precision: str = "fp16"
    targets: tuple[str, ...] | None = None
    workspace_bytes: int | None = None
    timing_cache: Path | None = None


def export_openvino(bundle: Bundle, precision: str | None = None) -> tuple[Bundle, Parity]:
    """Accept OpenVINO at a precision for this bundle; OpenVINO compiles the graph itself when it starts.

    Args:
        bundle: With graph and parity reference.
        precision: `bf16` or `f32`; None is the machine's own.

    Returns:
        The bundle, sealed again with the sidecar, and the differences found.

    Raises:
        EngineError: The engine cannot run here, or strays from the reference beyond tolerance; the bundle stays as it
            was.
        BundleError: See `revising`.
    """
    with revising(bundle) as draft:
        draft, parity = add_openvino(draft, precision)
        sealed = seal_bundle(update_report(draft))
    return dataclasses.replace(sealed, path=bundle.path), parity


def add_openvino(draft: Bundle, precision: str | None = None) -> tuple[Bundle, Parity]:
    """`export_openvino` for a bundle that is being made: nothing is sealed, and the report stays as it is."""
    engine = OpenVinoEngine(draft.read(GRAPH), draft.tile.tile_px, precision)
    parity = measure_parity(draft, engine.infer)
    engine.close()
    parity.require_accepted(f"OpenVINO at {engine.precision}", engine.precision)
    sidecar = Sidecar(
        name=engine_name("openvino", engine.precision),
        runtime="openvino",
        version=openvino.__version__,
        targets=(platform.machine(),),
        precision=engine.precision,
        graph_sha256=draft.files[GRAPH],
        parity={"device": parity.as_dict()},
    )
    return write_sidecar(draft, sidecar), parity


def hold_to_thresholds(draft: Bundle) -> Bundle:
    """Hold OpenVINO, at the precision that it runs here, to thresholds that were found anew.

    What sidecars say of verdicts at the former thresholds is taken out.

    Returns:
        The draft with its sidecars and its report brought up to date, to be sealed by the caller.

    Raises:
        EngineError: The engine strays from the reference beyond tolerance, or a verdict flips.
    """
    for sidecar in sidecars(draft):
        places = {place: _without_verdicts(figures) for place, figures in sidecar.parity.items()}
        draft = write_sidecar(draft, dataclasses.replace(sidecar, parity=places))
    return update_report(add_openvino(draft, accepted_precision(draft))[0])


def _without_verdicts(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: figure for name, figure in figures.items() if name not in OF_THRESHOLDS}


def export_tensorrt(
    bundle: Bundle, runtime: str, settings: TensorRtSettings = TensorRtSettings(), progress: Progress = SILENT
) -> tuple[Bundle, Parity]:
    """Build a plan with TensorRT's builder, and compile the CUDA kernels for the same GPUs.

    The engine's arithmetic is run on the CPU and held to float32 first: TensorRT for RTX builds for GPUs that are
    not here. The new engine takes the place of the runtime's others that share a GPU with it.

    Args:
        bundle: With graph and parity reference.
        runtime: `tensorrt` or `tensorrt-rtx`.
        settings: How to build.
        progress: Told what is done.

    Returns:
        The bundle, sealed again with plan, sidecar and kernels, and the differences found.

    Raises:
        EngineError: The library, the GPU or NVRTC is missing, a target is not offered, the library refuses the
            graph, or the arithmetic strays from the reference beyond tolerance; the bundle stays as it was.
        BundleError: See `revising`.
    """
    if settings.targets:
        require_targets(runtime, settings.precision, settings.targets)
    with revising(bundle) as draft:
        draft, parity = _with_tensorrt(draft, runtime, settings, progress)
        sealed = seal_bundle(update_report(draft))
    return dataclasses.replace(sealed, path=bundle.path), parity


def _with_tensorrt(
    draft: Bundle, runtime: str, settings: TensorRtSettings, progress: Progress
) -> tuple[Bundle, Parity]:
    """See `export_tensorrt`; nothing is sealed, and the report stays as it is."""
    targets = settings.targets or offered_targets(runtime, settings.precision)
    label = f"{NAMES[runtime]} at {settings.precision}"
    progress.say(f"{label}: compiling the CUDA kernels for {', '.join(targets)}")
    draft = write_cubins(draft, targets)
    progress.say(f"{label}: trying the engine's arithmetic on the CPU beside float32")
    parity = _emulated_parity(draft, settings.precision)
    parity.require_accepted(label, settings.precision)
    engines = []
    for group in targets_by_plan(runtime, targets):
        progress.say(f"{label}: building the engine for {', '.join(group)}")
        engines.append(_built_engine(draft, runtime, settings, group, parity, progress))
    for sidecar in _sharing_a_gpu(draft, runtime, targets):
        draft = removed(draft, *filter(None, (sidecar.file, sidecar.plan_file)))
        progress.say(f"{label}: takes the place of {sidecar.name}")
    here = target_here()
    for sidecar, plan in engines:
        draft = _with_plan(draft, sidecar, plan)
        progress.say(f"{label}: {sidecar.name} has {len(plan.data) / 1e6:.0f} MB, built in {plan.build_s:.1f} s")
    for sidecar, _ in engines:
        if here in sidecar.targets:
            progress.say(f"{label}: trying {sidecar.name} on this machine's GPU beside float32")
            draft = write_sidecar(draft, _tried_here(draft, sidecar, label))
    return draft, parity


def _with_plan(draft: Bundle, sidecar: Sidecar, plan: Plan) -> Bundle:
    """The draft with an engine: its sidecar and the plan beside it."""
    draft, name = write_sidecar(draft, sidecar), f"{ENGINES}/{sidecar.plan}"
    (draft.path / name).write_bytes(plan.data)
    return written(draft, name)


def _tried_here(draft: Bundle, sidecar: Sidecar, label: str) -> Sidecar:
    """The sidecar with what the engine does on this machine's GPU."""
    parity, activation_bytes = measure_device_parity(draft, partial(TensorRtEngine, draft, sidecar))
    parity.require_accepted(f"{label} on this GPU", sidecar.precision)
    return dataclasses.replace(
        sidecar,
        parity={**sidecar.parity, "device": parity.as_dict()},
        memory_bytes={**sidecar.memory_bytes, "activation": activation_bytes},
    )


def _built_engine(
    bundle: Bundle,
    runtime: str,
    settings: TensorRtSettings,
    targets: tuple[str, ...],
    parity: Parity,
    progress: Progress,
) -> tuple[Sidecar, Plan]:
    batches = profile_batches(bundle)
    plan = build_plan(
        *(runtime, _typed_graph(bundle, settings.precision), bundle.tile.tile_px, batches, targets, progress),
        workspace_bytes=settings.workspace_bytes,
        timing_cache=settings.timing_cache,
    )
    is_default = settings.targets is None and len(targets) > 1
    name = engine_name(runtime, settings.precision, () if is_default else targets)
    sidecar = Sidecar(
        name=name,
        runtime=runtime,
        version=plan.version,
        targets=targets,
        precision=settings.precision,
        graph_sha256=bundle.files[GRAPH],
        plan=f"{name}.plan",
        batches=batches,
        build_s=plan.build_s,
        memory_bytes=plan.memory_bytes,
        parity={"emulated": parity.as_dict()},
    )
    return sidecar, plan


def profile_batches(bundle: Bundle) -> tuple[int, int, int]:
    """Least, best and most tiles a call: best is the first frame size's number of tiles."""
    tiles = [TilePlan(bundle.tile, *size).num_tiles for size in bundle.frame_sizes]
    return 1, next(iter(tiles), 1), max([_LEAST_MOST_TILES, *tiles])


def _emulated_parity(bundle: Bundle, precision: str) -> Parity:
    """What the engine's arithmetic gives on a CPU, beside the reference."""
    return measure_parity(bundle, EmulatedHalfEngine(_typed_graph(bundle, precision, emulated=True)).infer)


def _typed_graph(bundle: Bundle, precision: str, *, emulated: bool = False) -> bytes:
    """The bundle's graph with the types that the engine shall compute in; serialised ONNX."""
    path = bundle.file(GRAPH)
    if precision == "f32":
        return path.read_bytes()
    graph: bytes = half_graph(onnx.load(path), emulated=emulated).SerializeToString()
    return graph


def _sharing_a_gpu(bundle: Bundle, runtime: str, targets: Sequence[str]) -> list[Sidecar]:
    """A runtime's engines for any of these GPUs, which go so that no GPU has two."""
    return [
        sidecar for sidecar in sidecars(bundle) if sidecar.runtime == runtime and set(sidecar.targets) & set(targets)
    ]
