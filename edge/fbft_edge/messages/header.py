"""What both ends of a result message share: its schema, its limits, its topic, the line's health."""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA = "fbft.result/1"
MASK_ENCODING = "packbits-zlib"
MAX_SIDE_PX = 16384
MAX_REGIONS = 1000


@dataclass(frozen=True, slots=True)
class Health:
    """How the line is doing.

    Attributes:
        state: `ok`; `degraded` when verdicts may still come but something is wrong; `fault` when none can
            be given.
        reason: One line for the operator; None when the state is `ok`.
    """

    state: str
    reason: str | None = None


def topic_for(site: str, camera: str) -> str:
    """The topic of one camera's results."""
    return f"fbft/{site}/{camera}/result"
