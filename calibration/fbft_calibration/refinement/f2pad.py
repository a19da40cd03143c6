"""Refinement of one image: explain it as a nominal image plus a sparse anomaly, and draw the mask by the anomaly.

y = n + a. Around each flagged region a begins as the difference to what is filled in from outside; each pixel has a
gate that weighs it, and the gates are found by proximal gradient on

    energy(y - t a) + penalty * sum over pixels of log(|a| + sqrt(|a|^2 + eps)),

where t goes from 0 to 1, so that the detector is asked all along the way from the image to its explanation, and eps
from coarse to fine. Three things keep pixels from pleasing the detector adversarially: the channels of a pixel share
one gate, gates share their gradients with neighbours, and an open gate removes all of its pixel's difference, however
much it weighs. docs/benchmarks/f2pad.md says what was tried instead.

Knows nothing about any detector, about files or figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from fbft_calibration.refinement.detector import RefinableDetector
from fbft_edge.detectors.sharpening import REACH_PATCHES, agreement, filled_in, neighbourhood, same_regions
from fbft_edge.frames.frame import Bool, Float32, Uint8

_COARSE_EPS, _FINE_EPS = 1.0, 1e-2
_TINY = 1e-9

_Box = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class RefineSettings:
    """How an image is explained. docs/benchmarks/f2pad.md says where the numbers come from.

    Attributes:
        iterations: Most steps; each takes one energy and its gradient.
        penalty: Of the log penalty, in units of the region's mean |a|.
        reach_patches: How far outside the flagged pixels the anomaly may go on, in the detector's patches.
        core_patches: What lies deeper inside the flagged pixels stays: patches blur a rim, not what is within.
        sharing_patches: Standard deviation, in patches, of the neighbourhood that shares a gradient.
        tolerance: Stop when a step changes the gates by less than this fraction of them.
        seed: Of what the detector draws.
    """

    iterations: int = 4
    penalty: float = 2.0
    reach_patches: float = REACH_PATCHES
    core_patches: float = 1.0
    sharing_patches: float = 0.3
    tolerance: float = 0.01
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Refinement:
    """What came of one image.

    Attributes:
        flagged: (height, width) bool, the detector's own mask.
        mask: (height, width) bool, refined: the same regions in another shape.
        anomaly: (height, width) float32, |a| in [0, sqrt(3)] times its gate; 0 far from flagged pixels.
        energies: Before each step, as the detector counts it.
    """

    flagged: Bool
    mask: Bool
    anomaly: Float32
    energies: tuple[float, ...]


def refine(
    detector: RefinableDetector,
    pixels: Uint8,
    settings: RefineSettings | None = None,
    relative_map: Float32 | None = None,
    flagged: Bool | None = None,
) -> Refinement:
    """Refine the mask of one image; what is not flagged costs nothing.

    Where the reach leaves nothing of the image to fill in from, the mask stays as it is.

    Args:
        detector: Its map and energy.
        pixels: (height, width, 3) uint8 RGB.
        settings: None for the defaults.
        relative_map: The detector's, where it is there already; at any threshold.
        flagged: (height, width) bool, the mask to redraw, for detectors that draw it otherwise than by what exceeds 1.

    Returns:
        Equal for equal arguments, on the same machine and number of threads.
    """
    settings = settings or RefineSettings()
    if relative_map is None:
        relative_map = detector.relative_map(pixels)
    if flagged is None:
        flagged = relative_map > 1
    if not flagged.any():
        return Refinement(flagged, flagged.copy(), np.zeros(flagged.shape, np.float32), ())
    patch_px = detector.patch_px(*flagged.shape)
    near = neighbourhood(flagged, settings.reach_patches * patch_px)
    if near.all():
        return Refinement(flagged, flagged.copy(), np.zeros(flagged.shape, np.float32), ())
    box = _box_around(near, 2 * patch_px)
    difference = (pixels[box] - filled_in(pixels, near)[box]) / np.float32(255)
    gates, energies = _explain(detector, pixels, difference, near, box, patch_px, settings)
    anomaly = np.zeros(flagged.shape, np.float32)
    anomaly[box] = np.linalg.norm(difference, axis=2) * gates
    agreed = agreement(255 * anomaly, near, relative_map) > 1
    mask = same_regions(agreed, flagged) | _core(flagged, settings.core_patches * patch_px)
    return Refinement(flagged, mask, anomaly, tuple(energies))


def _core(flagged: Bool, depth_px: float) -> Bool:
    """Flagged pixels further than `depth_px` from the nearest one that is not; the image's border is not a rim."""
    inside = np.pad(flagged, 1, mode="edge").view(np.uint8)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(depth[1:-1, 1:-1] > depth_px)


def _explain(
    detector: RefinableDetector,
    pixels: Uint8,
    difference: Float32,
    near: Bool,
    box: _Box,
    patch_px: float,
    settings: RefineSettings,
) -> tuple[Float32, list[float]]:
    """Gates of the difference in the box, float32, 0 or more, and the energy before each step."""
    generator = torch.Generator().manual_seed(settings.seed)
    image = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 255
    away = torch.from_numpy(difference).permute(2, 0, 1)
    weights = torch.from_numpy(near).float()
    near = near[box]
    regions = _Regions(near)
    size = regions.relative(np.linalg.norm(difference, axis=2).astype(np.float32))
    gates = near.astype(np.float32)
    energies: list[float] = []
    for number in range(settings.iterations):
        share = (number + 0.5) / settings.iterations
        energy, slope = _energy_and_slope(detector, image, box, away * share, weights, gates > 0, generator)
        energies.append(energy)
        blurred = cv2.GaussianBlur(slope, (0, 0), settings.sharing_patches * patch_px)
        shared = np.asarray(blurred * near, np.float32)
        if not np.isfinite(shared).all():
            break
        moved: Float32 = gates + regions.relative(np.maximum(shared, 0)) / np.float32(settings.iterations)
        eps = _COARSE_EPS * (_FINE_EPS / _COARSE_EPS) ** share
        new = _shrunk(moved * size, gates * size, settings.penalty / settings.iterations, eps) * moved * (gates > 0)
        change = float(np.linalg.norm(new - gates) / (np.linalg.norm(gates) + _TINY))
        gates = new
        if change < settings.tolerance:
            break
    return gates, energies


def _shrunk(new: Float32, former: Float32, penalty: float, eps: float) -> Float32:
    """Proximal step of the log penalty, linearised at the former |a|: max(1 - p / (2 sqrt(|d|^2 + eps) |c|), 0).

    Args:
        new: |c|, the sizes after the gradient's step, in units of the region's mean |a|.
        former: |d|, the sizes before it.
        penalty: p.
        eps: Smooths the penalty near 0.

    Returns:
        What to multiply c by, in [0, 1].
    """
    weight = penalty / (2 * np.sqrt(former**2 + np.float32(eps)))
    return np.asarray(np.maximum(1 - weight / np.maximum(new, _TINY), 0), np.float32)


def _energy_and_slope(
    detector: RefinableDetector,
    image: torch.Tensor,
    box: _Box,
    away: torch.Tensor,
    weights: torch.Tensor,
    is_open: Bool,
    generator: torch.Generator,
) -> tuple[float, Float32]:
    """The energy of the image less what open gates take away, and how much it falls as each opens further."""
    opened = torch.from_numpy(is_open.astype(np.float32)).requires_grad_(True)
    explained = image.clone()
    explained[:, box[0], box[1]] -= away * opened
    energy = detector.energy(explained, weights, generator)
    (slope,) = torch.autograd.grad(energy, opened)
    return float(energy.detach()), np.asarray(-slope.numpy(), np.float32)


def _box_around(near: Bool, margin_px: float) -> _Box:
    """The part that holds every neighbourhood, and a margin where the image goes on: the work is done only there."""
    left, top, width, height = cv2.boundingRect(near.view(np.uint8))
    margin = int(np.ceil(margin_px))
    rows = slice(max(top - margin, 0), top + height + margin)
    return rows, slice(max(left - margin, 0), left + width + margin)


class _Regions:
    """Connected neighbourhoods, each on its own: what one shows changes no other's scale."""

    def __init__(self, near: Bool) -> None:
        count, self._labels = cv2.connectedComponents(near.view(np.uint8), connectivity=8)
        self._areas = np.bincount(self._labels.ravel(), minlength=count)

    def relative(self, values: Float32) -> Float32:
        """(height, width) float32 values over the mean of the region that a pixel lies in."""
        sums = np.bincount(self._labels.ravel(), values.ravel(), len(self._areas))
        means = (sums / self._areas.clip(1)).astype(np.float32)
        return np.asarray(values / (means[self._labels] + _TINY), np.float32)
