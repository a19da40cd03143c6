"""Optional parts of the installation: what each needs, and the message when it is not there.

Looks modules up without importing them.
"""

from __future__ import annotations

from importlib.util import find_spec

from fbft_edge.errors import ArgumentError

EXTRAS = {
    "export": ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "safetensors"),
    "tensorrt": ("onnx", "onnxruntime", "safetensors", "cuda.core"),
    "tensorrt-rtx": ("onnx", "onnxruntime", "safetensors", "cuda.core", "tensorrt_rtx"),
    "cuda": ("pycuda",),
    "gige": ("gi",),
    "rtsp": ("av",),
    "calibration": ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "safetensors", "scipy"),
    "peers": ("anomalib",),
    "opcua": ("asyncua", "cryptography"),
    "mqtt": ("paho.mqtt",),
    "signing": ("cryptography",),
}


def missing_modules(extra: str) -> list[str]:
    """Modules of an extra that are not installed."""
    return [module for module in EXTRAS[extra] if not _is_installed(module)]


def require_extra(extra: str, purpose: str) -> None:
    """Stop here unless an extra is installed.

    Args:
        extra: One of `EXTRAS`, or several as pip takes them: `calibration,peers`.
        purpose: Begins the message.

    Raises:
        ArgumentError: It is not.
    """
    if missing := [module for name in extra.split(",") for module in missing_modules(name)]:
        raise ArgumentError(
            f'{purpose} needs {", ".join(missing)}, which this installation lacks; pip install "fbft-edge[{extra}]"'
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would lie in is missing
        return False
