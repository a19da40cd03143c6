"""Everything that only a GPU can show, in one run.

1. Every kernel on the device against its NumPy twin, all pixel formats, odd sizes; again under compute-sanitizer
   where that is installed.
2. Every kernel's time beside the memory floor: the bytes it must move over the copy rate measured in the same run.
3. The whole CUDA path, frame in, detection out, at three frame sizes with ViT-S/14 and ViT-B/14 (random weights: the
   time is the same). The engine is TensorRT where it is installed, else TensorRT for RTX where it knows this GPU,
   else the same model as a captured torch graph in float16, which is then named so.

The last line of stdout is JSON. Runs from the repository alone; needs PyCUDA, NVRTC and, for step 3, torch and timm.
The status is 1 when a kernel differs from its twin, 2 when there is no GPU to try.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("edge", "export", "calibration")]

import numpy as np  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from fbft_edge.bundle.manifest import (  # noqa: E402
    TeacherIdentity,
    Thresholds,
    TileGeometry,
)
from fbft_edge.bundle.reading import GRAPH, Bundle  # noqa: E402
from fbft_edge.bundle.sealing import seal_bundle  # noqa: E402
from fbft_edge.detectors.cuda_driver import CudaDriver, Gpu, cuda_driver, first_gpu  # noqa: E402
from fbft_edge.detectors.device import CudaDetector, DeviceEngine  # noqa: E402
from fbft_edge.detectors.kernels import SOURCES, twins  # noqa: E402
from fbft_edge.detectors.kernels.device_frames import DeviceFrame, DeviceKernels  # noqa: E402
from fbft_edge.detectors.kernels.frame_kernels import FrameKernels  # noqa: E402
from fbft_edge.detectors.tensorrt_library import NAMES  # noqa: E402
from fbft_edge.detectors.tiling import TilePlan, best_tile_px, patch_grid  # noqa: E402
from fbft_edge.errors import EngineError, FbftError  # noqa: E402
from fbft_edge.frames.pixel_format import FrameLayout, PixelFormat  # noqa: E402
from fbft_export.cubins import compile_kernel, write_cubins  # noqa: E402

if TYPE_CHECKING:
    from pycuda import driver as cuda

    from fbft_export.graph import PatchDistanceModel

PATCH_PX, OVERLAP_PATCHES, NUM_PROTOTYPES = 14, 1, 1024
FRAME_SIZES = ((1036, 1036), (2072, 2072), (3000, 4096))
TEACHERS = {"ViT-S/14": "dinov2-small-reg", "ViT-B/14": "dinov2-base-reg"}
# (height, width, tile_px, patch_px, overlap, scale): odd sizes, small frames, other patches, both kinds of scale.
TWIN_CASES = (
    (300, 420, 112, 14, 1, 1.0),
    (301, 423, 112, 14, 2, 1.0),
    (97, 61, 112, 14, 1, 1.0),
    (333, 258, 128, 16, 1, 1.0),
    (512, 770, 112, 14, 1, 0.5),
    (256, 200, 112, 14, 1, 1.37),
)
KERNELS = dict(zip(("tiles", "map", "score"), SOURCES, strict=True))
# So many copies of the buffers are used in turn that the L2 cache does not hold them.
TURNS = 8
REPEATS = 40


def main() -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--only-twins", action="store_true", help="step 1 alone, without compute-sanitizer")
    args = parser.parse_args()
    console = Console(stderr=True, highlight=False, width=200)
    try:
        driver = cuda_driver()
    except EngineError as error:
        print(f"gpu_acceptance: {error}", file=sys.stderr)
        return 2
    gpu = first_gpu(driver)
    console.print(f"{gpu.name}, {gpu.target}, {gpu.memory_bytes / 2**30:.0f} GiB")
    context = driver.Device(0).retain_primary_context()
    context.push()
    try:
        figures = accepted(driver, gpu, args.only_twins, console)
    finally:
        driver.Context.pop()
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures))
    return 1 if figures["kernels_that_differ"] else 0


def accepted(driver: CudaDriver, gpu: Gpu, only_twins: bool, console: Console) -> dict[str, Any]:
    """All steps, as figures fit for JSON."""
    cubins = {source: compile_kernel(source, gpu.target).cubin for source in SOURCES}
    differing = sorted(set(differences(driver, cubins, console)))
    figures: dict[str, Any] = {
        "device": gpu.name,
        "target": gpu.target,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": _commit(),
        "kernels_that_differ": differing,
    }
    if only_twins:
        return figures
    figures["compute_sanitizer"] = sanitized(console)
    copy_rate = measured_copy_rate()
    console.print(f"floor: {copy_rate / 1e12:.2f} TB/s copied on the device")
    figures["copy_bytes_per_s"] = copy_rate
    figures["kernels"] = list(kernel_times(driver, cubins, copy_rate))
    console.print(_table("kernels", figures["kernels"]))
    peak = measured_half_peak(console)
    figures["fp16_flops_per_s"] = peak
    figures["frames"] = list(frame_times(driver, gpu, peak, console))
    console.print(_table("frame in, detection out", figures["frames"]))
    return figures


def differences(driver: CudaDriver, cubins: dict[str, bytes], console: Console) -> Iterator[str]:
    """Names of kernels and cases in which device and twin differ in a single bit."""
    count = 0
    for height, width, tile_px, patch_px, overlap, scale in TWIN_CASES:
        plan = TilePlan(TileGeometry(tile_px, patch_px, overlap, scale), height, width)
        for pixel_format in PixelFormat:
            if pixel_format is PixelFormat.NV12 and (height % 2 or width % 2):
                continue
            kernels = FrameKernels(plan, pixel_format, 0.3, with_map=True)
            for kernel in differing_kernels(driver, kernels, cubins):
                console.print(f"{kernel} differs from its twin: {height}x{width} {pixel_format.value} scale {scale}")
                yield kernel
            count += 1
    console.print(f"{len(SOURCES)} kernels against their twins in {count} cases")


def differing_kernels(driver: CudaDriver, kernels: FrameKernels, cubins: dict[str, bytes]) -> Iterator[str]:
    """Run each kernel on the device from the same buffers as its twin."""
    from pycuda import driver as cuda

    device, stream = DeviceKernels(driver, kernels, cubins), driver.Stream()
    frame = DeviceFrame(driver, kernels, False)
    arrays = random_arrays(kernels)
    launches = (kernels.tiles_launch, kernels.map_launch, kernels.score_launch)
    addresses = {name: frame.addresses.get(name) or device.address(name) for name in kernels.buffers}
    for launch, twin in zip(launches, (twins.frame_to_tiles, twins.map_and_mask, twins.score), strict=True):
        for name, array in arrays.items():
            cuda.memcpy_htod(addresses[name], array)
        device.prepared(launch, frame).on(stream)
        stream.synchronize()
        twin(kernels, arrays)
        found = {name: np.empty_like(array) for name, array in arrays.items()}
        for name, array in found.items():
            cuda.memcpy_dtoh(array, addresses[name])
        if any(found[name].tobytes() != array.tobytes() for name, array in arrays.items()):
            yield launch.source


def random_arrays(kernels: FrameKernels) -> dict[str, np.ndarray]:
    """Buffers with random input and zeroed accumulators."""
    random = np.random.default_rng(sum(kernels.plan.frame_size))
    arrays: dict[str, np.ndarray] = {
        name: np.zeros(buffer.shape, buffer.dtype) for name, buffer in kernels.buffers.items()
    }
    frame = arrays["frame"]
    arrays["frame"] = random.integers(0, np.iinfo(frame.dtype).max, frame.shape, frame.dtype, endpoint=True)
    arrays["distances"][...] = random.gamma(2, 0.2, arrays["distances"].shape)
    return arrays


def sanitized(console: Console) -> str:
    """Step 1 again under compute-sanitizer: what came of it, in words."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return "not installed"
    command = [program, "--error-exitcode", "9", sys.executable, __file__, "--only-twins"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = next((line for line in reversed(done.stdout.splitlines()) if "ERROR SUMMARY" in line), "no summary")
    verdict = f"{last.strip('= ')} (status {done.returncode})"
    console.print(f"compute-sanitizer: {verdict}")
    return verdict


def measured_copy_rate() -> float:
    """Bytes per second of a copy on the device, read and written bytes both counted."""
    from pycuda import driver as cuda

    nbytes = 1 << 30
    source, target, stream = cuda.mem_alloc(nbytes), cuda.mem_alloc(nbytes), cuda.Stream()
    seconds = timed(lambda: cuda.memcpy_dtod_async(int(target), int(source), nbytes, stream), stream, 1)
    source.free()
    target.free()
    return 2 * nbytes / seconds


def timed(action: Callable[[], object], stream: cuda.Stream, calls: int) -> float:
    """Median seconds per call on a stream, several calls between two events."""
    from pycuda import driver as cuda

    action()
    seconds = []
    for _ in range(REPEATS):
        start, end = cuda.Event(), cuda.Event()
        start.record(stream)
        for _ in range(calls):
            action()
        end.record(stream)
        end.synchronize()
        seconds.append(end.time_since(start) / 1e3 / calls)
    return statistics.median(seconds)


def kernel_times(driver: CudaDriver, cubins: dict[str, bytes], copy_rate: float) -> Iterator[dict[str, Any]]:
    """Each kernel at each frame size, RGB, with and without the float map."""
    for height, width in FRAME_SIZES:
        plan = TilePlan(geometry(height, width, 768), height, width)
        for with_map in (False, True):
            kernels = FrameKernels(plan, PixelFormat.RGB8, 0.9, with_map=with_map)
            nbytes = {name: buffer.nbytes for name, buffer in kernels.buffers.items()}
            moved = {
                "tiles": nbytes["frame"] + nbytes["tiles"],
                "map": sum(nbytes.get(name, 0) for name in ("distances", "grid", "mask", "row_peaks", "map")),
                "score": nbytes["row_peaks"] + nbytes["histogram_counts"] + nbytes["histogram_residuals"],
            }
            for name, seconds in _times_of(driver, kernels, cubins).items():
                if with_map and name != "map":
                    continue
                floor_s = moved[name] / copy_rate
                yield {
                    "kernel": KERNELS[name] + (" with map" if with_map else ""),
                    "frame": f"{height}x{width}",
                    "us": 1e6 * seconds,
                    "floor_us": 1e6 * floor_s,
                    "share_of_floor": floor_s / seconds,
                }


def _times_of(driver: CudaDriver, kernels: FrameKernels, cubins: dict[str, bytes]) -> dict[str, float]:
    from pycuda import driver as cuda

    stream, arrays = driver.Stream(), random_arrays(kernels)
    turns = []
    for _ in range(TURNS):
        device, frame = DeviceKernels(driver, kernels, cubins), DeviceFrame(driver, kernels, False)
        cuda.memcpy_htod(frame.addresses["frame"], arrays["frame"])
        cuda.memcpy_htod(device.address("distances"), arrays["distances"])
        launches = (kernels.tiles_launch, kernels.map_launch, kernels.score_launch)
        # Whoever holds the launches must hold the memory, too.
        turns.append((device, frame, [device.prepared(launch, frame) for launch in launches]))

    def all_turns(index: int) -> Callable[[], None]:
        def run() -> None:
            for _, _, prepared in turns:
                prepared[index].on(stream)

        return run

    return {name: timed(all_turns(index), stream, 1) / TURNS for index, name in enumerate(KERNELS)}


def geometry(height: int, width: int, embed_dim: int) -> TileGeometry:
    """The tiles that `fbft-calibrate fit` would choose."""
    grid = patch_grid((height, width), PATCH_PX)
    return TileGeometry(best_tile_px(grid, PATCH_PX, OVERLAP_PATCHES, embed_dim), PATCH_PX, OVERLAP_PATCHES)


def measured_half_peak(console: Console) -> float | None:
    """FLOP/s of float16 matrix products; None without torch."""
    try:
        import torch
    except ImportError as error:
        console.print(f"torch is missing ({error}): no float16 peak, and no captured graph")
        return None
    event: Any = torch.cuda.Event  # typed in some versions of torch only
    side = 8192
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.float16) for _ in range(2))
    seconds = []
    for _ in range(12):
        start, end = (event(enable_timing=True) for _ in range(2))
        start.record()
        torch.matmul(a, b)
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    rate = float(2 * side**3 / statistics.median(seconds))
    console.print(f"floor: {rate / 1e12:.0f} TFLOP/s in float16 matrix products")
    return rate


def frame_times(driver: CudaDriver, gpu: Gpu, peak: float | None, console: Console) -> Iterator[dict[str, Any]]:
    """Latency and rate of whole frames, by teacher and frame size."""
    from pycuda import driver as cuda

    for label, teacher in TEACHERS.items():
        for height, width in FRAME_SIZES:
            with tempfile.TemporaryDirectory() as folder:
                free_before = cuda.mem_get_info()[0]
                try:
                    bundle, model = acceptance_bundle(Path(folder), teacher, height, width, gpu)
                    name, make_engine = engine_for_acceptance(bundle, model, gpu, console)
                    detector = CudaDetector(bundle, FrameLayout(height, width), make_engine)
                except (FbftError, ImportError) as error:
                    console.print(f"{label} at {height}x{width} not run: {error}", markup=False)
                    continue
                flops = frame_flops(model, detector.plan.num_tiles)
                yield {
                    "teacher": label,
                    "frame": f"{height}x{width}",
                    "engine": name,
                    "tiles": detector.plan.num_tiles,
                    "tile_px": bundle.tile.tile_px,
                    **measured_detector(detector, flops, peak),
                    "gpu_memory_mib": (free_before - cuda.mem_get_info()[0]) / 2**20,
                }
                detector.close()


def measured_detector(detector: CudaDetector, flops: int, peak: float | None) -> dict[str, float | None]:
    """One frame at a time for the latency, two in flight for the rate; noise takes the time that pictures take."""
    height, width = detector.plan.frame_size
    frames = [np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8) for seed in range(2)]
    for pixels in frames:
        detector.detect(pixels)
    latencies = []
    for index in range(REPEATS):
        start = time.perf_counter()
        detector.detect(frames[index % 2])
        latencies.append(time.perf_counter() - start)
    start, pending = time.perf_counter(), detector.begin(frames[0])
    for index in range(REPEATS):
        following = detector.begin(frames[index % 2])
        pending()
        pending = following
    rate_hz = REPEATS / (time.perf_counter() - start)
    pending()
    return {
        "latency_p50_ms": 1e3 * float(np.quantile(latencies, 0.5)),
        "latency_p99_ms": 1e3 * float(np.quantile(latencies, 0.99)),
        "frames_per_s": rate_hz,
        "share_of_fp16_peak": flops * rate_hz / peak if peak else None,
    }


def acceptance_bundle(
    folder: Path, teacher_name: str, height: int, width: int, gpu: Gpu
) -> tuple[Bundle, PatchDistanceModel]:
    """A bundle with random weights, kernels for this GPU, and no graph yet."""
    import torch

    from fbft_export.graph import PatchDistanceModel
    from fbft_export.prototypes import Prototypes
    from fbft_export.students import Students
    from fbft_export.teacher import load_teacher

    embed_dim = {"dinov2-small-reg": 384, "dinov2-base-reg": 768}[teacher_name]
    tile = geometry(height, width, embed_dim)
    teacher = load_teacher(teacher_name, tile_px=tile.tile_px, pretrained=False)
    bundle = Bundle(
        path=folder,
        product="acceptance",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        teacher=TeacherIdentity(teacher_name, teacher.weights_sha256, teacher.embed_dim, teacher.blocks),
        tile=tile,
        frame_sizes=((height, width),),
        thresholds=Thresholds(4.0, 4.0, 0.01, 0.01, 0.01, 1),
    )
    write_cubins(bundle, [gpu.target])
    directions = torch.nn.functional.normalize(torch.randn(NUM_PROTOTYPES, teacher.embed_dim), dim=-1)
    return seal_bundle(bundle), PatchDistanceModel(teacher, Students(teacher.embed_dim), Prototypes(directions))


def engine_for_acceptance(
    bundle: Bundle, model: PatchDistanceModel, gpu: Gpu, console: Console
) -> tuple[str, Callable[[], DeviceEngine]]:
    """The best engine that this machine has, with its name."""
    for runtime in NAMES:
        try:
            return runtime, tensorrt_engine(bundle, model, runtime, gpu, console)
        except (EngineError, ImportError) as error:
            console.print(f"not {runtime}: {error}", markup=False, soft_wrap=True)
    return "captured torch graph, float16", lambda: CapturedGraph(model)


def tensorrt_engine(
    bundle: Bundle, model: PatchDistanceModel, runtime: str, gpu: Gpu, console: Console
) -> Callable[[], DeviceEngine]:
    """Build the FP16 engine for this GPU with NVIDIA's builder."""
    import onnx

    from fbft_edge.bundle.engines import Sidecar
    from fbft_edge.bundle.reading import ENGINES
    from fbft_edge.cli.terminal import TerminalProgress
    from fbft_edge.detectors.tensorrt_engine import TensorRtEngine
    from fbft_export.engines import profile_batches
    from fbft_export.graph import write_graph
    from fbft_export.half_precision import half_graph
    from fbft_export.tensorrt_builder import build_plan, require_targets

    require_targets(runtime, "fp16", [gpu.target])
    write_graph(model, bundle.path / GRAPH)
    graph = half_graph(onnx.load(bundle.path / GRAPH)).SerializeToString()
    batches = profile_batches(bundle)
    plan = build_plan(runtime, graph, bundle.tile.tile_px, batches, [gpu.target], TerminalProgress(console))
    (bundle.path / ENGINES).mkdir(exist_ok=True)
    (bundle.path / ENGINES / "acceptance.plan").write_bytes(plan.data)
    sealed = seal_bundle(bundle)
    sidecar = Sidecar(
        name="acceptance",
        runtime=runtime,
        version=plan.version,
        targets=(gpu.target,),
        precision="fp16",
        graph_sha256=sealed.files[GRAPH],
        plan="acceptance.plan",
        batches=batches,
    )
    return lambda: TensorRtEngine(sealed, sidecar)


class CapturedGraph:
    """The model in torch float16 as one captured CUDA graph, in the place of a TensorRT engine."""

    def __init__(self, model: PatchDistanceModel) -> None:
        import torch

        self._torch = torch
        self._model = model.half().cuda()

    @property
    def memory_bytes(self) -> int:
        """What torch holds."""
        return int(self._torch.cuda.memory_reserved())

    def bind(self, tiles: int, distances: int, num_tiles: int) -> None:
        """Capture one frame's inference on the detector's own memory."""
        torch, teacher = self._torch, self._model.teacher
        side = teacher.tile_px // teacher.patch_px
        source = self._tensor(tiles, (num_tiles, teacher.tile_px, teacher.tile_px, 3), "|u1")
        target = self._tensor(distances, (num_tiles, side, side), "<f4")
        with torch.inference_mode():
            for _ in range(3):
                target.copy_(self._model(source))
            torch.cuda.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                target.copy_(self._model(source))
        self._kept = source, target

    def enqueue(self, stream_handle: int) -> None:
        """Replay the graph on a stream."""
        external: Any = self._torch.cuda.ExternalStream  # typed in some versions of torch only
        with self._torch.cuda.stream(external(stream_handle)):
            self._graph.replay()

    def close(self) -> None:
        """Give the graph's memory back."""
        del self._graph, self._kept, self._model
        self._torch.cuda.empty_cache()

    def _tensor(self, address: int, shape: tuple[int, ...], kind: str) -> Any:
        class Memory:
            __cuda_array_interface__ = {  # noqa: RUF012
                "shape": shape,
                "typestr": kind,
                "data": (address, False),
                "version": 3,
            }

        return self._torch.as_tensor(Memory(), device="cuda")


def frame_flops(model: PatchDistanceModel, num_tiles: int) -> int:
    """FLOPs of one frame's matrix products: patch embedding, blocks up to k, both students, prototypes."""
    teacher = model.teacher
    patches = (teacher.tile_px // teacher.patch_px) ** 2
    tokens, width, blocks = patches + teacher.vit.num_prefix_tokens, teacher.embed_dim, teacher.blocks[1] + 1
    embedding = 2 * patches * width * 3 * teacher.patch_px**2
    per_block = 24 * tokens * width**2 + 4 * tokens**2 * width
    students = 2 * 3 * 2 * patches * width**2
    prototypes = 2 * patches * width * NUM_PROTOTYPES
    return int(num_tiles * (embedding + blocks * per_block + students + prototypes))


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title)
    for heading in rows[0] if rows else ():
        table.add_column(heading.replace("_", " "))
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    return table


if __name__ == "__main__":
    sys.exit(main())
