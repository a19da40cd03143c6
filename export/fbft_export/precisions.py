"""What engines can compute in, by runtime, and what an engine is called.

Knows nothing about how engines are built.
"""

from __future__ import annotations

from collections.abc import Sequence

from fbft_edge.names import CUDA_RUNTIMES

# The first is the one to take unless told; OpenVINO's is the machine's own instead.
PRECISIONS = {"openvino": ("bf16", "f32"), **dict.fromkeys(CUDA_RUNTIMES, ("fp16", "f32"))}


def engine_name(runtime: str, precision: str, targets: Sequence[str] = ()) -> str:
    """`openvino-bf16`; `tensorrt-fp16-sm_87` where an engine is for some of the runtime's GPUs only."""
    return "-".join((runtime, precision, *targets))
