"""The fused kernels on the GPU: memory taken once, launches prepared, one `DeviceFrame` per frame in flight.

Where the GPU has memory of its own, what host and GPU exchange lies in page-locked memory and is copied on streams;
where they share it, it is mapped and nothing is copied. Knows nothing about engines or thresholds. Every call needs
a current CUDA context.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fbft_edge.detectors.kernels.frame_kernels import DOWNLOADED, UPLOADED, FrameKernels, Launch
from fbft_edge.errors import EngineError

if TYPE_CHECKING:
    from pycuda import driver as cuda

    from fbft_edge.detectors.cuda_driver import CudaDriver


class DeviceFrame:
    """One frame in flight.

    Attributes:
        host: By name: `frame` to be written before `upload`; `result`, `mask`, `grid` and, if the kernels make it,
            `map`, to be read once `done` has happened. Page-locked or mapped memory, overwritten by the next frame.
        done: Happens when everything in `host` is there.
    """

    def __init__(self, driver: CudaDriver, kernels: FrameKernels, is_mapped: bool) -> None:
        self._driver, self._is_mapped = driver, is_mapped
        self._uploaded = driver.Event(driver.event_flags.DISABLE_TIMING)
        self.done = driver.Event(driver.event_flags.DISABLE_TIMING | driver.event_flags.BLOCKING_SYNC)
        self._memory: list[cuda.DeviceAllocation] = []
        self.host: dict[str, np.ndarray] = {}
        self.addresses: dict[str, int] = {}
        for name in (*UPLOADED, *DOWNLOADED):
            if name in kernels.buffers:
                self._take(name, kernels)

    def upload(self, copy_stream: cuda.Stream, stream: cuda.Stream) -> None:
        """Copy the frame on one stream, and let the other wait for it."""
        if not self._is_mapped:
            self._driver.memcpy_htod_async(self.addresses["frame"], self.host["frame"], copy_stream)
            self._uploaded.record(copy_stream)
            stream.wait_for_event(self._uploaded)

    def download(self, stream: cuda.Stream) -> None:
        """Copy what was found, then let `done` happen."""
        if not self._is_mapped:
            for name in DOWNLOADED:
                if name in self.host:
                    self._driver.memcpy_dtoh_async(self.host[name], self.addresses[name], stream)
        self.done.record(stream)

    def _take(self, name: str, kernels: FrameKernels) -> None:
        buffer = kernels.buffers[name]
        flags = self._driver.host_alloc_flags.DEVICEMAP if self._is_mapped else 0
        host = self._driver.pagelocked_empty(buffer.shape, buffer.dtype, mem_flags=flags)
        self.host[name] = host
        if self._is_mapped:
            base: Any = host.base
            self.addresses[name] = int(base.get_device_pointer())
        else:
            memory = self._driver.mem_alloc(host.nbytes)
            self._memory.append(memory)
            self.addresses[name] = int(memory)


class DeviceKernels:
    """The kernels of one frame size, loaded, with their constant tables and the buffers that stay on the device.

    Args:
        driver: PyCUDA's driver module.
        kernels: Tables, buffers and launches.
        cubins: Compiled kernels for this GPU, by source.

    Raises:
        EngineError: The driver refuses the compiled kernels.
    """

    def __init__(self, driver: CudaDriver, kernels: FrameKernels, cubins: Mapping[str, bytes]) -> None:
        self._driver = driver
        self._kernels = kernels
        self._memory = {name: self._filled(table) for name, table in kernels.tables.items()}
        exchanged = {*UPLOADED, *DOWNLOADED}
        for name, buffer in kernels.buffers.items():
            if name not in exchanged:
                self._memory[name] = self._filled(np.zeros(buffer.shape, buffer.dtype))
        try:
            self._modules = {source: driver.module_from_buffer(cubin) for source, cubin in cubins.items()}
        except driver.Error as error:
            raise EngineError(
                f"the NVIDIA driver refuses the bundle's kernels ({error}); run fbft-export for it on this machine"
            ) from error

    def address(self, name: str) -> int:
        """Device address of a table or of a buffer that stays on the device."""
        return int(self._memory[name])

    def prepared(self, launch: Launch, frame: DeviceFrame) -> PreparedLaunch:
        """A launch with the addresses of one frame in flight filled in."""
        addresses = {**{name: int(memory) for name, memory in self._memory.items()}, **frame.addresses}
        function = self._modules[launch.source].get_function(launch.entry)
        return PreparedLaunch(function, launch, addresses)

    def _filled(self, contents: np.ndarray) -> cuda.DeviceAllocation:
        memory = self._driver.mem_alloc(max(1, contents.nbytes))
        if contents.nbytes:
            self._driver.memcpy_htod(int(memory), np.ascontiguousarray(contents))
        return memory


class PreparedLaunch:
    """A kernel that lacks nothing but a stream."""

    def __init__(self, function: cuda.Function, launch: Launch, addresses: Mapping[str, int]) -> None:
        types = ""
        values: list[int | float] = []
        for argument in launch.arguments:
            if isinstance(argument, str):
                types += "P"
                values.append(addresses[argument] if argument else 0)
            else:
                types += argument.dtype.char
                values.append(argument.item())
        self._function, self._launch, self._values = function.prepare(types), launch, values

    def on(self, stream: cuda.Stream) -> None:
        """Put the kernel on a stream."""
        self._function.prepared_async_call(self._launch.grid, self._launch.block, stream, *self._values)
