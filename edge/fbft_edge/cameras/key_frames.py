"""What is known of a compressed stream's pictures in, why one must not be judged out.

A codec such as H.264 builds a picture on those before it: where one was lost or damaged, the decoder goes on with what
it has, and says nothing. Nothing is believed from there to the next key frame. Where each picture is a key frame, as in
MJPEG, only the damaged one itself is refused. Knows nothing about codecs or where pictures come from.
"""

from __future__ import annotations

from collections import deque

# Of the usual step between two pictures: timestamps may waver by less, one lost picture makes it 2.
LONGEST_STEP = 1.5
_NUM_STEPS = 100
_DAMAGED = "a picture was damaged on its way"
_TIMELESS = "a picture has no time, although others have"


class KeyFrames:
    """Follows one stream from its first picture.

    Attributes:
        lost: Pictures that never came, by the gaps in presentation time.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._reason: str | None = "no key frame has come yet"
        self._has_key_come = self._is_timed = False
        self._last_ns: int | None = None
        self._steps_ns: deque[int] = deque(maxlen=_NUM_STEPS)
        self._longest_ns = 0

    def packet(self, is_key: bool) -> None:
        """What follows has arrived, and goes to the decoder next."""
        self._has_key_come = self._has_key_come or is_key

    def damage(self) -> str:
        """What went to the decoder last was no whole picture; returns why those that follow are refused."""
        self._has_key_come = False
        return self._broken(_DAMAGED)

    def refusal(self, source_ns: int | None, is_key: bool, is_whole: bool) -> str | None:
        """Why the next picture in order of presentation must not be judged; None when it may be.

        Args:
            source_ns: Its presentation time; None when it has none.
            is_key: It builds on no other.
            is_whole: The decoder found nothing missing in it.
        """
        gap = self._gap(source_ns)
        if is_key and self._has_key_come:
            self._reason, self._has_key_come, self._longest_ns, gap = None, False, 0, None
        self._is_timed = self._is_timed or source_ns is not None
        if not is_whole:
            return self._broken(_DAMAGED)
        if gap is not None:
            return self._broken(gap)
        return _TIMELESS if self._reason is None and self._is_timed and source_ns is None else self._reason

    def _broken(self, reason: str) -> str:
        self._reason = self._reason or reason
        return self._reason

    def _gap(self, source_ns: int | None) -> str | None:
        last_ns, self._last_ns = self._last_ns, source_ns
        if last_ns is None:  # the first one, or the one behind a picture without a time
            return None
        if source_ns is None or source_ns <= last_ns:
            return "its pictures are not in order of time"
        step_ns = source_ns - last_ns
        self._steps_ns.append(step_ns)
        # A quarter of the way up: neither wavering stamps nor many lost pictures move it.
        usual_ns = sorted(self._steps_ns)[len(self._steps_ns) // 4]
        if step_ns > LONGEST_STEP * usual_ns:
            self.lost += round(step_ns / usual_ns) - 1
        # The first gap may come before the usual step is known.
        self._longest_ns = max(self._longest_ns, step_ns)
        if self._longest_ns <= LONGEST_STEP * usual_ns:
            return None
        longest_ms, usual_ms = self._longest_ns / 1e6, usual_ns / 1e6
        return f"a picture was lost: {longest_ms:.0f} ms lie between two where {usual_ms:.0f} ms are usual"
