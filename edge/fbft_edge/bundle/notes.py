"""How a bundle was fitted and calibrated: the member `notes` of `bundle.json` in, a typed value out, and back.

Knows nothing about files, models or lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from fbft_edge.bundle.nominal_statistics import BLACK, COLOUR, STATISTICS, WHITE, Reference
from fbft_edge.strict_json import members, typed

if TYPE_CHECKING:
    from fbft_edge.frames.statistics import Look

_Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Step = Annotated[int, Meta(ge=0, le=1 << 40)]
_Finite = Annotated[float, Meta(ge=-1e30, le=1e30)]


@dataclass(frozen=True, slots=True)
class Units:
    """What brings score and peak to one scale: their medians over images that were fitted on."""

    score: _Finite
    peak: _Finite


@dataclass(frozen=True, slots=True)
class NominalScores:
    """Of every held-out nominal image behind the thresholds, in one order.

    Attributes:
        score: Image scores.
        peak: Largest map values.
        ordinary: What 1 % of each map exceeds; empty in bundles from before it was kept.
        images_sha256: Of the pixels of each image, in hexadecimal; empty in bundles from before they were kept.
    """

    score: tuple[_Finite, ...] = ()
    peak: tuple[_Finite, ...] = ()
    ordinary: tuple[_Finite, ...] = ()
    images_sha256: tuple[_Sha256, ...] = ()

    @property
    def can_be_added_to(self) -> bool:
        """Whether it is known of which image each score is."""
        return len(self.images_sha256) == len(self.ordinary) == len(self.score) > 0


@dataclass(frozen=True, slots=True)
class NominalOutlier:
    """A nominal image that stands out from the others of its fit.

    Attributes:
        name: Of its file.
        pixels_sha256: Of its pixels, in hexadecimal.
        times_median: Its score in the cross-check over the median of all images.
        peak_xy: Where in the frame it is farthest from the others.
    """

    name: str
    pixels_sha256: _Sha256
    times_median: _Finite
    peak_xy: tuple[_Step, _Step]


@dataclass(frozen=True, slots=True)
class Notes:
    """How a bundle was fitted and calibrated; what is empty or None is not known.

    Attributes:
        fit_images_sha256: Of the pixels of every image that was fitted on, in hexadecimal.
        left_out: Name of every file of the nominal folder that was not used, and why.
        losses: (step, training loss, loss on held-out patches) at every check of the fit.
        units: The scale of score and peak.
        calibration: The scores behind the thresholds.
        nominal_statistics: What nominal images are like, by statistic; see `references`.
        outliers: Images that stood out when they were cross-checked, the farthest first; None: they were not.
        others: Members that this version does not know, kept as they are.
    """

    fit_images_sha256: tuple[_Sha256, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    losses: tuple[tuple[_Step, _Finite, _Finite], ...] = ()
    units: Units | None = None
    calibration: NominalScores = NominalScores()
    nominal_statistics: Mapping[str, Reference] = field(default_factory=dict)
    outliers: tuple[NominalOutlier, ...] | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def least_score(self) -> float:
        """A score below this is no very good part, but an engine that does not look; 0 without calibration."""
        return LEAST_OF_NOMINAL * min(self.calibration.score, default=0.0)

    @property
    def references(self) -> dict[str, Reference]:
        """The statistics that this version compares frames with; empty in bundles from before there were any."""
        return {name: self.nominal_statistics[name] for name in STATISTICS if name in self.nominal_statistics}

    @property
    def look(self) -> Look:
        """What nominal images have in common; that of bundles from before it was kept is not known."""
        from fbft_edge.frames.statistics import NEARLY_ALL, Look  # here, as OpenCV is not needed to read a bundle

        # Of the most of any image: twice of what may be left, as light and position may halve it.
        nominal_may_be = 1 - 2 * (1 - NEARLY_ALL)
        most = {name: each.high for name, each in self.nominal_statistics.items() if name in (BLACK, WHITE)}
        colour = self.nominal_statistics.get(COLOUR)
        is_one_kind = colour is not None and colour.low == colour.high
        return Look(
            has_colour=colour.high > 0 if colour is not None and is_one_kind else None,
            may_be_black=most.get(BLACK, 0.0) >= nominal_may_be,
            may_be_white=most.get(WHITE, 0.0) >= nominal_may_be,
        )


# Of the lowest score of a held-out nominal image. Parts, light and dirt move scores by some ten per cent, and whatever
# is not a nominal part raises them: a grey, black or white picture has 5 times that of the demo's lowest.
LEAST_OF_NOMINAL = 0.25

_KNOWN = {member.name for member in fields(Notes)} - {"others"}


def notes_from_json(value: Any) -> Notes:
    """The member `notes`.

    Raises:
        ValueError: It holds what calibration never writes.
    """
    contents = members(value)
    try:
        notes = typed({name: member for name, member in contents.items() if name in _KNOWN}, Notes)
    except ValueError as error:
        raise ValueError(f"notes: {error}") from None
    if len(notes.calibration.score) != len(notes.calibration.peak):
        raise ValueError("calibration has not as many scores as peaks")
    if any(len(column) not in (0, len(notes.calibration.score)) for column in _of_images(notes.calibration)):
        raise ValueError("calibration has not as many scores as images")
    for name, reference in notes.nominal_statistics.items():
        if not reference.is_consistent:
            raise ValueError(f"nominal_statistics has {reference} for {name!r:.40}, whose numbers are not in order")
    return replace(notes, others={name: member for name, member in contents.items() if name not in _KNOWN})


def _of_images(scores: NominalScores) -> tuple[tuple[object, ...], ...]:
    return scores.ordinary, scores.images_sha256


def notes_to_json(notes: Notes) -> dict[str, Any]:
    """The member `notes`; what is not known is left out."""
    contents = asdict(replace(notes, others={}))  # others may be nested deeper than copying reaches
    del contents["others"]
    for name in ("ordinary", "images_sha256"):
        if not contents["calibration"][name]:
            del contents["calibration"][name]
    # A fit writes its three members together, though none of its images may have been left out.
    missing = [] if notes.fit_images_sha256 else ["fit_images_sha256", "left_out", "losses"]
    missing += [name for name in ("units", "nominal_statistics") if not contents[name]]
    missing += [] if notes.calibration.score else ["calibration"]
    missing += ["outliers"] if notes.outliers is None else []
    return {name: member for name, member in contents.items() if name not in missing} | dict(notes.others)
