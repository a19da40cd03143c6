"""Figures of a category: maps, masks and scores go into a tally one by one, figures come out at the end."""

from fbft_calibration.metrics.figures import CategoryFigures, SizeBin, SizeClass, ThresholdFigures, TypeFigures
from fbft_calibration.metrics.tally import CategoryTally

__all__ = ["CategoryFigures", "CategoryTally", "SizeBin", "SizeClass", "ThresholdFigures", "TypeFigures"]
