"""PyCUDA, imported when it is first needed, and the GPU that it drives.

Asks for capabilities, never for platforms. Knows nothing about kernels or engines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fbft_edge.errors import EngineError

if TYPE_CHECKING:
    from pycuda import driver


class CudaDriver(Protocol):
    """What is used of `pycuda.driver`, by its own names."""

    @property
    def Error(self) -> type[Exception]: ...  # noqa: N802, D102
    @property
    def Context(self) -> type[driver.Context]: ...  # noqa: N802, D102
    @property
    def Device(self) -> type[driver.Device]: ...  # noqa: N802, D102
    @property
    def Event(self) -> type[driver.Event]: ...  # noqa: N802, D102
    @property
    def Stream(self) -> type[driver.Stream]: ...  # noqa: N802, D102
    @property
    def device_attribute(self) -> type[driver.device_attribute]: ...  # noqa: D102
    @property
    def event_flags(self) -> type[driver.event_flags]: ...  # noqa: D102
    @property
    def host_alloc_flags(self) -> type[driver.host_alloc_flags]: ...  # noqa: D102
    def mem_alloc(self, nbytes: int, /) -> driver.DeviceAllocation: ...  # noqa: D102
    def memcpy_htod(self, dest: int, src: np.ndarray, /) -> None: ...  # noqa: D102
    def memcpy_htod_async(self, dest: int, src: np.ndarray, stream: driver.Stream, /) -> None: ...  # noqa: D102
    def memcpy_dtoh_async(self, dest: np.ndarray, src: int, stream: driver.Stream, /) -> None: ...  # noqa: D102
    def memset_d32_async(self, dest: int, value: int, count: int, stream: driver.Stream, /) -> None: ...  # noqa: D102
    def module_from_buffer(self, buffer: bytes, /) -> driver.Module: ...  # noqa: D102
    def pagelocked_empty(  # noqa: D102
        self, shape: tuple[int, ...], dtype: np.dtype[np.generic], order: str = "C", mem_flags: int = 0
    ) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU.

    Attributes:
        name: As the driver says.
        target: What kernels and engines are compiled for, `sm_87` for example.
        memory_bytes: All of its memory.
        shares_memory: True where GPU and host use the same memory (Jetson).
    """

    name: str
    target: str
    memory_bytes: int
    shares_memory: bool


def cuda_driver() -> CudaDriver:
    """PyCUDA's driver module, initialised.

    Raises:
        EngineError: PyCUDA or the NVIDIA driver is missing, or there is no GPU.
    """
    try:
        from pycuda import driver
    except ImportError as error:
        raise EngineError(
            f'the CUDA engines need PyCUDA, which cannot be imported ({error}); pip install "fbft-edge[cuda]" '
            "where the CUDA toolkit and the NVIDIA driver are installed"
        ) from error
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise EngineError(
            f"the NVIDIA driver cannot be used ({error}); see nvidia-smi, and install the driver"
        ) from error
    if not count:
        raise EngineError("the NVIDIA driver finds 0 GPUs; see nvidia-smi, and CUDA_VISIBLE_DEVICES")
    return driver


def first_gpu(driver: CudaDriver) -> Gpu:
    """What the driver says of its first GPU."""
    device = driver.Device(0)
    major, minor = device.compute_capability()
    shares_memory = bool(device.get_attribute(driver.device_attribute.INTEGRATED))
    return Gpu(device.name(), f"sm_{major}{minor}", device.total_memory(), shares_memory)
