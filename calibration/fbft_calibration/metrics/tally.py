"""Anomaly maps with their ground truth go in, one image at a time; the figures of a category come out.

Memory is bounded by histograms. Map values fall into 2^21 bins, 2^16 for each octave from 2^-20 to 2^12, so a bin is
at most 1.5e-5 of its value wide; values below 2^-20, negative ones too, share the first bin, values from 2^12 on the
last. The two histograms, of nominal and of defective pixels, take 34 MB whatever the data set. A component of the
ground truth keeps the bins of its pixels: 4 bytes each and 64 KB at most, because larger ones are thinned to 16,384
pixels at equidistant ranks, which moves their share above any threshold by at most 1 / 32,768.

What binning costs is computed, not assumed: no order of the pixels within the bins could move a figure by more than
its `error` (see `curves`), and the largest, with thinning added, is `quantisation_error`. It is below 1e-4 where the
maps use some thousands of bins, as maps of real images do (at most 4e-5 on bsdata, hazelnut_toy and bottle, where the
figures were within 4e-6 of the exact ones); maps squeezed into fewer bins say so by a larger number.

Knows nothing about files, detectors or reports.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fbft_calibration.metrics.components import (
    Components,
    Int32,
    components_of,
    disc_diameter,
    joined,
    untouched_areas,
)
from fbft_calibration.metrics.curves import Bounded, Float64, Int64, OverlapCurve, auroc, average_precision, f1_max
from fbft_calibration.metrics.figures import (
    LIMITS_PERCENT,
    AtLimits,
    CategoryFigures,
    SizeBin,
    SizeClass,
    ThresholdFigures,
    TypeFigures,
)
from fbft_edge.frames.frame import Bool, Float32

SIZE_CLASSES_PX = (0.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)

_OCTAVE_BITS = 16
_LEAST_OCTAVE = -20
_NUM_BINS = 32 << _OCTAVE_BITS
_MANTISSA_BITS = 23
_FIRST_BIN = (127 + _LEAST_OCTAVE) << _OCTAVE_BITS  # 127 is float32's exponent bias
_NO_FIGURES: AtLimits = dict.fromkeys(LIMITS_PERCENT)


@dataclass(frozen=True, slots=True)
class _Image:
    """What is kept of one image."""

    score: float
    is_defective: bool
    is_flagged: bool
    defect_type: str


class CategoryTally:
    """Running account of a category's test images.

    Args:
        pixel_size_mm: Side of a pixel on the part, if sizes are to be told in millimetres too.
    """

    def __init__(self, pixel_size_mm: float | None = None) -> None:
        self._pixel_size_mm = pixel_size_mm
        self._images: list[_Image] = []
        self._images_without_truth = 0
        self._nominal: Int64 = np.zeros(_NUM_BINS, np.int64)
        self._defective: Int64 = np.zeros(_NUM_BINS, np.int64)
        self._components: list[Components] = []
        self._false_areas: list[Int64] = []

    def add(
        self,
        anomaly_map: Float32,
        truth: Bool | None,
        score: float,
        *,
        is_defective: bool,
        is_flagged: bool,
        mask: Bool,
        defect_type: str = "",
    ) -> None:
        """Account for one test image; nothing that is passed is kept.

        Args:
            anomaly_map: (height, width) float32 at the image's original size, larger where more anomalous, finite.
            truth: (height, width) bool, True where the image is defective. None means nowhere for a nominal image;
                for a defective one it means unknown, and the image counts for image figures only.
            score: Of the image, larger where more anomalous.
            is_defective: What the data set says.
            is_flagged: What the detector says at its thresholds.
            mask: (height, width) bool, the detector's mask at its pixel threshold.
            defect_type: As the data set calls it; ignored for nominal images.

        Raises:
            ValueError: Shapes differ, values are not finite, or the truth contradicts `is_defective`.
        """
        if truth is None and not is_defective:
            truth = np.zeros(anomaly_map.shape, np.bool_)
        _check(anomaly_map, truth, score, mask, is_defective)
        self._images.append(_Image(score, is_defective, is_flagged, defect_type))
        if truth is None:
            self._images_without_truth += 1
            return
        bins = score_bins(anomaly_map)
        self._nominal += np.bincount(bins[~truth], minlength=_NUM_BINS)
        self._false_areas.append(untouched_areas(mask, truth))
        if is_defective:
            self._defective += np.bincount(bins[truth], minlength=_NUM_BINS)
            self._components.append(components_of(truth, bins, mask, len(self._images) - 1))

    def figures(self) -> CategoryFigures:
        """The figures of all images so far; more can be added after."""
        components = joined(self._components)
        curves = _OverlapCurves(self._nominal, components)
        pixels = [figure(self._nominal, self._defective) for figure in (auroc, average_precision, f1_max)]
        dense, paper = curves.aupro(np.ones(len(components), np.bool_))
        size_bins = _size_bins(curves, components)
        types = tuple(self._type_figures(name, curves, components) for name in self._defect_types())
        return CategoryFigures(
            images_without_truth=self._images_without_truth,
            image_auroc=self._image_figure(auroc),
            image_f1_max=self._image_figure(f1_max),
            pixel_auroc=_value(pixels[0]),
            pixel_ap=_value(pixels[1]),
            pixel_f1_max=_value(pixels[2]),
            aupro=dense,
            aupro_paper=paper,
            rho={percent: _rho([part.aupro[percent] for part in size_bins]) for percent in LIMITS_PERCENT},
            rho_paper={percent: _rho([part.aupro_paper[percent] for part in size_bins]) for percent in LIMITS_PERCENT},
            size_bins=size_bins,
            thresholds=self._threshold_figures(components),
            types=types,
            quantisation_error=max([0.0, *curves.errors, *(figure.error for figure in pixels if figure is not None)]),
            paper_quantisation_error=max([0.0, *curves.paper_errors]),
        )

    def _defect_types(self) -> list[str]:
        return sorted({image.defect_type for image in self._images if image.is_defective})

    def _image_figure(
        self, figure: Callable[[Int64, Int64], Bounded | None], defect_type: str | None = None
    ) -> float | None:
        """A figure of the image scores, nominal against those of a type or of all defects; exact, a bin is a tie."""
        chosen = [i for i in self._images if not i.is_defective or defect_type in (None, i.defect_type)]
        levels, bins = np.unique([image.score for image in chosen], return_inverse=True)
        is_defective = np.array([image.is_defective for image in chosen], np.bool_)
        counts = [np.bincount(bins[which], minlength=len(levels)) for which in (~is_defective, is_defective)]
        return _value(figure(*counts))

    def _type_figures(self, name: str, curves: _OverlapCurves, components: Components) -> TypeFigures:
        of_type = np.array([image.is_defective and image.defect_type == name for image in self._images], np.bool_)
        chosen = of_type[components.image]
        return TypeFigures(
            defect_type=name,
            images=int(of_type.sum()),
            detected=sum(image.is_flagged for image, is_chosen in zip(self._images, of_type, strict=True) if is_chosen),
            image_auroc=self._image_figure(auroc, name),
            components=int(chosen.sum()),
            components_found=int(components.is_found[chosen].sum()),
            aupro=curves.aupro(chosen)[0],
        )

    def _threshold_figures(self, components: Components) -> ThresholdFigures:
        diameter, is_found = components.diameter_px, components.is_found
        smallest = float(diameter[is_found].min()) if is_found.any() else None
        largest = float(diameter[~is_found].max()) if not is_found.all() else None
        false_areas = np.concatenate([np.zeros(0, np.int64), *self._false_areas])
        return ThresholdFigures(
            nominal_images=sum(not image.is_defective for image in self._images),
            false_alarms=sum(image.is_flagged for image in self._images if not image.is_defective),
            defective_images=sum(image.is_defective for image in self._images),
            detected=sum(image.is_flagged for image in self._images if image.is_defective),
            components=len(components),
            components_found=int(is_found.sum()),
            false_regions=len(false_areas),
            smallest_found_px=smallest,
            largest_missed_px=largest,
            smallest_found_mm=self._in_mm(smallest),
            largest_missed_mm=self._in_mm(largest),
            components_larger=len(components) if largest is None else int((diameter > largest).sum()),
            sizes=self._size_classes(components, disc_diameter(false_areas)),
        )

    def _size_classes(self, components: Components, false_px: Float64) -> tuple[SizeClass, ...]:
        """Components, images by their largest component, and false regions, class by class."""
        largest = np.zeros(len(self._images))
        np.maximum.at(largest, components.image, components.diameter_px)
        with_truth = np.unique(components.image)
        is_flagged = np.array([image.is_flagged for image in self._images], np.bool_)[with_truth]
        all_, found = _by_size(components.diameter_px), _by_size(components.diameter_px[components.is_found])
        images, flagged = _by_size(largest[with_truth]), _by_size(largest[with_truth][is_flagged])
        false = _by_size(false_px)
        edges: list[float | None] = [*SIZE_CLASSES_PX, None]
        return tuple(
            SizeClass(
                from_px=start,
                to_px=edges[index + 1],
                from_mm=self._in_mm(start),
                to_mm=self._in_mm(edges[index + 1]),
                components=int(all_[index]),
                components_found=int(found[index]),
                images=int(images[index]),
                images_found=int(flagged[index]),
                false_regions=int(false[index]),
            )
            for index, start in enumerate(SIZE_CLASSES_PX)
        )

    def _in_mm(self, length_px: float | None) -> float | None:
        return None if length_px is None or self._pixel_size_mm is None else length_px * self._pixel_size_mm


class _OverlapCurves:
    """AUPRO of any choice of components over one false-positive axis; remembers the errors of all that were asked for.

    Attributes:
        errors: Of the dense figures.
        paper_errors: Of those with the paper's thresholds.
    """

    def __init__(self, nominal: Int64, components: Components) -> None:
        self._nominal, self._components = nominal, components
        self.errors: list[float] = []
        self.paper_errors: list[float] = []

    def aupro(self, chosen: Bool) -> tuple[AtLimits, AtLimits]:
        """AUPRO of the chosen components at each limit, dense and with the paper's thresholds."""
        if not chosen.any() or not self._nominal.any():
            return _NO_FIGURES, _NO_FIGURES
        curve = OverlapCurve(self._nominal, self._components.overlap(chosen, _NUM_BINS))
        thinning = self._components.thinning_error(chosen)
        dense = {percent: curve.aupro(percent / 100) for percent in LIMITS_PERCENT}
        paper = {percent: curve.paper_aupro(percent / 100) for percent in LIMITS_PERCENT}
        self.errors += [figure.error + thinning for figure in dense.values()]
        self.paper_errors += [figure.error + thinning for figure in paper.values()]
        return (
            {percent: figure.value for percent, figure in dense.items()},
            {percent: figure.value for percent, figure in paper.items()},
        )


def score_bins(anomaly_map: Float32) -> Int32:
    """Histogram bins of map values: the bits of a positive float32 rise with its value, so the upper ones number bins.

    Args:
        anomaly_map: (height, width) float32, finite.

    Returns:
        (height, width) int32 in [0, 2^21).
    """
    bits = np.ascontiguousarray(anomaly_map, np.float32).view(np.int32)
    bins: Int32 = bits >> np.int32(_MANTISSA_BITS - _OCTAVE_BITS)
    bins -= np.int32(_FIRST_BIN)
    np.clip(bins, 0, _NUM_BINS - 1, out=bins)
    return bins


def _check(anomaly_map: Float32, truth: Bool | None, score: float, mask: Bool, is_defective: bool) -> None:
    shapes = {"map": anomaly_map.shape, "mask": mask.shape} | ({} if truth is None else {"truth": truth.shape})
    if len(set(shapes.values())) > 1:
        raise ValueError(f"shapes differ: {shapes}; bring all to the original size of the image")
    if not np.isfinite(anomaly_map).all() or not math.isfinite(score):
        raise ValueError(f"the map or the score ({score}) is not finite; no figure can come of it")
    if truth is not None and bool(truth.any()) != is_defective:
        raise ValueError(
            f"{int(truth.sum())} pixels are defective in an image whose is_defective is {is_defective}; "
            "pass None where the truth is not known"
        )


def _size_bins(curves: _OverlapCurves, components: Components) -> tuple[SizeBin, ...]:
    """Q1 to Q4, cumulative; empty without components."""
    if not len(components):
        return ()
    bins = []
    for name, quartile in zip(
        ("Q1", "Q2", "Q3", "Q4"), np.quantile(components.area, (0.25, 0.5, 0.75, 1)), strict=True
    ):
        chosen = components.area <= quartile
        bins.append(SizeBin(name, float(quartile), int(chosen.sum()), *curves.aupro(chosen)))
    return tuple(bins)


def _rho(aupro: list[float | None]) -> float | None:
    """Mean over the bins x min(Q1, Q4) / max(Q1, Q4); 0 where nothing is found at all."""
    areas = [area for area in aupro if area is not None]
    if not areas:
        return None
    ends = (areas[0], areas[-1])
    return sum(areas) / len(areas) * min(ends) / max(ends) if max(ends) else 0.0


def _by_size(diameter_px: Float64) -> Int64:
    """(classes,) how many diameters fall into each class."""
    return np.bincount(np.searchsorted(SIZE_CLASSES_PX[1:], diameter_px, side="right"), minlength=len(SIZE_CLASSES_PX))


def _value(figure: Bounded | None) -> float | None:
    return None if figure is None else figure.value
