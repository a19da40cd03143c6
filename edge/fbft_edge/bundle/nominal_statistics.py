"""What nominal images are like: their scores and statistics in, the limits that drift is told by out.

Knows nothing about bundles, messages or lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

SCORE = "score"
COLOUR, BLACK, WHITE = "colour", "black", "white"  # not compared by drift
STATISTICS = ("level", "red", "blue", "sharpness", "contrast", SCORE)  # causes before consequences

_Count = Annotated[int, Meta(ge=1, le=1 << 40)]
_Limit = Annotated[float, Meta(ge=-1e6, le=1e6)]


@dataclass(frozen=True, slots=True)
class Reference:
    """One statistic of calibration's nominal images.

    Attributes:
        images: How many.
        rank: How many of them do not lie inside either limit: 1 when the limits are the least and the largest value.
        low: Lower limit.
        median: Of all.
        high: Upper limit.
    """

    images: _Count
    rank: _Count
    low: _Limit
    median: _Limit
    high: _Limit

    @property
    def is_consistent(self) -> bool:
        """Whether the numbers can be those of so many images."""
        return self.low <= self.median <= self.high and self.rank <= (self.images + 1) // 2


def nominal_statistics(scores: Sequence[float], pictures: Sequence[Mapping[str, float]]) -> dict[str, Reference]:
    """What nominal images are like, by statistic.

    Args:
        scores: Of held-out nominal images, at least 1.
        pictures: What `picture_statistics`, and what else, says about nominal images, fitted on or not, at least 1.
    """
    values = {name: [picture[name] for picture in pictures] for name in pictures[0]}
    # Frames above the threshold are no part of the window, so the largest score could never be exceeded often.
    references = {SCORE: _reference(scores, max(1, (len(scores) + 1) // 4))}
    return references | {name: _reference(column, 1) for name, column in values.items()}


def widened(found: Mapping[str, Reference], earlier: Mapping[str, Reference], added: int) -> dict[str, Reference]:
    """What nominal images are like when some are added to earlier ones, of which only the references are known.

    Args:
        found: Of the images that are used now; its scores are already those of all.
        earlier: Of the images before.
        added: How many images the earlier ones did not have.
    """
    references = dict(found)
    for name, reference in found.items():
        if name != SCORE and (before := earlier.get(name)) is not None:
            larger = max(reference, before, key=lambda each: each.images)
            low, high = min(reference.low, before.low), max(reference.high, before.high)
            references[name] = Reference(before.images + added, 1, low, larger.median, high)
    return references


def _reference(values: Sequence[float], rank: int) -> Reference:
    ordered = sorted(float(value) for value in values)
    return Reference(len(ordered), rank, ordered[rank - 1], ordered[len(ordered) // 2], ordered[-rank])
