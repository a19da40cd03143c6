"""An ONNX graph in, a TensorRT plan out, through TensorRT's or TensorRT for RTX's own builder.

The graph's types are taken as they are (strongly typed), the one way that works in every version from 10.3 on.
Knows nothing about bundles, teachers or parity.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbft_edge.bundle.reading import GRAPH_INPUT, GRAPH_OUTPUT
from fbft_edge.detectors.cuda_driver import cuda_driver, first_gpu
from fbft_edge.detectors.tensorrt_library import NAMES, Library, load_library, log_of
from fbft_edge.errors import EngineError
from fbft_edge.progress import SILENT, Progress

if TYPE_CHECKING:
    import tensorrt

# TensorRT for RTX 1.7 has no float32 matrix products for it, and a plan that serves it too is slower elsewhere.
_TURING = "sm_75"
_MEMORY = re.compile(r"Total (Activation|Weights) Memory: (\d+) bytes")


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled engine.

    Attributes:
        data: What TensorRT deserialises; executable content.
        version: Of the library that built it.
        build_s: Seconds that building took.
        memory_bytes: Device memory at the largest batch, `activation` and `weights`, as far as the builder says.
    """

    data: bytes
    version: str
    build_s: float
    memory_bytes: Mapping[str, int]


def offered_targets(runtime: str, precision: str) -> tuple[str, ...]:
    """What can be built for here: every GPU that TensorRT for RTX lists; for TensorRT, the GPU of this machine.

    Args:
        runtime: `tensorrt` or `tensorrt-rtx`.
        precision: `fp16` or `f32`.

    Raises:
        EngineError: The library is missing, or TensorRT finds no GPU.
    """
    library = load_library(runtime)
    if runtime == "tensorrt-rtx":
        names = re.findall(r"\bSM(\d+)\b", " ".join(library.ComputeCapability.__members__))
        targets = (f"sm_{name}" for name in names)
        return tuple(target for target in targets if precision == "fp16" or target != _TURING)
    _builder(runtime, library)
    return (first_gpu(cuda_driver()).target,)


def require_targets(runtime: str, precision: str, targets: Sequence[str]) -> None:
    """Stop here unless every target is offered; see `offered_targets`.

    Raises:
        EngineError: One is not.
    """
    offered = offered_targets(runtime, precision)
    if missing := [target for target in targets if target not in offered]:
        if runtime == "tensorrt":
            remedy = "leave --target out here, and run fbft-export on the machine whose GPU that is"
        elif missing == [_TURING]:
            remedy = "choose among these, or use --precision fp16"
        else:
            remedy = "choose among these; Jetson and data-centre GPUs take --runtime tensorrt, on the machine itself"
        raise EngineError(
            f"{NAMES[runtime]} {load_library(runtime).__version__} does not build {precision} engines for "
            f"{', '.join(missing)} here, only for {', '.join(offered)}; {remedy}"
        )


def targets_by_plan(runtime: str, targets: Sequence[str]) -> list[tuple[str, ...]]:
    """Which targets share a plan: all do but Turing, whose plan holds other code and slows the others down.

    A plan for five targets is as large as one for one: TensorRT for RTX compiles the rest where it is loaded.
    """
    alone = [target for target in targets if runtime == "tensorrt-rtx" and target == _TURING]
    return [group for group in (tuple(target for target in targets if target not in alone), tuple(alone)) if group]


def build_plan(
    runtime: str,
    graph: bytes,
    tile_px: int,
    batches: tuple[int, int, int],
    targets: Sequence[str],
    progress: Progress = SILENT,
    *,
    workspace_bytes: int | None = None,
    timing_cache: Path | None = None,
) -> Plan:
    """Compile a graph.

    Args:
        runtime: `tensorrt` or `tensorrt-rtx`.
        graph: Serialised ONNX, (batch, tile_px, tile_px, 3) uint8 `tiles` to float32 `distances`.
        tile_px: Side of a tile.
        batches: Least, best and most tiles a call.
        targets: Of `offered_targets`; TensorRT builds for this machine's GPU alone.
        progress: Shown the builder's phases.
        workspace_bytes: Most scratch memory of any layer; None leaves it to the library.
        timing_cache: File that keeps what TensorRT timed for the next build; made if it is not there.

    Raises:
        EngineError: The library or the GPU is missing, or the library refuses the graph or the settings.
    """
    library, log = load_library(runtime), log_of(runtime)
    log.clear()
    started = time.perf_counter()
    builder = _builder(runtime, library)
    network, parser = _parsed(runtime, library, builder, graph)
    _require_signature(network, tile_px)
    config = builder.create_builder_config()
    config.clear_flag(library.BuilderFlag.TF32)  # float32 shall mean float32
    if runtime == "tensorrt-rtx":
        _set_targets(library, config, targets)
    if workspace_bytes is not None:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, workspace_bytes)
    if timing_cache is not None:
        _load_timing_cache(runtime, config, timing_cache)
    _add_profile(runtime, builder, config, tile_px, batches)
    with _progress_shown(library, config, progress):
        memory = builder.build_serialized_network(network, config)
    del parser  # which owns weights that the network refers to while it is built
    if memory is None:
        raise EngineError(
            f"{NAMES[runtime]} {library.__version__} cannot build the engine ({log.cause}); free GPU memory, "
            "or give it more scratch memory with --workspace-mib"
        )
    if timing_cache is not None:
        _save_timing_cache(config, timing_cache)
    stated = {kind.lower(): int(size) for kind, size in _MEMORY.findall(log.text)}
    return Plan(bytes(memory), library.__version__, time.perf_counter() - started, stated)


def _builder(runtime: str, library: Library) -> tensorrt.Builder:
    log = log_of(runtime)
    try:
        return library.Builder(log.logger)
    except (TypeError, RuntimeError) as error:  # the bindings' way to say that no builder could be made
        raise EngineError(
            f"{NAMES[runtime]} {library.__version__} builds on the GPU that its engines are for, and finds none here "
            f"({log.missing_gpu or log.cause}); run fbft-export on that machine, or build for desktop GPUs with "
            "--runtime tensorrt-rtx"
        ) from error


def _parsed(
    runtime: str, library: Library, builder: tensorrt.Builder, graph: bytes
) -> tuple[tensorrt.INetworkDefinition, tensorrt.OnnxParser]:
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, log_of(runtime).logger)
    if not parser.parse(graph):
        causes = "; ".join(parser.get_error(index).desc().strip() for index in range(parser.num_errors))
        raise EngineError(
            f"{NAMES[runtime]} {library.__version__} cannot read the bundle's graph ({causes}); "
            "install a newer version of it, or fit the bundle again with this version of fbft-edge"
        )
    return network, parser


def _require_signature(network: tensorrt.INetworkDefinition, tile_px: int) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    found = [(tensor.name, tensor.dtype.name, tuple(tensor.shape)) for tensor in (*inputs, *outputs)]
    names_and_types = [(name, dtype) for name, dtype, _ in found]
    expected = [(GRAPH_INPUT, "UINT8"), (GRAPH_OUTPUT, "FLOAT")]
    if names_and_types != expected or found[0][2] != (-1, tile_px, tile_px, 3):
        raise EngineError(
            f"the graph has the tensors {found}, expected uint8 {GRAPH_INPUT} of {tile_px}x{tile_px} px and float32 "
            f"{GRAPH_OUTPUT}; fit the bundle again"
        )


def _set_targets(library: Library, config: tensorrt.IBuilderConfig, targets: Sequence[str]) -> None:
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        capability = library.ComputeCapability.__members__[target.replace("sm_", "SM")]
        if not config.set_compute_capability(capability, index):
            raise EngineError(f"{NAMES['tensorrt-rtx']} refuses the target {target}; leave it out of --target")


def _add_profile(
    runtime: str,
    builder: tensorrt.Builder,
    config: tensorrt.IBuilderConfig,
    tile_px: int,
    batches: tuple[int, int, int],
) -> None:
    least, best, most = ((batch, tile_px, tile_px, 3) for batch in batches)
    profile = builder.create_optimization_profile()
    profile.set_shape(GRAPH_INPUT, least, best, most)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(
            f"{NAMES[runtime]} refuses batches of {batches[0]}, {batches[1]} and {batches[2]} tiles "
            f"({log_of(runtime).cause}); fit the bundle again with larger tiles"
        )


def _load_timing_cache(runtime: str, config: tensorrt.IBuilderConfig, path: Path) -> None:
    cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise EngineError(
            f"the timing cache {path} is of another GPU or another TensorRT ({log_of(runtime).cause}); "
            "name another file, or remove this one"
        )


def _save_timing_cache(config: tensorrt.IBuilderConfig, path: Path) -> None:
    cache = config.get_timing_cache()
    if cache is not None:
        partial = path.with_name(f"{path.name}.partial")
        partial.write_bytes(bytes(cache.serialize()))
        partial.replace(path)


@contextlib.contextmanager
def _progress_shown(library: Library, config: tensorrt.IBuilderConfig, progress: Progress) -> Iterator[None]:
    """Every phase that the builder is in is work to be tracked; Ctrl-C ends the build at its next step."""
    phases: dict[str, Iterator[int]] = {}
    with _interruptible() as interrupted:
        config.progress_monitor = _monitor(library, progress, phases, interrupted)
        try:
            yield
        finally:
            config.progress_monitor = None
            for name in reversed(tuple(phases)):
                _exhaust(phases.pop(name))


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Note Ctrl-C and raise it at the end: TensorRT swallows exceptions that are raised in its callbacks."""
    interrupted = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGINT, lambda *_: interrupted.set()) if is_main else None
    try:
        yield interrupted
    finally:
        if is_main:
            signal.signal(signal.SIGINT, previous or signal.SIG_DFL)
    if interrupted.is_set():
        raise KeyboardInterrupt


def _monitor(
    library: Library, progress: Progress, phases: dict[str, Iterator[int]], interrupted: threading.Event
) -> tensorrt.IProgressMonitor:
    """Takes a step of a phase's items where the builder takes one; phases may be in threads of their own."""
    class_of_library: Any = library.IProgressMonitor
    lock = threading.Lock()

    class Monitor(class_of_library):  # type: ignore[misc]  # which library's class it is shows only here
        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with lock:
                phases[phase_name] = progress.track(range(num_steps), phase_name)
                next(phases[phase_name], None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with lock:
                next(phases[phase_name], None)
            return not interrupted.is_set()

        def phase_finish(self, phase_name: str) -> None:
            with lock:
                _exhaust(phases.pop(phase_name))

    monitor: tensorrt.IProgressMonitor = Monitor()
    return monitor


def _exhaust(items: Iterator[int]) -> None:
    """What is tracked goes away when its items end."""
    for _ in items:
        pass
