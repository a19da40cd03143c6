"""Engines of a bundle: built or configured, held to the parity gate, recorded in a sidecar.

Knows nothing about nominal images or thresholds.
"""

from __future__ import annotations

import platform

import openvino

from fbft_edge.bundle import GRAPH, Bundle, seal_bundle
from fbft_edge.detectors.openvino import OpenVinoEngine
from fbft_edge.sidecar import Sidecar, write_sidecar
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
    sidecar = Sidecar(
        name=f"openvino-{engine.precision}",
        runtime="openvino",
        version=openvino.__version__,
        targets=(platform.machine(),),
        precision=engine.precision,
        graph_sha256=bundle.files[GRAPH],
        parity={"device": parity.as_dict()},
    )
    write_sidecar(bundle, sidecar)
    return seal_bundle(bundle), parity
