"""Network streams as cameras, read through PyAV, each picture dated by the stream's own clock.

Imports PyAV when a stream is opened. Knows nothing about the URI that named it.
"""

from __future__ import annotations

from fbft_edge.cameras.decoding import Decoder, Picture
from fbft_edge.cameras.video import LiveCamera, require_utf8

TIMEOUT_S = 5
# TCP, as firewalls let it through and nothing is lost between the two ends; pictures alone, as with sound beside them
# FFmpeg shifts their times at each report of the sender. Their rate is not looked for, which takes a second.
OPTIONS = {"rtsp_transport": "tcp", "allowed_media_types": "video", "fpsprobesize": "0"}


class StreamCamera(LiveCamera):
    """A network stream.

    Args:
        url: As FFmpeg takes it, `rtsp://user:password@host/path`.
        name: The camera's name.

    Raises:
        CameraError: Nobody answers there within 5 s, or no frame comes.
    """

    def __init__(self, url: str, name: str) -> None:
        self._stream = _opened(url)
        super().__init__(url, name, self._stream)

    @property
    def lost(self) -> int:
        """Pictures that never came, by the gaps in presentation time."""
        return 0 if self._stream is None else self._stream.lost

    def _remedy(self) -> str:
        return f"waited up to {TIMEOUT_S} s; check address, password and network (try ffplay)"


class _StreamCapture:
    """See `fbft_edge.cameras.video.Capture`; each picture is BGR and has its own size."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        decoder.catch_up()
        self._pictures = decoder.pictures()

    @property
    def lost(self) -> int:
        return self._decoder.lost

    def read(self) -> Picture | None:
        return next(self._pictures, None)

    def release(self) -> None:
        self._decoder.close()


def _opened(url: str) -> _StreamCapture | None:
    import av

    require_utf8(url)
    try:
        return _StreamCapture(Decoder(url, OPTIONS, TIMEOUT_S))
    except (av.FFmpegError, OSError, ValueError, IndexError):
        return None
