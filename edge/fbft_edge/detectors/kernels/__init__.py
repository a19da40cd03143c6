"""The fused CUDA kernels: their sources, and the compiled kernels that a bundle carries.

One `.cu` file per kernel, each opening with its contract; `fbft_edge.detectors.kernels.twins` does the same in NumPy.
Knows nothing about devices: `frame_kernels` says what to launch, `device_frames` launches it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Annotated

from msgspec import Meta

from fbft_edge.bundle.reading import Bundle
from fbft_edge.errors import BundleError, EngineError
from fbft_edge.strict_json import json_from_bytes, typed

SOURCES = ("frame_to_tiles", "map_and_mask", "score")
KERNELS = "kernels"
KERNELS_MANIFEST = f"{KERNELS}/kernels.json"
# Code for these runs on no other member of its family, nor theirs on it.
_EXACT_TARGETS = ("sm_87", "sm_101", "sm_110")


@dataclass(frozen=True, slots=True)
class _Compiled:
    """What `kernels.json` says."""

    sources_sha256: str
    targets: tuple[Annotated[str, Meta(pattern=r"\Asm_[0-9]{2,3}\Z")], ...]


def source_text(name: str) -> str:
    """CUDA C++ of one of `SOURCES`."""
    return resources.files(__name__).joinpath(f"{name}.cu").read_text(encoding="utf-8")


def sources_sha256() -> str:
    """SHA-256 over all sources, in hexadecimal; compiled kernels of other sources are stale."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update(source_text(name).encode())
    return digest.hexdigest()


def cubin_name(name: str, target: str) -> str:
    """Where a bundle keeps one compiled kernel."""
    return f"{KERNELS}/{target}/{name}.cubin"


def read_cubins(bundle: Bundle, target: str) -> dict[str, bytes]:
    """A bundle's kernels for one GPU.

    Args:
        bundle: Verified.
        target: What the GPU is, `sm_89` for example.

    Returns:
        Compiled code by source.

    Raises:
        EngineError: The bundle has no kernels, none that run on this GPU, or those of another version.
        BundleError: What it says of them is not what `fbft-export` writes, or one was altered.
    """
    if KERNELS_MANIFEST not in bundle.files:
        raise EngineError(f"{bundle.path} holds no CUDA kernels; {_remedy(bundle, target)}")
    targets = kernel_targets(bundle)
    if not targets:
        raise EngineError(f"the CUDA kernels in {bundle.path} are of another version; {_remedy(bundle, target)}")
    fitting = fitting_target(target, targets)
    if fitting is None:
        raise EngineError(
            f"{bundle.path} holds CUDA kernels for {', '.join(targets)}, not {target}; {_remedy(bundle, target)}"
        )
    return {name: bundle.read(cubin_name(name, fitting)) for name in SOURCES}


def kernel_targets(bundle: Bundle) -> list[str]:
    """What a bundle's kernels are compiled for; nothing where there are none, or only those of another version.

    Raises:
        BundleError: What it says of them is not what `fbft-export` writes.
    """
    if KERNELS_MANIFEST not in bundle.files:
        return []
    path = bundle.file(KERNELS_MANIFEST)
    try:
        compiled = typed(json_from_bytes(path.read_bytes()), _Compiled)
    except ValueError as error:
        raise BundleError(f"{path} is not valid ({error!s:.200}); run fbft-export again") from error
    return list(compiled.targets) if compiled.sources_sha256 == sources_sha256() else []


def fitting_target(target: str, offered: list[str]) -> str | None:
    """The offered target whose code runs on a GPU: its own, or the nearest before it in the same family."""
    if target in offered:
        return target
    if target in _EXACT_TARGETS:
        return None
    family = [other for other in offered if other[:-1] == target[:-1] and other not in _EXACT_TARGETS]
    return max((other for other in family if other < target), default=None)


def _remedy(bundle: Bundle, target: str) -> str:
    return f"run fbft-export {bundle.path} with --target {target}, on any machine"
