"""What does not change while a line runs."""

from __future__ import annotations

from dataclasses import dataclass

from fbft_edge.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class Settings:
    """What does not change while a line runs.

    Attributes:
        fps: Messages per second and camera.
        site: Names the place in the topic.
        duration_s: End after so long; None to go on until every camera ends or `stop` is called.
        with_preview: Add a small JPEG of the frame to every result.
        stale_after_s: The last verdict is repeated as it stands until its frame is older; 0: every repeat is `stale`.
        late_after_s: Results of frames older than this are dropped as `too_late`; 0: never.
        engine_timeout_s: Inference that takes longer is a fault until it comes back.

    Raises:
        ArgumentError: A setting is out of its range.
    """

    fps: float
    site: str
    duration_s: float | None = None
    with_preview: bool = False
    stale_after_s: float = 0.0
    late_after_s: float = 0.0
    engine_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0.01 <= self.fps <= 1000:
            raise ArgumentError(f"cannot publish {self.fps:g} messages per second; use --fps from 0.01 to 1000")
        if self.duration_s is not None and not 0 < self.duration_s <= 1e9:
            raise ArgumentError(f"cannot run for {self.duration_s:g} s; use --duration above 0, up to 1e9")
        for name in ("stale_after_s", "late_after_s"):
            if not 0 <= getattr(self, name) <= 1e6:
                raise ArgumentError(f"{name} cannot be {getattr(self, name):g}; use 0 to 1e6 s")
        if not 0.01 <= self.engine_timeout_s <= 1e6:
            raise ArgumentError(f"engine_timeout_s cannot be {self.engine_timeout_s:g}; use 0.01 to 1e6 s")
