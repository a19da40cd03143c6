"""TensorRT or TensorRT for RTX, imported when first needed: a plan in, an engine out, or why there is none.

Both have one interface. Knows nothing about bundles, frames or kernels.
"""

from __future__ import annotations

import re
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from fbft_edge.errors import EngineError

if TYPE_CHECKING:
    import tensorrt

NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}
_REMEDIES = {
    "tensorrt": "install TensorRT 10.3 or newer with its Python bindings (JetPack holds both), and make the virtual "
    "environment with --system-site-packages so that it sees them",
    "tensorrt-rtx": 'pip install "fbft-edge[tensorrt-rtx]"',
}

# CUDA's errors of a missing or too old driver, of no GPU, of a busy or unknown one, of a driver in disorder.
_NO_GPU = re.compile(
    r"cudaError (?:35|46|100|101|802|803|804|999): [^()]*|CUDA initialization failure[^()]*", re.IGNORECASE
)
_OTHER_GPU = re.compile(r"compute capability|incompatible device|no kernel image", re.IGNORECASE)
_OTHER_VERSION = re.compile(r"library version|version tag|serialization version|version mismatch", re.IGNORECASE)
_PLACE_IN_TENSORRT = re.compile(r"^\[[^]]*::\d+\] |\bIn \w+ at \S+:\d+ ?")
_MOST_MESSAGES = 1000


class Library(Protocol):
    """What is used of TensorRT's module; only TensorRT for RTX has `ComputeCapability`."""

    __version__: str
    BuilderFlag: type[tensorrt.BuilderFlag]
    Builder: type[tensorrt.Builder]
    ComputeCapability: type[tensorrt.ComputeCapability]
    ILogger: type[tensorrt.ILogger]
    IProgressMonitor: type[tensorrt.IProgressMonitor]
    MemoryPoolType: type[tensorrt.MemoryPoolType]
    NetworkDefinitionCreationFlag: type[tensorrt.NetworkDefinitionCreationFlag]
    OnnxParser: type[tensorrt.OnnxParser]
    Runtime: type[tensorrt.Runtime]


class Log:
    """What TensorRT said since the last `clear`, the newest thousand messages, verbose ones left out.

    Attributes:
        logger: To be handed to TensorRT.
    """

    def __init__(self, library: Library) -> None:
        severities = library.ILogger.Severity
        self._last_error = severities.ERROR.value
        self._last_kept = severities.INFO.value
        self._messages: deque[tuple[int, str]] = deque(maxlen=_MOST_MESSAGES)
        self.logger = _logger(library, self)

    @property
    def text(self) -> str:
        """All messages, a line each."""
        return "\n".join(message for _, message in self._messages)

    @property
    def errors(self) -> list[str]:
        """Errors alone, without the places in TensorRT's sources that they name."""
        errors = (message for severity, message in self._messages if severity <= self._last_error)
        return [_PLACE_IN_TENSORRT.sub("", message).strip() for message in errors]

    @property
    def cause(self) -> str:
        """The first error, which the others follow from."""
        return next(iter(self.errors), "TensorRT gives no reason")

    @property
    def missing_gpu(self) -> str | None:
        """TensorRT's words for a GPU or driver that is not there, if it said so."""
        found = _NO_GPU.search("\n".join(self.errors))
        return found.group().strip() if found else None

    def add(self, severity: int, message: str) -> None:
        """Take one message; called from any of TensorRT's threads."""
        if severity <= self._last_kept:
            self._messages.append((severity, message))

    def clear(self) -> None:
        """Forget everything."""
        self._messages.clear()


def load_library(runtime: str) -> Library:
    """TensorRT's module for a runtime, `tensorrt` or `tensorrt-rtx`.

    Raises:
        EngineError: It is not installed, or its libraries cannot be loaded.
    """
    try:
        if runtime == "tensorrt-rtx":
            import tensorrt_rtx

            return tensorrt_rtx
        import tensorrt

        return tensorrt
    except (ImportError, OSError) as error:
        raise EngineError(f"{NAMES[runtime]} cannot be imported ({error}); {_REMEDIES[runtime]}") from error


@cache
def log_of(runtime: str) -> Log:
    """The one log of a runtime: TensorRT keeps the first logger that it is given and ignores all others.

    Raises:
        EngineError: The runtime is not installed.
    """
    return Log(load_library(runtime))


def deserialize(runtime: str, plan: bytes) -> tensorrt.ICudaEngine:
    """The engine of a plan, on the current GPU.

    Args:
        runtime: `tensorrt` or `tensorrt-rtx`.
        plan: As TensorRT's builder made it. It is executable content: pass only what a bundle vouches for.

    Raises:
        EngineError: The library or the GPU is missing, or the plan is for another GPU or another version.
    """
    library, log = load_library(runtime), log_of(runtime)
    log.clear()
    try:
        engine = library.Runtime(log.logger).deserialize_cuda_engine(plan)
    except (TypeError, RuntimeError):  # the bindings' way to say that no runtime could be made
        engine = None
    if engine is None:
        raise EngineError(_refusal(runtime, f"{NAMES[runtime]} {library.__version__}", log))
    return engine


def _refusal(runtime: str, name: str, log: Log) -> str:
    errors, again = "\n".join(log.errors), f"run fbft-export with --runtime {runtime}"
    if cause := log.missing_gpu:
        return f"{name} finds no GPU that it can use ({cause}); install or update the NVIDIA driver, and see nvidia-smi"
    if _OTHER_GPU.search(errors):
        return f"the plan is not for this GPU ({log.cause}); {again} on this machine, or with --target for this GPU"
    if _OTHER_VERSION.search(errors):
        return f"the plan is of another version than the installed {name} ({log.cause}); {again} and this version"
    return f"{name} cannot load the plan ({log.cause}); {again} again"


def _logger(library: Library, log: Log) -> tensorrt.ILogger:
    class_of_library: Any = library.ILogger

    class Logger(class_of_library):  # type: ignore[misc]  # which library's class it is shows only here
        def log(self, severity: tensorrt.ILogger.Severity, msg: str) -> None:
            log.add(severity.value, msg)

    logger: tensorrt.ILogger = Logger()
    return logger
