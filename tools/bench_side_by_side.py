"""One frame, the same weights, in turn: anomalib's L2BT in torch, its OpenVINO export, our bundle.

    pip install -e ".[calibration,peers]" && python tools/bench_side_by_side.py [--size 1036] [--rounds 5]

Weights are random (speed does not depend on them), copied from anomalib's model into ours. Prints the machine's
floor first, checks that the maps of one 518 px tile agree, and ends with one JSON line. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from rich.console import Console
from rich.table import Table

from fbft_edge.bundle.manifest import TeacherIdentity, TileGeometry
from fbft_edge.bundle.reading import GRAPH, Bundle
from fbft_edge.bundle.sealing import seal_bundle
from fbft_edge.cli.reports import show_timing
from fbft_edge.cli.terminal import TerminalProgress
from fbft_edge.detectors.anomaly_map import MapOperator
from fbft_edge.detectors.host import OpenVinoDetector, native_precision, openvino_core
from fbft_edge.detectors.tiling import best_tile_px, patch_grid
from fbft_edge.frames.pixel_format import layout_of
from fbft_edge.jobs.bench import bench, measure_floors
from fbft_export.engines import export_openvino
from fbft_export.graph import PatchDistanceModel, write_graph
from fbft_export.parity import PARITY_FILE
from fbft_export.reference import write_reference
from fbft_export.students import Students
from fbft_export.teacher import Teacher, load_teacher

TEACHER = "vit_base_patch14_reg4_dinov2"
BLOCKS = (7, 11)
OVERLAPS = {"fbft-edge": 1, "fbft-edge, touching tiles": 0}


def main() -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", type=int, default=1036, help="side of the frame in pixels, a multiple of 14")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    console = Console(stderr=True)
    warnings.simplefilter("ignore")
    floors = measure_floors(native_precision(), 768)
    console.print(f"floor: {floors.flops_per_s / 1e12:.2f} TFLOP/s in {floors.precision} matrix products")
    with tempfile.TemporaryDirectory() as folder:
        figures = _compare(Path(folder), args.size, args.rounds, console)
    print(json.dumps({**figures, "floor_flops_per_s": floors.flops_per_s, "load_average": os.getloadavg()[0]}))
    return 0


def _compare(folder: Path, size: int, rounds: int, console: Console) -> dict[str, Any]:
    peer = _anomalib_model(size)
    agreement = _map_agreement(peer.model)
    console.print(f"maps of one 518 px tile agree to {agreement:.1e} of the largest value")
    exported = _anomalib_openvino(peer, folder, size)
    bundles = {
        name: _our_bundle(peer.model, folder / f"{overlap}.fbft", size, overlap) for name, overlap in OVERLAPS.items()
    }
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    actions = {
        "anomalib torch float32": _torch_action(peer.model, pixels),
        "anomalib OpenVINO": _openvino_action(exported, pixels),
        **{name: _our_action(bundle, pixels) for name, bundle in bundles.items()},
    }
    times = _interleaved(actions, rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {ours: {name: _ratio(values, times[ours]) for name, values in times.items()} for ours in bundles}
    table = Table("runtime", "s per frame", "min", "max", title=f"{size}x{size}, ViT-B/14 {BLOCKS}")
    for ours in bundles:
        table.add_column(f"times {ours}")
    for name, values in times.items():
        numbers = medians[name], min(values), max(values)
        table.add_row(name, *(f"{value:.3f}" for value in numbers), *(f"{ratios[ours][name]:.2f}" for ours in bundles))
    console.print(table)
    stages = {}
    for name, bundle in bundles.items():
        timing = bench(bundle, size, size, 3, TerminalProgress(console))
        show_timing(timing, console)
        stages[name] = timing.figures
    return {
        "size": size,
        "rounds": rounds,
        "tile_px": {name: bundle.tile.tile_px for name, bundle in bundles.items()},
        "map_agreement": agreement,
        "median_s": medians,
        "ratios": ratios,
        "outside_model_share": {name: figures["outside_model_share"] for name, figures in stages.items()},
        "flops_share_of_peak": {name: figures["flops_share_of_peak"] for name, figures in stages.items()},
    }


@contextlib.contextmanager
def _without_hub() -> Iterator[None]:
    """anomalib always asks the hub for pretrained weights; timing needs none."""
    create = timm.create_model

    def create_random(name: str, **options: Any) -> torch.nn.Module:
        return create(name, **{**options, "pretrained": False})

    timm.create_model = create_random  # type: ignore[assignment]  # a narrower signature serves anomalib's call
    try:
        yield
    finally:
        timm.create_model = create


def _anomalib_model(size: int) -> Any:
    """anomalib's L2BT with random weights of a size at which every block matters."""
    from anomalib.models import L2BT

    torch.manual_seed(0)
    with _without_hub():
        peer = L2BT(layers=BLOCKS, pre_processor=L2BT.configure_pre_processor((size, size)))
    with torch.no_grad():
        for name, parameter in peer.model.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.2)
    return peer.eval()


def _our_model(peer: Any, tile_px: int) -> PatchDistanceModel:
    """Our model with the peer's weights, students and teacher."""
    teacher = load_teacher(TEACHER, tile_px=tile_px, blocks=BLOCKS, pretrained=False)
    theirs = {name.removeprefix("feature_extractor."): value for name, value in peer.teacher.fe.state_dict().items()}
    state = timm.models.vision_transformer.checkpoint_filter_fn(theirs, teacher.vit)
    missing = teacher.vit.load_state_dict(state, strict=False).missing_keys
    if missing:
        sys.exit(f"weights do not carry over: {missing[:3]}")
    students = Students(teacher.embed_dim)
    for ours, other in ((students.forward_student, peer.forward_net), (students.backward_student, peer.backward_net)):
        ours.load_state_dict(dict(zip(ours.state_dict(), other.state_dict().values(), strict=True)))
    return PatchDistanceModel(teacher, students)


def _map_agreement(peer: Any) -> float:
    """Largest difference of the two maps of one 518 px tile, over the largest value; torch float32 both."""
    model = _our_model(peer, 518)
    tile = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 518, 518, 3), np.uint8))
    with torch.inference_mode():
        expected = peer(_normalised(tile, model.teacher)).anomaly_map[0, 0].numpy()
        distances = model(tile)[0].numpy()
    found = np.empty((518, 518), np.float32)
    MapOperator((37, 37), 14, (518, 518), (518, 518)).apply(distances, found)
    return float(np.abs(found - expected).max() / expected.max())


def _normalised(tiles: torch.Tensor, teacher: Teacher) -> torch.Tensor:
    pixels = tiles.permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(teacher.mean).view(1, 3, 1, 1)) / torch.tensor(teacher.std).view(1, 3, 1, 1)


def _anomalib_openvino(peer: Any, folder: Path, size: int) -> Any:
    """anomalib's own OpenVINO export, compiled at OpenVINO's own defaults."""
    path = peer.to_openvino(export_root=folder, input_size=(size, size))
    return openvino_core().compile_model(str(path), "CPU")


def _our_bundle(peer: Any, path: Path, size: int, overlap: int) -> Bundle:
    tile_px = best_tile_px(patch_grid((size, size), 14), 14, overlap, 768)
    model = _our_model(peer, tile_px)
    path.mkdir()
    write_graph(model, path / GRAPH)
    tiles = np.random.default_rng(2).integers(0, 256, (2, tile_px, tile_px, 3), np.uint8)
    write_reference(model, tiles, path / PARITY_FILE)
    teacher = TeacherIdentity(TEACHER, model.teacher.weights_sha256, model.teacher.embed_dim, BLOCKS)
    geometry = TileGeometry(tile_px, 14, overlap)
    sealed = seal_bundle(Bundle(path, "bench", "", teacher, geometry, (), None))
    return export_openvino(sealed)[0]


def _torch_action(peer: Any, pixels: np.ndarray) -> Callable[[], object]:
    tiles = torch.from_numpy(pixels[None]).permute(0, 3, 1, 2).float() / 255

    def act() -> object:
        with torch.inference_mode():
            return peer(tiles)

    return act


def _openvino_action(compiled: Any, pixels: np.ndarray) -> Callable[[], object]:
    request = compiled.create_infer_request()
    image = np.ascontiguousarray(pixels[None].transpose(0, 3, 1, 2), np.float32) / 255
    return lambda: request.infer([image])


def _our_action(bundle: Bundle, pixels: np.ndarray) -> Callable[[], object]:
    detector = OpenVinoDetector(bundle, layout_of(pixels))
    return lambda: detector.detect(pixels)


def _ratio(theirs: list[float], ours: list[float]) -> float:
    """Median of the ratios round by round, which drift of the machine's speed does not touch."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def _interleaved(actions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each action, one after the other, round by round, after a warm-up of each."""
    for action in actions.values():
        action()
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            times[name].append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    sys.exit(main())
