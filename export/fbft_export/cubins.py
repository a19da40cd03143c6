"""The fused CUDA kernels compiled for chosen GPUs and put into a bundle; needs neither a GPU nor a driver.

NVRTC compiles, from the packages of the extra `tensorrt`. Knows nothing about engines or frames.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fbft_edge.bundle.reading import Bundle
from fbft_edge.bundle.sealing import removed, written
from fbft_edge.detectors.kernels import (
    KERNELS,
    KERNELS_MANIFEST,
    SOURCES,
    cubin_name,
    kernel_targets,
    source_text,
    sources_sha256,
)
from fbft_edge.errors import EngineError

# Turing, A100, RTX 30, Orin, RTX 40, H100 and H200, Thor, RTX 50.
TARGETS = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_110", "sm_120")

_REGISTERS = re.compile(r"Used (\d+) registers")
_SPILLS = re.compile(r"(\d+) bytes spill (?:stores|loads)")


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """One source compiled for one target.

    Attributes:
        cubin: The code, as the driver loads it.
        registers: Most registers that a thread of any of its entries uses.
        spill_bytes: Bytes that its entries store to and load from local memory for want of registers, in all.
    """

    cubin: bytes
    registers: int
    spill_bytes: int


def nvrtc_version() -> str:
    """NVRTC's version, `13.2` for example.

    Raises:
        EngineError: It is not installed.
    """
    return ".".join(map(str, _asked("nvrtcVersion")))


def nvrtc_targets() -> list[str]:
    """What the installed NVRTC compiles for.

    Raises:
        EngineError: It is not installed.
    """
    (numbers,) = _asked("nvrtcGetSupportedArchs")
    return [f"sm_{number}" for number in numbers]


def compile_kernel(name: str, target: str) -> CompiledKernel:
    """Compile one of `fbft_edge.detectors.kernels.SOURCES` for one target, `sm_89` for example.

    Raises:
        EngineError: NVRTC is not installed, or does not know the target.
    """
    _require_target(target)
    from cuda.core import Program, ProgramOptions

    log = io.StringIO()
    options = ProgramOptions(name=f"{name}.cu", arch=target, std="c++17", ptxas_options="-v")
    code = Program(source_text(name), "c++", options).compile("cubin", logs=log).code
    registers, spills = (list(map(int, pattern.findall(log.getvalue()))) for pattern in (_REGISTERS, _SPILLS))
    return CompiledKernel(bytes(code), max(registers), sum(spills))


def write_cubins(draft: Bundle, targets: Sequence[str] = TARGETS) -> Bundle:
    """Compile every kernel for every target into the bundle's `kernels/`.

    Kernels for other targets stay if they come from the same sources.

    Returns:
        The draft that vouches for them, to be sealed by the caller.

    Raises:
        EngineError: NVRTC is not installed, or does not know a target.
    """
    for target in targets:
        _require_target(target)
    kept = kernel_targets(draft)
    if not kept:
        draft = removed(draft, *(name for name in draft.files if name.startswith(f"{KERNELS}/")))
    names = {cubin_name(source, target): (source, target) for target in targets for source in SOURCES}
    for name, (source, target) in names.items():
        path = draft.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(compile_kernel(source, target).cubin)
    contents = {
        "sources_sha256": sources_sha256(),
        "nvrtc": nvrtc_version(),
        "targets": sorted({*kept, *targets}, key=lambda target: int(target[3:])),
    }
    (draft.path / KERNELS_MANIFEST).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    return written(draft, *names, KERNELS_MANIFEST)


def _require_target(target: str) -> None:
    offered = nvrtc_targets()
    if target not in offered:
        raise EngineError(
            f"NVRTC {nvrtc_version()} does not compile for {target}, only for {', '.join(offered)}; choose one of "
            "these, or install a newer nvidia-cuda-nvrtc"
        )


def _asked(question: str) -> tuple[Any, ...]:
    """What NVRTC answers, but for its status."""
    try:
        from cuda.bindings import nvrtc

        status, *answer = getattr(nvrtc, question)()
    except (ImportError, RuntimeError) as error:
        raise _missing(error) from error
    if status:
        raise _missing(f"status {int(status)}")
    return tuple(answer)


def _missing(cause: object) -> EngineError:
    words = " ".join(str(cause).split())
    return EngineError(
        f"compiling the CUDA kernels needs NVRTC, which cannot be loaded ({words:.200}); pip install "
        '"fbft-edge[tensorrt]" and nvidia-cuda-nvrtc'
    )
