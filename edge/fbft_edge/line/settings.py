"""Rates and limits of a line in, held to their ranges (`fbft_edge.ranges`); they stay while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from fbft_edge.errors import ArgumentError
from fbft_edge.ranges import AGE_S, DURATION_S, ENGINE_TIMEOUT_S, FPS

LATE_FLOOR_S = 2.0  # a network camera's own delay, and a machine that is busy for a moment


def late_after_by_rule(fps: float, num_cameras: int, frame_s: float) -> float:
    """How old a frame may be with its verdict where nobody has said it.

    2 s, two periods, and twice the turns that a frame can have to wait for: one of each camera, and its own.

    Args:
        fps: Messages per second and camera.
        num_cameras: That share the engine.
        frame_s: What the engine takes for one frame, as measured when it was opened.
    """
    return LATE_FLOOR_S + 2 / fps + 2 * (num_cameras + 1) * frame_s


@dataclass(frozen=True, slots=True)
class Settings:
    """What does not change while a line runs.

    Attributes:
        fps: Messages per second and camera.
        site: Names the place in the topic.
        duration_s: End after so long; None to go on until every camera ends or `stop` is called.
        with_preview: Add a small JPEG of the frame to every result.
        stale_after_s: The last verdict is repeated as it stands until its frame is older; 0: every repeat is `stale`.
        late_after_s: Frames older than this get no verdict, they are dropped as `too_late`; 0: never; None: what
            `late_after_by_rule` says of the engine.
        engine_timeout_s: Inference that takes longer is a fault until it comes back.

    Raises:
        ArgumentError: A setting is out of its range.
    """

    fps: float
    site: str
    duration_s: float | None = None
    with_preview: bool = False
    stale_after_s: float = 0.0
    late_after_s: float | None = 0.0
    engine_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if self.fps not in FPS:
            raise ArgumentError(f"cannot publish {self.fps:g} messages per second; use --fps {FPS}")
        if self.duration_s is not None and self.duration_s not in DURATION_S:
            raise ArgumentError(f"cannot run for {self.duration_s:g} s; use --duration {DURATION_S}")
        for name, limits in (("stale_after_s", AGE_S), ("late_after_s", AGE_S), ("engine_timeout_s", ENGINE_TIMEOUT_S)):
            if (found := getattr(self, name)) is not None and found not in limits:
                raise ArgumentError(f"{name} cannot be {found:g}; use {limits} s")
