"""Frames in host memory in, detections out: OpenVINO infers on any CPU, in bf16 where that is native.

Knows nothing about cameras, rates or messages.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import openvino

from fbft_edge.bundle.engines import sidecars
from fbft_edge.bundle.manifest import NOTHING_FLAGGED
from fbft_edge.bundle.reading import GRAPH, Bundle
from fbft_edge.closeable import Closeable
from fbft_edge.detectors import Detector
from fbft_edge.detectors.anomaly_map import MapOperator
from fbft_edge.detectors.judge import judge_map, require_plausible
from fbft_edge.detectors.sharpener import Sharpener
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.errors import EngineError
from fbft_edge.frames.frame import Detection, Float32, Pixels, Uint8
from fbft_edge.frames.pixel_format import FrameLayout, require_pixels, rgb_from_pixels


@cache
def openvino_core() -> Any:
    """OpenVINO itself, `openvino.Core`, one for the whole process and kept to its end.

    On CPUs with AMX it gives the thread that loads it a stack for signals. With the last core and model that stack is
    unmapped, in whichever thread they are let go; in another one, the next Ctrl-C is a segmentation fault (2026.4).
    """
    return openvino.Core()


def native_precision() -> str:
    """`bf16` where the CPU multiplies it natively, else `f32`."""
    return "bf16" if "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def accepted_precision(bundle: Bundle) -> str:
    """The CPU's own precision if this graph was accepted with it on this architecture, else float32."""
    wanted = native_precision()
    is_accepted = any(
        sidecar.runtime == "openvino"
        and sidecar.precision == wanted
        and platform.machine() in sidecar.targets
        and sidecar.is_current(bundle)
        for sidecar in sidecars(bundle)
    )
    return wanted if is_accepted else "f32"


def best_batch(num_tiles: int) -> int:
    """Tiles per call: the largest divisor up to 4.

    Batches share the reading of weights; beyond 4 tiles their activations fall out of the cache. ViT-B/14, nine
    364 px tiles, 2 cores: 1.63 s one by one, 1.58 s by three, 1.62 s at once.
    """
    return max(batch for batch in range(1, 5) if num_tiles % batch == 0)


class OpenVinoEngine:
    """A bundle's graph compiled for this CPU.

    Args:
        graph: Contents of the ONNX file, from `Bundle.read`: what is executed is what was verified.
        tile_px: Side of a tile.
        precision: `bf16` or `f32`; None for the CPU's own.
        batch: Tiles per call.

    Raises:
        EngineError: OpenVINO cannot compile it.

    Attributes:
        precision: `bf16` or `f32`.
        batch: Tiles per call.
    """

    def __init__(self, graph: bytes, tile_px: int, precision: str | None = None, batch: int = 1) -> None:
        self.precision = precision or native_precision()
        self.batch = batch
        try:
            core = openvino_core()
            model = core.read_model(graph)
            model.reshape([batch, tile_px, tile_px, 3])
            compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": self.precision})
        except RuntimeError as error:
            cause = str(error).strip().splitlines()[-1]
            raise EngineError(f"OpenVINO {openvino.__version__} cannot compile this {GRAPH}: {cause}") from error
        self._request: Any = compiled.create_infer_request()

    def infer(self, tiles: Uint8, out: Float32) -> None:
        """Patch distances of tiles.

        Args:
            tiles: (tiles, tile_px, tile_px, 3) uint8 RGB; their number is a multiple of `batch`.
            out: (tiles, rows, columns) float32, overwritten.
        """
        for start in range(0, len(tiles), self.batch):
            self._request.get_output_tensor(0).data[...] = np.nan  # so that what is not written is no number
            self._request.start_async([tiles[start : start + self.batch]], share_inputs=True)
            self._request.wait()  # `infer` would compute in this thread, at its priority: see `fbft_edge.priority`
            out[start : start + self.batch] = self._request.get_output_tensor(0).data

    def close(self) -> None:
        """Give the model's memory back."""
        self._request = None


class OpenVinoDetector(Closeable):
    """Inspects frames of one layout; see `fbft_edge.detectors.Detector`.

    All buffers are made here, once; the arrays of a detection are its own.

    Args:
        bundle: Holds the graph and the thresholds.
        layout: Of the frames.
        precision: `bf16` or `f32`; None for the one that the bundle was accepted with.
        beside: Detectors of the same bundle and precision, used by the same thread; a compiled model of theirs that
            takes as many tiles at once serves this detector too, until any of them is closed.
        sharpen: Redraw what is flagged along the frame's own edges; verdicts stay as they are.
    """

    frames_in_flight = 1

    def __init__(
        self,
        bundle: Bundle,
        layout: FrameLayout,
        precision: str | None = None,
        beside: Sequence[Detector] = (),
        *,
        sharpen: bool = False,
    ) -> None:
        self._thresholds = bundle.thresholds or NOTHING_FLAGGED
        self._least_score = bundle.notes.least_score
        self._layout = layout
        self._sharpener = Sharpener(bundle, layout.pixel_format, self._thresholds.pixel) if sharpen else None
        self.plan = TilePlan(bundle.tile, *layout.size)
        self.map_operator = MapOperator(
            self.plan.grid, bundle.tile.patch_px, self.plan.scaled_size, self.plan.frame_size
        )
        batch = best_batch(self.plan.num_tiles)
        engines = [detector.engine for detector in beside if isinstance(detector, OpenVinoDetector)]
        shared = next((engine for engine in engines if engine.batch == batch), None)
        self.engine: OpenVinoEngine = shared or OpenVinoEngine(
            bundle.read(GRAPH), bundle.tile.tile_px, precision or accepted_precision(bundle), batch
        )
        tile_px, side = bundle.tile.tile_px, bundle.tile.tile_patches
        self._tiles = np.empty((self.plan.num_tiles, tile_px, tile_px, 3), np.uint8)
        self._distances = np.empty((self.plan.num_tiles, side, side), np.float32)
        self._map = np.empty(layout.size, np.float32)

    def begin(self, pixels: Pixels) -> Callable[[], Detection]:
        """See `fbft_edge.detectors.Detector`; the work is done when the detection is asked for."""
        return partial(self.detect, pixels)

    def detect(self, pixels: Pixels) -> Detection:
        """Inspect one frame of the detector's layout.

        Raises:
            BundleError: The frame has another size or type than the detector was made for.
            MapError: No verdict can stand on what the engine says.
        """
        found = self.judge(self.map_of(pixels), pixels)
        require_plausible(found.score, found.peak, self._least_score)
        return found

    def distances_of(self, tiles: Uint8) -> Float32:
        """See `fbft_edge.detectors.parity_tiles.InfersTiles`."""
        num_tiles, batch = len(tiles), self.engine.batch
        whole = tiles[np.arange(-(-num_tiles // batch) * batch) % num_tiles]
        found = np.full((len(whole), *self._distances.shape[1:]), np.nan, np.float32)
        self.engine.infer(whole, found)
        return found[:num_tiles]

    def map_of(self, pixels: Pixels) -> Float32:
        """The anomaly map, (height, width) float32; the detector's memory, valid until the next call.

        Raises:
            BundleError: The frame has another size or type than the detector was made for.
        """
        require_pixels(pixels, self._layout)
        self.plan.cut(rgb_from_pixels(pixels, self._layout.pixel_format), self._tiles)
        self._distances.fill(np.nan)
        self.engine.infer(self._tiles, self._distances)
        self.map_operator.apply(self.plan.stitch(self._distances), self._map)
        return self._map

    def judge(self, anomaly_map: Float32, pixels: Pixels | None = None) -> Detection:
        """Score, mask and regions of a map at the bundle's thresholds.

        Args:
            anomaly_map: (height, width) float32.
            pixels: The frame, for a detector that sharpens; None leaves the mask as the map has it.

        Raises:
            MapError: The map holds values that are not numbers, on which no verdict can stand.
        """
        sharpen = None if self._sharpener is None or pixels is None else self._sharpener.of(pixels)
        return judge_map(anomaly_map, self._thresholds, sharpen)

    def close(self) -> None:
        """Give the engine's memory back."""
        self.engine.close()
