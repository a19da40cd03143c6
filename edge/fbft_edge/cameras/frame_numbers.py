"""The numbers that a camera gives its pictures in, how many pictures are missing between them out.

Knows nothing about cameras.
"""

from __future__ import annotations

# GigE Vision counts from 1 to this and again from 1; extended identifiers, of 64 bits, do not come round.
LAST_OF_16_BITS = 0xFFFF
# Across the end of 16 bits more than this is no loss, but a camera that was started again.
MOST_ACROSS_THE_END = 1000


class FrameNumbers:
    """Follows the numbers of one camera's pictures.

    Attributes:
        lost: Pictures that were numbered and never came.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._last: int | None = None

    def follow(self, number: int) -> None:
        """The next picture has come.

        Args:
            number: Its own; 0 says that it has none.
        """
        if number == 0:
            return
        last, self._last = self._last, number
        if last is None:
            return
        step = number - last
        if step < 0 and last <= LAST_OF_16_BITS:
            step += LAST_OF_16_BITS
            step = 0 if step > MOST_ACROSS_THE_END else step
        self.lost += max(0, step - 1)
