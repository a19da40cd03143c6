"""From nominal images to a bundle: students, thresholds, the report, and how well they do.

Needs the extra `calibration`, which is loaded when a name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fbft_calibration.benchmark.run import run_benchmark
    from fbft_calibration.fitting.bundling import fit_bundle, threshold_bundle
    from fbft_calibration.fitting.settings import BundleSettings

__all__ = ["BundleSettings", "fit_bundle", "run_benchmark", "threshold_bundle"]

_HOMES = {
    "BundleSettings": "fitting.settings",
    "fit_bundle": "fitting.bundling",
    "run_benchmark": "benchmark.run",
    "threshold_bundle": "fitting.bundling",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fbft_calibration' has no attribute {name!r}")
    return getattr(import_module(f"fbft_calibration.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
