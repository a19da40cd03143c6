"""Frames uploaded to a GPU once in, detections out: only the packed mask, a small grid and two numbers come back.

Tiles, patch distances and map never leave the device. Two frames may be in flight: while one is inferred, the next is
copied. Knows nothing about cameras, rates or messages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fbft_edge.bundle.manifest import NOTHING_FLAGGED
from fbft_edge.bundle.reading import Bundle
from fbft_edge.closeable import Closeable
from fbft_edge.detectors.anomaly_map import MapOperator, PeakFinder
from fbft_edge.detectors.cuda_driver import cuda_driver, first_gpu
from fbft_edge.detectors.judge import judge, peak_in, require_plausible
from fbft_edge.detectors.kernels import read_cubins
from fbft_edge.detectors.kernels.device_frames import DeviceFrame, DeviceKernels
from fbft_edge.detectors.kernels.frame_kernels import FrameKernels
from fbft_edge.detectors.sharpener import Sharpener
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.errors import EngineError
from fbft_edge.frames.frame import Bool, Detection, Float32, Uint8
from fbft_edge.frames.pixel_format import FrameLayout, Pixels, Window, require_pixels

if TYPE_CHECKING:
    from fbft_edge.detectors.cuda_driver import CudaDriver


_NAN_BITS = 0x7FC00000


class DeviceEngine(Protocol):
    """What infers on the device; see `fbft_edge.detectors.tensorrt_engine.TensorRtEngine`."""

    @property
    def memory_bytes(self) -> int:
        """Device memory for activations."""
        ...

    def bind(self, tiles: int, distances: int, num_tiles: int) -> None:
        """Fix the device addresses that `enqueue` reads tiles from and writes patch distances to."""
        ...

    def enqueue(self, stream_handle: int) -> None:
        """Put one frame's inference on a stream."""
        ...

    def close(self) -> None:
        """Give the engine's memory back."""
        ...


class CudaDetector(Closeable):
    """Inspects frames of one layout; see `fbft_edge.detectors.Detector`.

    All memory is taken here, once; the arrays of a detection are its own.

    Args:
        bundle: With the kernels compiled for this GPU.
        layout: Of the frames.
        make_engine: Called with a current CUDA context.
        with_map: Bring the anomaly map back too, for `map_of`.
        sharpen: Redraw what is flagged along the frame's own edges, on the CPU; verdicts stay as they are.
        driver: PyCUDA's driver module; None imports it.

    Attributes:
        plan: Where the tiles lie.
        memory_bytes: Device memory by purpose: `activations`, `buffers` and `tables`.

    Raises:
        EngineError: No GPU, no kernels for it, or the engine cannot run.
    """

    frames_in_flight = 2

    def __init__(
        self,
        bundle: Bundle,
        layout: FrameLayout,
        make_engine: Callable[[], DeviceEngine],
        *,
        with_map: bool = False,
        sharpen: bool = False,
        driver: CudaDriver | None = None,
    ) -> None:
        self._thresholds = bundle.thresholds or NOTHING_FLAGGED
        self._least_score = bundle.notes.least_score
        self._layout = layout
        self.plan = TilePlan(bundle.tile, *layout.size)
        geometry = self.plan.grid, bundle.tile.patch_px, self.plan.scaled_size
        self._map_operator = MapOperator(*geometry, layout.size)
        self._coarse = PeakFinder(MapOperator(*geometry, self.plan.grid), layout.size)
        kernels = FrameKernels(self.plan, layout.pixel_format, self._thresholds.pixel, with_map=with_map)
        self._sharpener = Sharpener(bundle, layout.pixel_format, self._thresholds.pixel) if sharpen else None
        self._driver = driver or cuda_driver()
        gpu = first_gpu(self._driver)
        cubins = read_cubins(bundle, gpu.target)
        try:
            self._context = self._driver.Device(0).retain_primary_context()
            with self._current():
                self._load(kernels, cubins, make_engine, shares_memory=gpu.shares_memory)
        except self._driver.Error as error:
            raise EngineError(
                f"{gpu.name} cannot be used ({error}); see nvidia-smi for who else uses it, and how much memory is left"
            ) from error
        self._turn = 0
        self.memory_bytes = {"activations": self._engine.memory_bytes, **kernels.memory_bytes(self.frames_in_flight)}

    def _load(
        self,
        kernels: FrameKernels,
        cubins: Mapping[str, bytes],
        make_engine: Callable[[], DeviceEngine],
        *,
        shares_memory: bool,
    ) -> None:
        """Everything on the device, with its context current."""
        self._stream, self._copy_stream = self._driver.Stream(), self._driver.Stream()
        self._device_kernels = DeviceKernels(self._driver, kernels, cubins)
        self._num_values = {name: kernels.buffers[name].nbytes // 4 for name in ("distances", "result")}
        self._tiles_shape, self._distances_shape = (kernels.buffers[name].shape for name in ("tiles", "distances"))
        self._engine = make_engine()
        self._engine.bind(
            self._device_kernels.address("tiles"), self._device_kernels.address("distances"), self.plan.num_tiles
        )
        self._frames = [DeviceFrame(self._driver, kernels, shares_memory) for _ in range(self.frames_in_flight)]
        self._launches = [
            [
                self._device_kernels.prepared(launch, frame)
                for launch in (kernels.tiles_launch, kernels.map_launch, kernels.score_launch)
            ]
            for frame in self._frames
        ]

    def begin(self, pixels: Pixels) -> Callable[[], Detection]:
        """Start one frame; what is returned waits for its detection. At most `frames_in_flight` at a time.

        Args:
            pixels: Of the detector's layout; read before this returns.

        Raises:
            BundleError: The frame has another size or type than the detector was made for.
            EngineError: TensorRT refuses the frame.
        """
        return partial(self._detection, self._started(pixels))

    def detect(self, pixels: Pixels) -> Detection:
        """Inspect one frame; see `begin`."""
        return self.begin(pixels)()

    def map_of(self, pixels: Pixels) -> Float32:
        """The anomaly map, (height, width) float32, valid until the next frame; for detectors made `with_map`.

        Raises:
            BundleError: The frame has another size or type than the detector was made for.
        """
        return self._finished(self._started(pixels)).host["map"]

    def distances_of(self, tiles: Uint8) -> Float32:
        """See `fbft_edge.detectors.parity_tiles.InfersTiles`."""
        num_tiles, step = len(tiles), self._tiles_shape[0]
        found = np.full((num_tiles, *self._distances_shape[1:]), np.nan, np.float32)
        at_once, of_these = np.zeros(self._tiles_shape, np.uint8), np.empty(self._distances_shape, np.float32)
        with self._current():
            for start in range(0, num_tiles, step):
                count = min(step, num_tiles - start)
                at_once[:count] = tiles[start : start + count]
                self._driver.memcpy_htod(self._device_kernels.address("tiles"), at_once)
                self._poison("distances", self._device_kernels.address("distances"))
                self._engine.enqueue(self._stream.handle)
                self._driver.memcpy_dtoh_async(of_these, self._device_kernels.address("distances"), self._stream)
                self._stream.synchronize()
                found[start : start + count] = of_these[:count]
        return found

    def close(self) -> None:
        """Give the device's memory and the context back."""
        with self._current():
            self._stream.synchronize()
            self._engine.close()
            del self._frames, self._launches, self._device_kernels, self._stream, self._copy_stream
        self._context.detach()

    def _started(self, pixels: Pixels) -> DeviceFrame:
        require_pixels(pixels, self._layout)
        frame, (tiles, anomaly_map, score) = self._frames[self._turn], self._launches[self._turn]
        self._turn = (self._turn + 1) % self.frames_in_flight
        np.copyto(frame.host["frame"], pixels)
        with self._current():
            frame.upload(self._copy_stream, self._stream)
            tiles.on(self._stream)
            self._poison("distances", self._device_kernels.address("distances"))
            self._poison("result", frame.addresses["result"])
            self._engine.enqueue(self._stream.handle)
            anomaly_map.on(self._stream)
            score.on(self._stream)
            frame.download(self._stream)
        return frame

    def _poison(self, name: str, address: int) -> None:
        """Make a buffer NaN throughout, so that what is not written is no number, and not the last frame's."""
        self._driver.memset_d32_async(address, _NAN_BITS, self._num_values[name], self._stream)

    def _finished(self, frame: DeviceFrame) -> DeviceFrame:
        """The frame, once everything that it brings back is there: the one wait of a frame."""
        with self._current():
            frame.done.synchronize()
        return frame

    def _detection(self, frame: DeviceFrame) -> Detection:
        score, peak = (float(value) for value in self._finished(frame).host["result"])
        sharpen = None if self._sharpener is None else self._sharpener.of(frame.host["frame"])
        flagged, map_of = partial(self._flagged, frame), partial(self._map_of_window, frame)
        peak_at = partial(self._peak_at, frame)
        found = judge(score, peak, self.plan.frame_size, flagged, map_of, peak_at, self._thresholds, sharpen)
        require_plausible(found.score, found.peak, self._least_score)
        return found

    def _flagged(self, frame: DeviceFrame) -> Bool:
        """Where the device found the map above the pixel threshold, (height, width) bool."""
        packed = frame.host["mask"].view(np.uint8)
        return np.unpackbits(packed, axis=1, count=self.plan.frame_size[1]).view(np.bool_)

    def _peak_at(self, frame: DeviceFrame) -> tuple[int, int]:
        """Where the map is largest, x and y: the row maxima stay on the device, so it is looked for in the grid."""
        return peak_in(partial(self._map_of_window, frame), self._coarse.window(frame.host["grid"]))

    def _map_of_window(self, frame: DeviceFrame, window: Window) -> Float32:
        """The anomaly map of a window from the stitched grid, (rows, columns) float32."""
        part = np.empty((window.bottom - window.top, window.right - window.left), np.float32)
        self._map_operator.apply(frame.host["grid"], part, window.top, window.left)
        return part

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        """Make the primary context, the one that TensorRT uses, current in the calling thread."""
        self._context.push()
        try:
            yield
        finally:
            self._driver.Context.pop()
