"""What a detector has to offer to be refined. Knows nothing about any detector."""

from __future__ import annotations

from typing import Protocol

import torch

from fbft_edge.frames.frame import Float32, Uint8


class RefinableDetector(Protocol):
    """A detector with a differentiable energy: how unlike nominal images a picture is to it."""

    def patch_px(self, height: int, width: int) -> float:
        """How far its features blur a defect: side of a patch, or stride of its finest features, in image pixels.

        Args:
            height: Of the image.
            width: Of the image.
        """
        ...

    def relative_map(self, pixels: Uint8) -> Float32:
        """Its anomaly map in units of its pixel threshold, so that what exceeds 1 is flagged.

        Args:
            pixels: (height, width, 3) uint8 RGB.

        Returns:
            (height, width) float32, owned by the caller.
        """
        ...

    def energy(self, image: torch.Tensor, weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Its energy around some pixels, differentiable by the image; lower is more nominal.

        Args:
            image: (3, height, width) float32 RGB in [0, 1].
            weights: (height, width) float32, 1 where the energy counts and 0 elsewhere; at least one is 1.
            generator: For detectors that draw where their patch grid lies, so that its seams show nowhere.

        Returns:
            A scalar of any unit.
        """
        ...
