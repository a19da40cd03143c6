"""What is said about a detector on one category, as data.

A figure is None where the images cannot support it (no defective image, no mask, no nominal image).
Knows nothing about how figures are computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

LIMITS_PERCENT = (30, 10, 5, 1)

AtLimits = Mapping[int, float | None]


@dataclass(frozen=True, slots=True)
class SizeBin:
    """Components up to a quartile of component area; bins are cumulative, Q4 holds all.

    Attributes:
        name: `Q1` to `Q4`.
        largest_area_px: Largest area that belongs to the bin: the quartile, in pixels of the original image.
        components: How many do.
        aupro: By FPR limit in percent; components outside the bin are ignored, the FPR axis is that of all images.
        aupro_paper: Likewise, with the paper's thresholds.
    """

    name: str
    largest_area_px: float
    components: int
    aupro: AtLimits
    aupro_paper: AtLimits


@dataclass(frozen=True, slots=True)
class SizeClass:
    """What the calibrated thresholds make of defects of one size.

    The size of a component is the diameter of the disc of its area; that of an image, its largest component's.

    Attributes:
        from_px: Smallest diameter of the class, in pixels of the original image.
        to_px: The diameter at which the next class begins; None for the last.
        from_mm: The same in millimetres; None without a pixel size.
        to_mm: Likewise.
        components: Of the ground truth.
        components_found: Those that the mask touches.
        images: Defective images with a mask.
        images_found: Those that were flagged.
        false_regions: Regions of the mask that touch no component, by their own size.
    """

    from_px: float
    to_px: float | None
    from_mm: float | None
    to_mm: float | None
    components: int
    components_found: int
    images: int
    images_found: int
    false_regions: int


@dataclass(frozen=True, slots=True)
class ThresholdFigures:
    """What the bundle's calibrated thresholds make of the test images.

    Attributes:
        nominal_images: Test images of good parts.
        false_alarms: Those that were flagged.
        defective_images: Others.
        detected: Those that were flagged.
        components: Connected components (8 neighbours) of all masks of the data set.
        components_found: Those that the detector's mask touches.
        false_regions: Regions of the detector's mask that touch no component, in all images whose truth is known.
        smallest_found_px: Diameter of the smallest component that was found.
        largest_missed_px: Diameter of the largest that was not: everything larger was found. None when all were.
        smallest_found_mm: The same in millimetres; None without a pixel size.
        largest_missed_mm: Likewise.
        components_larger: Those larger than the largest that was missed, all of them found.
        sizes: Classes by diameter, ascending.
    """

    nominal_images: int
    false_alarms: int
    defective_images: int
    detected: int
    components: int
    components_found: int
    false_regions: int
    smallest_found_px: float | None
    largest_missed_px: float | None
    smallest_found_mm: float | None
    largest_missed_mm: float | None
    components_larger: int
    sizes: tuple[SizeClass, ...]


@dataclass(frozen=True, slots=True)
class TypeFigures:
    """One type of defect against all nominal images.

    Attributes:
        defect_type: As the data set calls it.
        images: Of this type.
        detected: Those that were flagged.
        image_auroc: Against all nominal test images.
        components: Of the masks.
        components_found: Those that the detector's mask touches.
        aupro: By FPR limit in percent, of this type's components.
    """

    defect_type: str
    images: int
    detected: int
    image_auroc: float | None
    components: int
    components_found: int
    aupro: AtLimits


@dataclass(frozen=True, slots=True)
class CategoryFigures:
    """All figures of one category, at the original resolution of its images.

    Attributes:
        images_without_truth: Defective images that count for image figures only.
        image_auroc: Exact.
        image_f1_max: Exact.
        pixel_auroc: Over all pixels of all images whose truth is known.
        pixel_ap: Likewise.
        pixel_f1_max: Likewise.
        aupro: By FPR limit in percent, every distinct score a threshold.
        aupro_paper: By FPR limit in percent, from the paper's 99 thresholds; to compare with published numbers only.
        rho: Robustness to defect size by FPR limit in percent: mean AUPRO of the four bins x min(Q1, Q4) / max(Q1, Q4).
        rho_paper: Likewise, with the paper's thresholds.
        size_bins: Q1 to Q4; empty without components.
        thresholds: At the bundle's calibrated thresholds.
        types: By name.
        quantisation_error: No pixel figure or AUPRO above, those of bins and types included, differs from the exact
            one by more; rho, a product of them, by about three times that. Computed from the histograms, see `tally`.
        paper_quantisation_error: The same for the paper's version. It is larger for few and small components, since
            each pixel that shares a bin with one of the 99 thresholds may lie on either side of it.
    """

    images_without_truth: int
    image_auroc: float | None
    image_f1_max: float | None
    pixel_auroc: float | None
    pixel_ap: float | None
    pixel_f1_max: float | None
    aupro: AtLimits
    aupro_paper: AtLimits
    rho: AtLimits
    rho_paper: AtLimits
    size_bins: tuple[SizeBin, ...]
    thresholds: ThresholdFigures
    types: tuple[TypeFigures, ...]
    quantisation_error: float
    paper_quantisation_error: float

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; figures by limit are flattened: `aupro[30]` becomes `aupro_30`."""
        flat: dict[str, Any] = _flattened(asdict(self))
        return flat


def _flattened(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_flattened(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    flat: dict[str, Any] = {}
    for name, entry in value.items():
        if isinstance(entry, dict) and all(isinstance(key, int) for key in entry):
            flat |= {f"{name}_{percent}": figure for percent, figure in entry.items()}
        else:
            flat[name] = _flattened(entry)
    return flat
