"""`fbft-edge bench`: where a frame's time goes, beside what this machine can do at best.

Floors first: the matrix-product rate and the copy bandwidth measured in the same run. Knows nothing about cameras
or messages; frames are noise, on which the pipeline takes the time it takes on pictures.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino
from openvino import opset13

from fbft_edge.bundle.reading import GRAPH, Bundle
from fbft_edge.detectors.host import OpenVinoDetector, accepted_precision, openvino_core
from fbft_edge.detectors.judge import find_regions, image_score
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.errors import ArgumentError
from fbft_edge.frames.frame import Uint8
from fbft_edge.frames.pixel_format import FrameLayout
from fbft_edge.progress import SILENT, Progress

_MODEL_STAGES = ("teacher", "students", "prototypes", "distance")


@dataclass(frozen=True, slots=True)
class Stage:
    """One row: median milliseconds a frame, FLOPs and least bytes moved a frame."""

    name: str
    median_ms: float
    flops: int
    bytes_moved: int


@dataclass(frozen=True, slots=True)
class Floors:
    """What the machine can do at best: FLOP/s of bf16 or float32 matrix products, bytes/s of a copy."""

    precision: str
    flops_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of a frame goes: the floors, the stages in their order, and all figures, fit for JSON."""

    floors: Floors
    stages: tuple[Stage, ...]
    figures: dict[str, Any]


def bench(bundle: Bundle, height: int, width: int, repeats: int, progress: Progress = SILENT) -> Timing:
    """Time every stage of one frame size.

    Args:
        bundle: Whose model runs.
        height: Of a frame, in pixels.
        width: Of a frame, in pixels.
        repeats: The median of so many is taken.
        progress: Told the floors, before any stage is timed.

    Raises:
        ArgumentError: Fewer than one repeat.
    """
    if repeats < 1:
        raise ArgumentError(f"--repeats {repeats} must be at least 1")
    precision = accepted_precision(bundle)
    floors = measure_floors(precision, bundle.teacher.embed_dim)
    progress.say(
        f"floors: {floors.flops_per_s / 1e12:.2f} TFLOP/s in {precision} matrix products, "
        f"{floors.bytes_per_s / 1e9:.1f} GB/s copied"
    )
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    detector = OpenVinoDetector(bundle, FrameLayout(height, width), precision)
    frame_s = _timed(lambda: detector.detect(pixels), repeats)
    stages = [*_model_stages(bundle, detector, repeats), *_own_stages(detector, pixels, repeats)]
    stages.sort(key=lambda stage: ("tiles", *_MODEL_STAGES, "map", "score", "mask").index(stage.name))
    figures = _figures(bundle, detector, floors, stages, frame_s, (height, width))
    return Timing(floors, tuple(stages), figures)


def measure_floors(precision: str, embed_dim: int) -> Floors:
    """Measure the matrix-product rate on the teacher's own shapes, and the copy bandwidth."""
    tokens, hidden, layers = 2048, 4 * embed_dim, 6
    signal: Any = opset13.parameter([tokens, embed_dim], np.float32)
    model_input = signal
    generator = np.random.default_rng(0)
    for index in range(layers):
        shape = (embed_dim, hidden) if index % 2 == 0 else (hidden, embed_dim)
        weight = generator.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0]))
        signal = opset13.matmul(signal, opset13.constant(weight), False, False)
    model = openvino.Model([signal], [model_input])
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    request, tokens_in = compiled.create_infer_request(), generator.standard_normal((tokens, embed_dim), np.float32)
    best_s = min(_times(lambda: request.infer([tokens_in], share_inputs=True), 7))
    source = np.ones(1 << 24, np.float32)
    target = np.empty_like(source)
    copy_s = min(_times(lambda: np.copyto(target, source), 5))
    return Floors(precision, 2 * tokens * embed_dim * hidden * layers / best_s, 2 * source.nbytes / copy_s)


def graph_flops(bundle: Bundle) -> dict[str, int]:
    """FLOPs of one tile in matrix products and convolutions, by part of the model, counted from the graph."""
    model = openvino_core().read_model(bundle.read(GRAPH))
    model.reshape([1, bundle.tile.tile_px, bundle.tile.tile_px, 3])
    totals = dict.fromkeys(_MODEL_STAGES, 0)
    for operation in model.get_ordered_ops():
        if operation.get_type_name() in ("MatMul", "Convolution"):
            totals[_part(operation.get_friendly_name())] += _operation_flops(operation)
    return totals


def _operation_flops(operation: Any) -> int:
    outputs = int(np.prod(list(operation.get_output_shape(0))))
    weight = list(operation.get_input_shape(1))
    if operation.get_type_name() == "Convolution":
        return 2 * outputs * int(np.prod(weight[1:]))
    shared = list(operation.get_input_shape(0))[-2 if operation.get_attributes()["transpose_a"] else -1]
    return 2 * outputs * int(shared)


def _part(name: str) -> str:
    owner = name.split("/")[0]
    return owner if owner in _MODEL_STAGES else "teacher"


def _model_stages(bundle: Bundle, detector: OpenVinoDetector, repeats: int) -> Iterator[Stage]:
    """Teacher, students, prototypes and distance: the engine's time, shared out by its own profile of one tile."""
    plan = detector.plan
    tiles = np.random.default_rng(1).integers(
        0, 256, (plan.num_tiles, bundle.tile.tile_px, bundle.tile.tile_px, 3), np.uint8
    )
    out = np.empty((plan.num_tiles, bundle.tile.tile_patches, bundle.tile.tile_patches), np.float32)
    total_ms = 1e3 * _timed(lambda: detector.engine.infer(tiles, out), repeats)
    shares, flops = _profile(bundle, detector.engine.precision, tiles[:1]), graph_flops(bundle)
    width = 2 if detector.engine.precision == "bf16" else 4
    weights = bundle.file(GRAPH).stat().st_size * width // 4
    student_weights = 2 * 3 * bundle.teacher.embed_dim**2 * width
    prototype_weights = flops["prototypes"] // (2 * bundle.tile.tile_patches**2) * width  # each serves every patch once
    for name in _MODEL_STAGES:
        moved = {
            "teacher": tiles.nbytes + weights - student_weights - prototype_weights,
            "students": student_weights,
            "prototypes": prototype_weights,
            "distance": out.nbytes,
        }
        yield Stage(name, total_ms * shares[name], flops[name] * plan.num_tiles, moved[name])


def _profile(bundle: Bundle, precision: str, tile: Uint8) -> dict[str, float]:
    core = openvino_core()
    model = core.read_model(bundle.read(GRAPH))
    model.reshape(list(tile.shape))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision, "PERF_COUNT": True})
    request = compiled.create_infer_request()
    seconds = dict.fromkeys(_MODEL_STAGES, 0.0)
    for _ in range(3):
        request.infer([tile])
    for node in request.profiling_info:
        seconds[_part(node.node_name)] += node.real_time.total_seconds()
    total = sum(seconds.values()) or 1.0
    return {name: value / total for name, value in seconds.items()}


def _own_stages(detector: OpenVinoDetector, pixels: Uint8, repeats: int) -> Iterator[Stage]:
    plan: TilePlan = detector.plan
    side, patches = plan.geometry.tile_px, plan.geometry.tile_patches
    tiles = np.empty((plan.num_tiles, side, side, 3), np.uint8)
    distances = np.random.default_rng(2).random((plan.num_tiles, patches, patches), np.float32)
    anomaly_map = np.empty(plan.frame_size, np.float32)

    def make_map() -> None:
        detector.map_operator.apply(plan.stitch(distances), anomaly_map)

    def make_mask() -> None:
        mask = anomaly_map > threshold
        find_regions(mask, anomaly_map)

    height, width = plan.frame_size
    yield Stage("tiles", 1e3 * _timed(lambda: plan.cut(pixels, tiles), repeats), 0, 2 * tiles.nbytes)
    map_flops = detector.map_operator.flops
    yield Stage("map", 1e3 * _timed(make_map, repeats), map_flops, distances.nbytes + anomaly_map.nbytes)
    threshold = float(np.quantile(anomaly_map, 0.999))
    yield Stage("score", 1e3 * _timed(lambda: image_score(anomaly_map), repeats), 0, anomaly_map.nbytes)
    yield Stage("mask", 1e3 * _timed(make_mask, repeats), height * width, anomaly_map.nbytes + height * width)


def _times(action: Callable[[], object], repeats: int) -> list[float]:
    action()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return taken


def _timed(action: Callable[[], object], repeats: int) -> float:
    return statistics.median(_times(action, repeats))


def _figures(
    bundle: Bundle,
    detector: OpenVinoDetector,
    floors: Floors,
    stages: list[Stage],
    frame_s: float,
    size: tuple[int, int],
) -> dict[str, Any]:
    flops = sum(stage.flops for stage in stages)
    own_ms = sum(stage.median_ms for stage in stages if stage.name not in _MODEL_STAGES)
    return {
        "bundle_sha256": bundle.sha256,
        "teacher": bundle.teacher.name,
        "engine": f"openvino {openvino.__version__} {floors.precision}",
        "frame": list(size),
        "tiles": detector.plan.num_tiles,
        "tile_px": bundle.tile.tile_px,
        "frame_ms": 1e3 * frame_s,
        "frames_per_s": 1 / frame_s,
        "flops": flops,
        "flops_share_of_peak": flops / frame_s / floors.flops_per_s,
        "outside_model_share": own_ms / (1e3 * frame_s),
        "floors": {"flops_per_s": floors.flops_per_s, "bytes_per_s": floors.bytes_per_s},
        "stages_ms": {stage.name: stage.median_ms for stage in stages},
    }
