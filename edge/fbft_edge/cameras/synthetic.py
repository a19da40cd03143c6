"""A camera for machines without one: drawn parts at a fixed rate, some with defects."""

from __future__ import annotations

from fbft_edge.cameras.sequence import FrameSequence, Pace, SequenceCamera
from fbft_edge.frames.frame import Frame, Uint8

NUM_NOMINAL = 8
NUM_DEFECTIVE = 4
DEFECT_SIZES_PX = (24.0,)


class SyntheticCamera(SequenceCamera):
    """Cycles through a pool of parts that are drawn when it is opened.

    Args:
        target: What stands between `://` and `?` in the URI; not used.
        name: The camera's name.
        fps: Frames per second.
        height: Rows of a frame.
        width: Columns of a frame.
        seed: The first part's seed; the others count on from it.
        defect_every: Every so many parts one has a defect; 0 for none.
    """

    def __init__(
        self,
        target: str,
        name: str,
        fps: float = 30.0,
        height: int = 1036,
        width: int = 1036,
        seed: int = 0,
        defect_every: int = 3,
    ) -> None:
        from fbft_edge.synthetic import render_part

        self._pace = Pace(fps)
        self._sequence = FrameSequence(name, (height, width))
        self._defect_every = defect_every
        self._nominal, self._defective = [], []
        for index in range(NUM_NOMINAL):
            self._nominal.append(render_part(seed + index, height, width).pixels)
        for index in range(NUM_DEFECTIVE if defect_every else 0):
            part = render_part(seed + NUM_NOMINAL + index, height, width, DEFECT_SIZES_PX)
            self._defective.append(part.pixels)
        for pixels in (*self._nominal, *self._defective):
            pixels.flags.writeable = False

    def read(self) -> Frame | None:
        """Wait for the next part to be due; None once closed. Its pixels belong to the pool, read-only."""
        if not self._pace.wait():
            return None
        return self._sequence.frame(self._part(self._sequence.count))

    def close(self) -> None:
        """Wake a waiting `read`, which then returns None."""
        self._pace.end()

    def _part(self, index: int) -> Uint8:
        if self._defect_every and index % self._defect_every == self._defect_every - 1:
            return self._defective[index // self._defect_every % NUM_DEFECTIVE]
        return self._nominal[index % NUM_NOMINAL]
