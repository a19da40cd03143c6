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
from rich.console import Console

from fbft_edge.bundle.engines import Sidecar, sidecars, write_sidecar
from fbft_edge.bundle.reading import ENGINES, GRAPH, Bundle
from fbft_edge.bundle.sealing import seal_bundle
from fbft_edge.detectors.host import OpenVinoEngine, accepted_precision
from fbft_edge.detectors.tensorrt_engine import TensorRtEngine
from fbft_edge.detectors.tensorrt_library import NAMES
from fbft_edge.detectors.tiling import TilePlan
from fbft_export.cubins import write_cubins
from fbft_export.device_parity import measure_device_parity, target_here
from fbft_export.engine_report import update_report
from fbft_export.half_precision import EmulatedHalfEngine, half_graph
from fbft_export.parity import OF_THRESHOLDS, Parity, measure_parity
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
        EngineError: The engine cannot run here, or strays from the reference beyond tolerance.
    """
    engine = OpenVinoEngine(bundle.read(GRAPH), bundle.tile.tile_px, precision)
    parity = measure_parity(bundle, engine.infer)
    engine.close()
    parity.require_accepted(f"OpenVINO at {engine.precision}", engine.precision)
    sidecar = Sidecar(
        name=f"openvino-{engine.precision}",
        runtime="openvino",
        version=openvino.__version__,
        targets=(platform.machine(),),
        precision=engine.precision,
        graph_sha256=bundle.files[GRAPH],
        parity={"device": parity.as_dict()},
    )
    write_sidecar(bundle, sidecar)
    update_report(seal_bundle(bundle))  # the report has the engines that the manifest lists
    return seal_bundle(bundle), parity


def hold_to_thresholds(bundle: Bundle) -> Bundle:
    """Hold OpenVINO, at the precision that it runs here, to thresholds that were found anew.

    What sidecars say of verdicts at the former thresholds is taken out.

    Returns:
        The bundle, sealed again.

    Raises:
        EngineError: The engine strays from the reference beyond tolerance, or a verdict flips.
    """
    for sidecar in sidecars(bundle):
        places = {place: _without_verdicts(figures) for place, figures in sidecar.parity.items()}
        write_sidecar(bundle, dataclasses.replace(sidecar, parity=places))
    return export_openvino(seal_bundle(bundle), accepted_precision(bundle))[0]


def _without_verdicts(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: figure for name, figure in figures.items() if name not in OF_THRESHOLDS}


def export_tensorrt(
    bundle: Bundle, runtime: str, settings: TensorRtSettings, console: Console
) -> tuple[Bundle, Parity]:
    """Build a plan with TensorRT's builder, and compile the CUDA kernels for the same GPUs.

    The engine's arithmetic is run on the CPU and held to float32 first: TensorRT for RTX builds for GPUs that are
    not here. The new engine takes the place of the runtime's others that share a GPU with it.

    Args:
        bundle: With graph and parity reference.
        runtime: `tensorrt` or `tensorrt-rtx`.
        settings: How to build.
        console: Told what is done.

    Returns:
        The bundle, sealed again with plan, sidecar and kernels, and the differences found.

    Raises:
        EngineError: The library, the GPU or NVRTC is missing, a target is not offered, the library refuses the
            graph, or the arithmetic strays from the reference beyond tolerance.
    """
    if settings.targets:
        require_targets(runtime, settings.precision, settings.targets)
    targets = settings.targets or offered_targets(runtime, settings.precision)
    label = f"{NAMES[runtime]} at {settings.precision}"
    say = partial(console.print, highlight=False, soft_wrap=True)
    say(f"{label}: compiling the CUDA kernels for {', '.join(targets)}")
    write_cubins(bundle, targets)
    say(f"{label}: trying the engine's arithmetic on the CPU beside float32")
    parity = _emulated_parity(bundle, settings.precision)
    parity.require_accepted(label, settings.precision)
    engines = []
    for group in targets_by_plan(runtime, targets):
        say(f"{label}: building the engine for {', '.join(group)}")
        engines.append(_built_engine(bundle, runtime, settings, group, parity, console))
    for name in _remove_engines(bundle, runtime, targets):
        say(f"{label}: takes the place of {name}")
    for sidecar, plan in engines:
        write_sidecar(bundle, sidecar)
        (bundle.path / ENGINES / f"{sidecar.name}.plan").write_bytes(plan.data)
        say(f"{label}: {sidecar.name} has {len(plan.data) / 1e6:.0f} MB, built in {plan.build_s:.1f} s")
    bundle, here = seal_bundle(bundle), target_here()
    for sidecar, _ in engines:
        if here in sidecar.targets:
            say(f"{label}: trying {sidecar.name} on this machine's GPU beside float32")
            write_sidecar(bundle, _tried_here(bundle, sidecar, label))
    update_report(bundle)
    return seal_bundle(bundle), parity


def _tried_here(bundle: Bundle, sidecar: Sidecar, label: str) -> Sidecar:
    """The sidecar with what the engine does on this machine's GPU."""
    parity, activation_bytes = measure_device_parity(bundle, partial(TensorRtEngine, bundle, sidecar))
    parity.require_accepted(f"{label} on this GPU", sidecar.precision)
    return dataclasses.replace(
        sidecar,
        parity={**sidecar.parity, "device": parity.as_dict()},
        memory_bytes={**sidecar.memory_bytes, "activation": activation_bytes},
    )


def _built_engine(
    bundle: Bundle, runtime: str, settings: TensorRtSettings, targets: tuple[str, ...], parity: Parity, console: Console
) -> tuple[Sidecar, Plan]:
    batches = profile_batches(bundle)
    plan = build_plan(
        *(runtime, _typed_graph(bundle, settings.precision), bundle.tile.tile_px, batches, targets, console),
        workspace_bytes=settings.workspace_bytes,
        timing_cache=settings.timing_cache,
    )
    is_default = settings.targets is None and len(targets) > 1
    name = "-".join((runtime, settings.precision, *(() if is_default else targets)))
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


def _remove_engines(bundle: Bundle, runtime: str, targets: Sequence[str]) -> list[str]:
    """Remove a runtime's engines for some GPUs, so that no GPU has two; returns their names."""
    replaced = [
        sidecar for sidecar in sidecars(bundle) if sidecar.runtime == runtime and set(sidecar.targets) & set(targets)
    ]
    for sidecar in replaced:
        for name in filter(None, (f"{sidecar.name}.json", sidecar.plan)):
            (bundle.path / ENGINES / name).unlink()
    return [sidecar.name for sidecar in replaced]
