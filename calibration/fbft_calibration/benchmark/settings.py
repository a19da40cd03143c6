"""What a benchmark is told in; how the bundle of each category is made, and what decides its figures, out.

Knows nothing about data sets or results.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from fbft_calibration.fitting.settings import BundleSettings
from fbft_calibration.fitting.students import FitSettings
from fbft_edge.plain_file import file_sha256
from fbft_export.prototypes import PATCH_DISTANCE

_PAPER_EPOCHS = 50
_PAPER_BATCH_IMAGES = 4
_PAPER_PATCHES = 74 * 74  # of an image of 1036x1036
_PAPER_LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class BenchmarkSettings:
    """What `benchmark` is told.

    Attributes:
        bundle: How bundles are made.
        epochs: Passes over the nominal images, in the place of the bundle's number of steps; None keeps that.
        pixel_size_mm: Side of a pixel on the part, or None when it is not known.
    """

    bundle: BundleSettings = field(default_factory=BundleSettings)
    epochs: int | None = None
    pixel_size_mm: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """All that decides the figures, fit for JSON."""
        return {**self.of_fit(), "pixel_size_mm": self.pixel_size_mm}

    def of_fit(self) -> dict[str, Any]:
        """All that decides the bundle; weights by their name and SHA-256 rather than where they lie."""
        contents = asdict(self.bundle)
        weights = self.bundle.weights
        contents["weights"] = f"{weights.name}, SHA-256 {file_sha256(weights)}" if weights else None
        contents["blocks"] = list(self.bundle.blocks) if self.bundle.blocks else None
        if self.bundle.prototypes:
            contents["patch_distance"] = PATCH_DISTANCE
        if self.epochs:
            contents["students"]["steps"] = f"{self.epochs} epochs"
        return contents

    def for_images(self, num_nominal: int) -> BundleSettings:
        """How the bundle of a category with so many nominal images is made."""
        if self.epochs is None:
            return self.bundle
        num_fitted = num_nominal - max(1, round(self.bundle.held_out * num_nominal))
        steps = self.epochs * max(1, math.ceil(num_fitted / _PAPER_BATCH_IMAGES))
        students = dataclasses.replace(self.bundle.students, steps=steps, patience=steps)
        return dataclasses.replace(self.bundle, students=students)


def paper_settings(bundle: BundleSettings, steps: int | None, pixel_size_mm: float | None) -> BenchmarkSettings:
    """The paper's fit, as far as this one can say it: Adam at 1e-3, batches of 4 images, 50 epochs unless told."""
    students = FitSettings(
        steps=steps or 1,
        batch_patches=_PAPER_BATCH_IMAGES * _PAPER_PATCHES,
        learning_rate=_PAPER_LEARNING_RATE,
        seed=bundle.students.seed,
    )
    epochs = None if steps else _PAPER_EPOCHS
    return BenchmarkSettings(dataclasses.replace(bundle, students=students), epochs, pixel_size_mm)
