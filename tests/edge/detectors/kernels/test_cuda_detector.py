"""The CUDA detector says what the OpenVINO detector says, and keeps the device's rules: contexts, streams, waits.

The device is this machine: its memory holds what is allocated, its kernels are the real ones compiled as C++, its
streams do nothing until somebody waits for them, and its engine is OpenVINO.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fbft_edge.bundle.reading import GRAPH, Bundle, open_bundle
from fbft_edge.bundle.sealing import seal_bundle
from fbft_edge.detectors.device import CudaDetector
from fbft_edge.detectors.host import OpenVinoDetector, OpenVinoEngine
from fbft_edge.detectors.judge import judge_map
from fbft_edge.detectors.kernels.frame_kernels import Launch
from fbft_edge.errors import BundleError, EngineError
from fbft_edge.frames.pixel_format import FrameLayout, PixelFormat
from fbft_edge.synthetic import render_part

pytest.importorskip("cuda.core", reason="compiling kernels needs the extra tensorrt")

SIZE = (140, 182)
TARGET = "sm_86"
Run = Callable[[Launch, Mapping[str, NDArray[Any]]], None]


class Event:
    def __init__(self, flags: int = 0) -> None:
        self.stream: Stream | None = None
        self.mark = 0

    def record(self, stream: Stream) -> None:
        self.stream, self.mark = stream, stream.push(lambda: None)

    def synchronize(self) -> None:
        assert self.stream is not None, "an event was waited for that nothing records"
        self.stream.run(self.mark)


class Stream:
    """Work in order, done only as far as somebody waits for it."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.pushed = self.done = 0
        self._work: deque[Callable[[], None]] = deque()

    def push(self, work: Callable[[], None]) -> int:
        self._work.append(work)
        self.pushed += 1
        return self.pushed

    def run(self, mark: int) -> None:
        while self.done < mark:
            self.done += 1
            self._work.popleft()()

    def wait_for_event(self, event: Event) -> None:
        stream, mark = event.stream, event.mark
        assert stream is not None, "a stream waits for an event that nothing records"
        self.push(lambda: stream.run(mark))

    def synchronize(self) -> None:
        self.run(self.pushed)


class Pinned(np.ndarray):
    """Page-locked memory; mapped when it has an address."""

    address: int | None = None

    def get_device_pointer(self) -> int:
        assert self.address is not None, "memory that is not mapped has no device pointer"
        return self.address


class Array(np.ndarray):
    """An array on page-locked memory, which is its base, as PyCUDA makes it."""

    @classmethod
    def over(cls, memory: Pinned, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        return cls(shape, dtype, memory)


class Driver:
    """`pycuda.driver` on this machine."""

    Error = RuntimeError
    Event = Event
    device_attribute = SimpleNamespace(INTEGRATED="integrated")
    event_flags = SimpleNamespace(DISABLE_TIMING=1, BLOCKING_SYNC=2)
    host_alloc_flags = SimpleNamespace(DEVICEMAP=4)

    def __init__(self, run: Run, shares_memory: bool = False, capability: tuple[int, int] = (8, 6)) -> None:
        self._run, self.shares_memory, self._capability = run, shares_memory, capability
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.streams: list[Stream] = []
        self.contexts: list[object] = []
        self.allocations = 0
        self.Context = SimpleNamespace(pop=self.contexts.pop)
        self.is_detached = False

    def Device(self, number: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(
            name=lambda: "this machine",
            compute_capability=lambda: self._capability,
            total_memory=lambda: 1 << 30,
            get_attribute={"integrated": int(self.shares_memory)}.__getitem__,
            retain_primary_context=lambda: SimpleNamespace(push=lambda: self.contexts.append(1), detach=self.detach),
        )

    def detach(self) -> None:
        self.is_detached = True

    def Stream(self) -> Stream:  # noqa: N802
        self.streams.append(Stream(len(self.streams)))
        return self.streams[-1]

    def mem_alloc(self, nbytes: int) -> int:
        assert self.contexts, "memory is taken without a current context"
        self.allocations += 1
        memory = np.full(nbytes, 0xA5, np.uint8)
        self.memory[memory.ctypes.data] = memory
        return memory.ctypes.data

    def pagelocked_empty(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], order: str = "C", mem_flags: int = 0
    ) -> NDArray[Any]:
        memory = np.full(int(np.prod(shape)) * dtype.itemsize, 0xA5, np.uint8)
        if mem_flags:
            self.memory[memory.ctypes.data] = memory
        host = memory.view(Pinned)
        host.address = memory.ctypes.data if mem_flags else None
        return Array.over(host, dtype, shape)

    def memcpy_htod(self, address: int, source: NDArray[Any]) -> None:
        self.memory[address][: source.nbytes] = source.reshape(-1).view(np.uint8)

    def memcpy_htod_async(self, address: int, source: NDArray[Any], stream: Stream) -> None:
        stream.push(lambda: self.memcpy_htod(address, source))

    def memcpy_dtoh_async(self, target: NDArray[Any], address: int, stream: Stream) -> None:
        def copy() -> None:
            target.reshape(-1).view(np.uint8)[:] = self.memory[address][: target.nbytes]

        stream.push(copy)

    def memset_d32_async(self, address: int, value: int, count: int, stream: Stream) -> None:
        def fill() -> None:
            self.memory[address].view(np.uint32)[:count] = value

        stream.push(fill)

    def module_from_buffer(self, cubin: bytes) -> SimpleNamespace:
        assert cubin.startswith(b"\x7fELF")
        return SimpleNamespace(get_function=lambda entry: Function(self, entry))

    def launch(self, launch: Launch) -> None:
        self._run(launch, {str(address): memory for address, memory in self.memory.items()})


class Function:
    def __init__(self, driver: Driver, entry: str) -> None:
        self._driver, self._entry = driver, entry
        self._types = ""

    def prepare(self, types: str) -> Function:
        self._types = types
        return self

    def prepared_async_call(
        self, grid: tuple[int, int, int], block: tuple[int, int, int], stream: Stream, *values: Any
    ) -> None:
        assert self._driver.contexts, "a kernel is launched without a current context"
        arguments = tuple(
            (str(value) if value else "") if kind == "P" else np.dtype(kind).type(value)
            for kind, value in zip(self._types, values, strict=True)
        )
        source = "frame_to_tiles" if self._entry.startswith("frame_to_tiles") else self._entry
        stream.push(lambda: self._driver.launch(Launch(source, self._entry, grid, block, arguments)))


@functools.cache
def compiled(graph: bytes, tile_px: int) -> OpenVinoEngine:
    return OpenVinoEngine(graph, tile_px, "f32")


class Engine:
    """OpenVINO on the device's memory."""

    memory_bytes = 0

    def __init__(self, driver: Driver, bundle: Bundle) -> None:
        self._driver, self._tile = driver, bundle.tile
        self._engine = compiled(bundle.read(GRAPH), bundle.tile.tile_px)

    def bind(self, tiles: int, distances: int, num_tiles: int) -> None:
        side, patches, memory = self._tile.tile_px, self._tile.tile_patches, self._driver.memory
        self._tiles = memory[tiles].reshape(num_tiles, side, side, 3)
        self._distances = memory[distances].view(np.float32).reshape(num_tiles, patches, patches)

    def enqueue(self, stream_handle: int) -> None:
        self._driver.streams[stream_handle].push(lambda: self._engine.infer(self._tiles, self._distances))

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def bundle(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with kernels for one GPU, whose thresholds find a little in every part."""
    from fbft_export.cubins import write_cubins

    path = tmp_path_factory.mktemp("cuda") / "cuda.fbft"
    shutil.copytree(small_bundle.path, path)
    thresholds = small_bundle.require_thresholds()
    copy = dataclasses.replace(
        open_bundle(path), thresholds=dataclasses.replace(thresholds, pixel=0.8 * thresholds.pixel)
    )
    write_cubins(copy, [TARGET])
    return seal_bundle(copy)


def cuda_detector(
    bundle: Bundle, driver: Driver, pixel_format: PixelFormat = PixelFormat.RGB8, **options: Any
) -> CudaDetector:
    layout = FrameLayout(*SIZE, pixel_format)
    return CudaDetector(bundle, layout, lambda: Engine(driver, bundle), driver=driver, **options)


def part(seed: int, defect_px: int | None = None) -> NDArray[np.uint8]:
    return render_part(seed, *SIZE, *([(defect_px,)] if defect_px else [])).pixels


@pytest.mark.parametrize("shares_memory", [False, True], ids=["copied", "mapped"])
def test_both_detectors_find_the_same(bundle: Bundle, run_on_host: Run, shares_memory: bool) -> None:
    detector = cuda_detector(bundle, Driver(run_on_host, shares_memory))
    pixels = part(99, 12)
    found, expected = detector.detect(pixels), OpenVinoDetector(bundle, FrameLayout(*SIZE), "f32").detect(pixels)
    assert expected.regions
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert [(each.box_xyxy, each.area_px) for each in found.regions] == [
        (each.box_xyxy, each.area_px) for each in expected.regions
    ]
    assert (found.is_anomalous, found.decided_by) == (expected.is_anomalous, expected.decided_by)
    assert found.peak_xy == expected.peak_xy
    assert (found.score, found.peak) == pytest.approx((expected.score, expected.peak), rel=1e-3)
    assert [each.peak for each in found.regions] == pytest.approx([each.peak for each in expected.regions], rel=1e-5)


def test_both_detectors_know_where_a_map_is_largest_that_is_not_flagged(bundle: Bundle, run_on_host: Run) -> None:
    thresholds = dataclasses.replace(bundle.require_thresholds(), image=4.0, pixel=4.0)
    blind = dataclasses.replace(bundle, thresholds=thresholds)
    found = cuda_detector(blind, Driver(run_on_host, False)).detect(part(99, 12))
    expected = OpenVinoDetector(blind, FrameLayout(*SIZE), "f32").detect(part(99, 12))
    assert (found.regions, found.peak_xy) == ((), expected.peak_xy)


@pytest.mark.parametrize("share", [0.3, 0.8, 1.0, 1.5], ids="of the threshold: {}".format)
@pytest.mark.parametrize("seed", [7, 99])
def test_both_detectors_say_what_is_judged_of_their_maps(
    bundle: Bundle, run_on_host: Run, seed: int, share: float
) -> None:
    thresholds = bundle.require_thresholds()
    thresholds = dataclasses.replace(thresholds, pixel=share * thresholds.pixel)
    changed, pixels = dataclasses.replace(bundle, thresholds=thresholds), part(seed, 12)
    host, device = (
        OpenVinoDetector(changed, FrameLayout(*SIZE), "f32"),
        cuda_detector(changed, Driver(run_on_host), with_map=True),
    )
    for detector in (host, device):
        found, expected = detector.detect(pixels), judge_map(detector.map_of(pixels).copy(), thresholds)
        np.testing.assert_array_equal(found.mask, expected.mask)
        assert [(each.box_xyxy, each.area_px) for each in found.regions] == [
            (each.box_xyxy, each.area_px) for each in expected.regions
        ]
        assert (found.is_anomalous, found.peak) == (expected.is_anomalous, expected.peak)
        assert found.score == pytest.approx(expected.score, rel=1e-3)


@pytest.mark.parametrize("pixel_format", [PixelFormat.RGB8, PixelFormat.MONO8, PixelFormat.NV12, PixelFormat.BAYER_RG8])
def test_both_detectors_sharpen_the_same(bundle: Bundle, run_on_host: Run, pixel_format: PixelFormat) -> None:
    mosaic = np.ascontiguousarray(part(99, 12)[..., 1])
    pixels = {
        PixelFormat.RGB8: part(99, 12),
        PixelFormat.NV12: np.concatenate([mosaic, np.full((70, 182), 120, np.uint8)]),
    }.get(pixel_format, mosaic)
    coarse, found = (
        cuda_detector(bundle, Driver(run_on_host), pixel_format=pixel_format, sharpen=each).detect(pixels)
        for each in (False, True)
    )
    expected = OpenVinoDetector(bundle, FrameLayout(*SIZE, pixel_format), "f32", sharpen=True).detect(pixels)
    assert (found.mask != coarse.mask).any()
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert [(each.box_xyxy, each.area_px) for each in found.regions] == [
        (each.box_xyxy, each.area_px) for each in expected.regions
    ]
    assert (found.is_anomalous, found.score, found.peak) == (coarse.is_anomalous, coarse.score, coarse.peak)


def test_two_frames_in_flight_do_not_mix(bundle: Bundle, run_on_host: Run) -> None:
    detector = cuda_detector(bundle, Driver(run_on_host))
    frames = [part(seed) for seed in range(4)]
    alone = [detector.detect(frame).score for frame in frames]
    first, second = detector.begin(frames[0]), detector.begin(frames[1])
    third = [first().score, detector.begin(frames[2])]
    fourth = [second().score, detector.begin(frames[3])]
    assert [third[0], fourth[0], third[1]().score, fourth[1]().score] == alone


def test_a_frame_may_be_overwritten_once_it_has_begun(bundle: Bundle, run_on_host: Run) -> None:
    detector = cuda_detector(bundle, Driver(run_on_host))
    pixels = part(3)
    expected = detector.detect(pixels.copy()).score
    pending = detector.begin(pixels)
    pixels[...] = 0
    assert pending().score == expected


def test_a_frame_takes_no_memory_on_the_device(bundle: Bundle, run_on_host: Run) -> None:
    driver = Driver(run_on_host)
    detector = cuda_detector(bundle, driver)
    before = driver.allocations
    detector.detect(part(1))
    assert driver.allocations == before


def test_the_map_comes_back_when_it_was_asked_for(bundle: Bundle, run_on_host: Run) -> None:
    found = cuda_detector(bundle, Driver(run_on_host), with_map=True).map_of(part(5))
    np.testing.assert_allclose(found, OpenVinoDetector(bundle, FrameLayout(*SIZE), "f32").map_of(part(5)), rtol=1e-5)


def test_another_pixel_format_gives_the_same_detection(bundle: Bundle, run_on_host: Run) -> None:
    bgr = cuda_detector(bundle, Driver(run_on_host), pixel_format=PixelFormat.BGR8)
    rgb = cuda_detector(bundle, Driver(run_on_host))
    pixels = part(7)
    assert bgr.detect(np.ascontiguousarray(pixels[..., ::-1])).score == rgb.detect(pixels).score


def test_a_context_is_current_only_during_a_call(bundle: Bundle, run_on_host: Run) -> None:
    driver = Driver(run_on_host)
    detector = cuda_detector(bundle, driver)
    detector.detect(part(1))
    assert driver.contexts == []


def test_closing_gives_the_context_back(bundle: Bundle, run_on_host: Run) -> None:
    driver = Driver(run_on_host)
    cuda_detector(bundle, driver).close()
    assert driver.is_detached


def test_a_frame_of_another_size_is_refused(bundle: Bundle, run_on_host: Run) -> None:
    detector = cuda_detector(bundle, Driver(run_on_host))
    with pytest.raises(BundleError, match="182x140"):
        detector.begin(np.zeros((100, 100, 3), np.uint8))


def test_a_map_that_is_not_a_number_is_never_called_nominal(bundle: Bundle, run_on_host: Run) -> None:
    driver = Driver(run_on_host)
    detector = cuda_detector(bundle, driver)

    class Broken(Engine):
        def enqueue(self, stream_handle: int) -> None:
            driver.streams[stream_handle].push(lambda: self._distances.fill(np.nan))

    detector = CudaDetector(bundle, FrameLayout(*SIZE), lambda: Broken(driver, bundle), driver=driver)
    with pytest.raises(EngineError, match="not numbers"):
        detector.detect(part(1))


def test_a_gpu_without_memory_is_no_engine_rather_than_a_traceback(bundle: Bundle, run_on_host: Run) -> None:
    class Full(Driver):
        def mem_alloc(self, nbytes: int) -> int:
            raise self.Error("cuMemAlloc failed: out of memory")

    with pytest.raises(EngineError, match=r"this machine cannot be used \(cuMemAlloc failed: out of memory\)"):
        cuda_detector(bundle, Full(run_on_host))


def test_kernels_for_another_gpu_are_refused(bundle: Bundle, run_on_host: Run) -> None:
    with pytest.raises(EngineError, match=f"holds CUDA kernels for {TARGET}, not sm_120"):
        cuda_detector(bundle, Driver(run_on_host, capability=(12, 0)))


def test_memory_is_stated_by_purpose(bundle: Bundle, run_on_host: Run) -> None:
    driver = Driver(run_on_host)
    stated = cuda_detector(bundle, driver).memory_bytes
    taken = sum(memory.nbytes for memory in driver.memory.values())
    assert sum(stated.values()) == taken


def test_without_pycuda_the_remedy_is_named(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"fbft-edge\[cuda\]"):
        CudaDetector(bundle, FrameLayout(*SIZE), lambda: None)  # type: ignore[arg-type, return-value]


def test_parity_is_measured_on_the_device(bundle: Bundle, run_on_host: Run) -> None:
    from fbft_export.device_parity import measure_device_parity

    driver = Driver(run_on_host)
    parity, _ = measure_device_parity(bundle, lambda: Engine(driver, bundle), driver=driver)
    assert parity.map_max < 1e-4
    assert driver.is_detached
