"""Engines of a bundle: built or configured, held to the parity gate, recorded in a sidecar.

Knows nothing about nominal images or thresholds.
"""

from __future__ import annotations

import json
import platform
from typing import Any

import openvino

from fbft_edge.bundle import ENGINES, GRAPH, Bundle, seal_bundle
from fbft_edge.detectors.openvino import OpenVinoEngine
from fbft_export.parity import Parity, measure_parity


def export_openvino(bundle: Bundle, precision: str | None = None) -> tuple[Bundle, Parity]:
    """Accept OpenVINO at a precision for this bundle; OpenVINO compiles the graph itself when it starts.

    Args:
        bundle: With graph and parity reference.
        precision: `bf16` or `f32`; None is the machine's own.

    Returns:
        The bundle, sealed again with the sidecar, and the differences found.

    Raises:
        EngineError: The engine cannot run here, or strays from the reference beyond tolerance.
    """
    engine = OpenVinoEngine(bundle.file(GRAPH), bundle.tile.tile_px, precision)
    parity = measure_parity(bundle, engine.infer)
    engine.close()
    parity.require_accepted(f"OpenVINO at {engine.precision}")
    write_sidecar(
        bundle,
        f"openvino-{engine.precision}",
        {
            "runtime": "openvino",
            "version": openvino.__version__,
            "target": platform.machine(),
            "precision": engine.precision,
            "graph_sha256": bundle.files[GRAPH],
            "parity": parity.as_dict(),
        },
    )
    return seal_bundle(bundle), parity


def write_sidecar(bundle: Bundle, name: str, contents: dict[str, Any]) -> None:
    """Write `engines/NAME.json`."""
    folder = bundle.path / ENGINES
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(contents, indent=2, allow_nan=False) + "\n", encoding="utf-8")
