"""A bundle in the place of a peer, so that its memory is taken as theirs is.

Imports no torch: what a bundle takes on the line is what counts. Knows nothing about figures or reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fbft_calibration.peers.process import PeerProcess
from fbft_edge.bundle.reading import Bundle, open_bundle
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.frames.frame import Float32, Uint8
from fbft_edge.frames.pixel_format import layout_of

_TIMES = 2


def peak_memory_bytes(bundle: Bundle, pixels: Uint8) -> int:
    """Largest resident memory of a fresh process that opens a bundle and inspects one image twice.

    Args:
        bundle: Calibrated; read anew there.
        pixels: (height, width, 3) uint8 RGB.

    Raises:
        PeerError: It failed, or its process ended.
    """
    with PeerProcess(bundle.product, partial(BundlePeer, bundle.path.absolute())) as process:
        for _ in range(_TIMES):
            process.map_of(pixels)
        return process.cost().peak_memory_bytes


class BundlePeer:
    """A bundle as a `Peer` that has been fitted."""

    def __init__(self, path: Path) -> None:
        self._bundle = open_bundle(path)
        self._pool = DetectorPool(partial(OpenVinoDetector, self._bundle))

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Peer`."""
        return {"bundle": self._bundle.sha256}

    def fit(self, nominal: Sequence[Path]) -> None:
        """Nothing: the bundle is."""

    def map_of(self, pixels: Uint8) -> tuple[Float32, float]:
        """See `Peer`."""
        detector = self._pool.of(layout_of(pixels))
        anomaly_map = detector.map_of(pixels)
        return anomaly_map, detector.judge(anomaly_map).score

    def close(self) -> None:
        """See `Peer`."""
        self._pool.close()
