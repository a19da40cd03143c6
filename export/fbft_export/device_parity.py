"""A bundle's TensorRT engine on this machine's GPU, beside the float32 reference.

Knows nothing about how engines are built.
"""

from __future__ import annotations

from collections.abc import Callable

from fbft_edge.bundle.reading import Bundle
from fbft_edge.detectors.cuda_driver import CudaDriver, cuda_driver, first_gpu
from fbft_edge.detectors.device import DeviceEngine
from fbft_edge.errors import EngineError
from fbft_edge.frames.frame import Float32, Uint8
from fbft_export.parity import Parity, measure_parity


def target_here() -> str | None:
    """What this machine's GPU is, `sm_87` for example; None without GPU or PyCUDA."""
    try:
        return first_gpu(cuda_driver()).target
    except EngineError:
        return None


def measure_device_parity(
    bundle: Bundle, make_engine: Callable[[], DeviceEngine], driver: CudaDriver | None = None
) -> tuple[Parity, int]:
    """Run the reference's tiles through an engine on the GPU.

    Args:
        bundle: Holds the reference.
        make_engine: Called with a current CUDA context.
        driver: PyCUDA's driver module; None imports it.

    Returns:
        The differences, and the bytes of device memory that the engine takes for activations.

    Raises:
        EngineError: No GPU, or the engine cannot run on it.
    """
    driver = driver or cuda_driver()
    context = driver.Device(0).retain_primary_context()
    context.push()
    try:
        engine = make_engine()
        parity = measure_parity(bundle, lambda tiles, out: _infer(driver, engine, tiles, out))
        memory_bytes = engine.memory_bytes
        engine.close()
    finally:
        driver.Context.pop()
        context.detach()
    return parity, memory_bytes


def _infer(driver: CudaDriver, engine: DeviceEngine, tiles: Uint8, out: Float32) -> None:
    stream = driver.Stream()
    tile_memory, distance_memory = driver.mem_alloc(tiles.nbytes), driver.mem_alloc(out.nbytes)
    driver.memcpy_htod(int(tile_memory), tiles)
    engine.bind(int(tile_memory), int(distance_memory), len(tiles))
    engine.enqueue(stream.handle)
    driver.memcpy_dtoh_async(out, int(distance_memory), stream)
    stream.synchronize()
