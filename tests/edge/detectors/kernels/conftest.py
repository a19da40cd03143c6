"""The kernels as this machine's own code: each `.cu` compiled as C++ with `host_shim.h`, run on NumPy arrays."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fbft_edge.detectors.kernels
from fbft_edge.detectors.kernels.frame_kernels import FrameKernels, Launch
from fbft_edge.frames.pixel_format import PixelFormat

Arrays = dict[str, NDArray[Any]]
Run = Callable[[Launch, Mapping[str, NDArray[Any]]], None]

# GPUs that have warp reductions, and those that have not.
ARCHITECTURES = (900, 750)
FLAGS = ("-O1", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-w")
GUARD_BYTES = 4096
STATUSES = (
    "",
    "the arguments are not of the types that the kernel takes",
    "some threads never reach a barrier or a collective",
    "a read misses the buffers, or is not aligned",
)
TILE_ENTRIES = [f"frame_to_tiles_{each.value}{scaled}" for each in PixelFormat for scaled in ("", "_scaled")]
ENTRIES = {"frame_to_tiles": TILE_ENTRIES, "map_and_mask": ["map_and_mask"], "score": ["score"]}


class HostKernels:
    """The kernels for one architecture; a source is compiled when it is first run."""

    def __init__(self, folder: Path, architecture: int) -> None:
        self._folder, self._architecture = folder, architecture
        self._libraries: dict[str, ctypes.CDLL] = {}

    def run(self, launch: Launch, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Execute a launch; arrays are written in place, and nothing may be written beside them."""
        guarded = {name: Guarded(arrays[name]) for name in launch.arguments if isinstance(name, str) and name}
        values = [argument_value(argument, guarded) for argument in launch.arguments]
        sizes = (ctypes.c_int * len(values))(*map(ctypes.sizeof, values))
        addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        buffers = [place for each in guarded.values() for place in (each.address, each.address + each.nbytes)]
        status = getattr(self._library(launch.source), f"run_{launch.entry}")(
            *((ctypes.c_uint * 3)(*size) for size in (launch.grid, launch.block)),
            *(addresses, sizes, len(values)),
            *((ctypes.c_uint64 * len(buffers))(*buffers), len(guarded)),
        )
        assert not status, STATUSES[status]
        for guard in guarded.values():
            guard.give_back()

    def _library(self, source: str) -> ctypes.CDLL:
        if source not in self._libraries:
            self._libraries[source] = ctypes.CDLL(str(compiled(self._folder, source, self._architecture)))
        return self._libraries[source]


class Guarded:
    """A copy of an array with a margin on both sides that reads as NaN and must stay as it is."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        self._memory = np.full(array.nbytes + 2 * GUARD_BYTES + 64, 0xFF, np.uint8)
        self._start = GUARD_BYTES + -self._memory.ctypes.data % 64
        self._memory[self._start : self._start + array.nbytes] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)

    @property
    def nbytes(self) -> int:
        """Of the array."""
        return self._array.nbytes

    @property
    def address(self) -> int:
        """Of the first byte, a multiple of 64."""
        return self._memory.ctypes.data + self._start

    def give_back(self) -> None:
        """Copy the contents back into the array."""
        stop = self._start + self._array.nbytes
        assert (self._memory[: self._start] == 0xFF).all(), "written before the buffer"
        assert (self._memory[stop:] == 0xFF).all(), "written behind the buffer"
        self._array[...] = self._memory[self._start : stop].view(self._array.dtype).reshape(self._array.shape)


def argument_value(argument: np.generic | str, guarded: Mapping[str, Guarded]) -> Any:
    if isinstance(argument, str):
        return ctypes.c_void_p(guarded[argument].address if argument else None)
    return np.ctypeslib.as_ctypes_type(argument.dtype)(argument.item())


def compiled(folder: Path, source: str, architecture: int) -> Path:
    """Compile one source as C++."""
    path = Path(str(resources.files(fbft_edge.detectors.kernels))) / f"{source}.cu"
    program, library = folder / f"{source}_{architecture}.cpp", folder / f"{source}_{architecture}.so"
    runnable = "\n".join(f"RUNNABLE({entry})" for entry in ENTRIES[source])
    program.write_text(f'#include "host_shim.h"\n#include "{path}"\n{runnable}\n', encoding="utf-8")
    include, macro = f"-I{Path(__file__).parent}", f"-D__CUDA_ARCH__={architecture}"
    subprocess.run(["g++", *FLAGS, include, macro, str(program), "-o", str(library)], check=True)
    return library


def host_kernels(folder: Path, architecture: int) -> Run:
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ to compile the kernels with")
    return HostKernels(folder, architecture).run


@pytest.fixture(scope="session")
def run_on_host(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Executes a launch on NumPy arrays."""
    return host_kernels(tmp_path_factory.mktemp("kernels"), ARCHITECTURES[0])


@pytest.fixture(scope="session", params=ARCHITECTURES, ids=lambda architecture: f"sm_{architecture // 10}")
def run_on_each_host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same, once for each kind of GPU that the sources tell apart."""
    return host_kernels(tmp_path_factory.mktemp("kernels"), request.param)


@pytest.fixture
def arrays_for() -> Callable[[FrameKernels], Arrays]:
    """Makes the tables and buffers of kernels: inputs random, accumulators zero, outputs full of what was there."""

    def made(kernels: FrameKernels) -> Arrays:
        random = np.random.default_rng(sum(kernels.plan.frame_size))
        arrays: Arrays = {name: np.full(each.shape, 7, each.dtype) for name, each in kernels.buffers.items()}
        frame = arrays["frame"]
        arrays["frame"] = random.integers(0, np.iinfo(frame.dtype).max, frame.shape, frame.dtype, endpoint=True)
        arrays["distances"] = random.gamma(2, 0.2, arrays["distances"].shape).astype(np.float32)
        for name in ("row_peaks", "histogram_counts", "histogram_residuals"):
            arrays[name][...] = 0
        return {**arrays, **kernels.tables}

    return made
