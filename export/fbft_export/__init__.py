"""From a fitted bundle to engines: teacher and students, the ONNX graph, compiled engines, their parity.

Needs the extra `export` (torch, timm, onnx), which is loaded when a name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fbft_export.engines import export_openvino, export_tensorrt

__all__ = ["export_openvino", "export_tensorrt"]

_HOMES = {"export_openvino": "engines", "export_tensorrt": "engines"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fbft_export' has no attribute {name!r}")
    return getattr(import_module(f"fbft_export.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
