"""A bundle's TensorRT engine on the GPU: tiles in device memory in, patch distances in device memory out.

Serves TensorRT and TensorRT for RTX alike. Knows nothing about frames, maps or thresholds.
"""

from __future__ import annotations

from fbft_edge.bundle.engines import Sidecar
from fbft_edge.bundle.reading import ENGINES, GRAPH_INPUT, GRAPH_OUTPUT, Bundle
from fbft_edge.detectors.tensorrt_library import deserialize
from fbft_edge.errors import EngineError


class TensorRtEngine:
    """One engine and its execution context; needs a current CUDA context.

    Args:
        bundle: Vouches for the plan: a compiled engine is executable content.
        sidecar: Which engine.

    Raises:
        BundleError: The plan is not in the bundle, or was altered.
        EngineError: The library, the GPU or the plan do not fit together.
    """

    def __init__(self, bundle: Bundle, sidecar: Sidecar) -> None:
        self._label = f"{sidecar.runtime} engine {sidecar.name}"
        self._tile_px, self._side = bundle.tile.tile_px, bundle.tile.tile_patches
        self._most = sidecar.batches[2] if sidecar.batches else 1
        self._engine = deserialize(sidecar.runtime, bundle.read(f"{ENGINES}/{sidecar.plan}"))
        context = self._engine.create_execution_context()
        if context is None:
            raise EngineError(f"{self._label} gets no execution context, most likely for want of GPU memory; free some")
        self._context = context
        self._calls: list[tuple[int, int, int]] = []

    @property
    def memory_bytes(self) -> int:
        """Device memory for activations; weights come on top."""
        return int(self._engine.device_memory_size_v2)

    def bind(self, tiles: int, distances: int, num_tiles: int) -> None:
        """Fix where `enqueue` reads and writes.

        Args:
            tiles: Device address of (num_tiles, tile_px, tile_px, 3) uint8.
            distances: Device address of (num_tiles, rows, columns) float32.
            num_tiles: Tiles per frame; more than the engine's largest batch take several calls.
        """
        tile_bytes, grid_bytes = 3 * self._tile_px**2, 4 * self._side**2
        self._calls = [
            (tiles + start * tile_bytes, distances + start * grid_bytes, min(self._most, num_tiles - start))
            for start in range(0, num_tiles, self._most)
        ]
        if len(self._calls) == 1:
            self._set(*self._calls[0])

    def enqueue(self, stream_handle: int) -> None:
        """Put one frame's inference on a stream.

        Raises:
            EngineError: TensorRT refuses it.
        """
        for call in self._calls:
            if len(self._calls) > 1:
                self._set(*call)
            if not self._context.execute_async_v3(stream_handle):
                raise EngineError(
                    f"{self._label} failed to start a batch of {call[2]}; export it again on this machine"
                )

    def close(self) -> None:
        """Give the engine's memory back."""
        del self._context, self._engine

    def _set(self, tiles: int, distances: int, batch: int) -> None:
        is_set = (
            self._context.set_input_shape(GRAPH_INPUT, (batch, self._tile_px, self._tile_px, 3))
            and self._context.set_tensor_address(GRAPH_INPUT, tiles)
            and self._context.set_tensor_address(GRAPH_OUTPUT, distances)
        )
        if not is_set:
            raise EngineError(f"{self._label} takes no batch of {batch} tiles; export the bundle again")
