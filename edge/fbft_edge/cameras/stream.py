"""Network streams as cameras, read through PyAV.

OpenCV scales a frame of another size to that of the first, and does not tell: a camera that is set to another size in
mid-stream would be judged. Imports PyAV when a stream is opened. Knows nothing about the URI that named it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fbft_edge.cameras.video import LiveCamera, without_password
from fbft_edge.errors import CameraError
from fbft_edge.frames.frame import Uint8
from fbft_edge.frames.images import without_surrogates

TIMEOUT_S = 5
# TCP, as firewalls let it through and nothing is lost; what came in part is not decoded.
OPTIONS = {"rtsp_transport": "tcp", "fflags": "discardcorrupt"}


class StreamCamera(LiveCamera):
    """A network stream.

    Args:
        url: As FFmpeg takes it, `rtsp://user:password@host/path`.
        name: The camera's name.

    Raises:
        CameraError: Nobody answers there within 5 s, or no frame comes.
    """

    def __init__(self, url: str, name: str) -> None:
        super().__init__(url, name, _opened(url))

    def _remedy(self) -> str:
        return f"waited up to {TIMEOUT_S} s; check address, password and network (try ffplay)"


class _StreamCapture:
    """See `fbft_edge.cameras.video.Capture`; each picture is BGR and has its own size."""

    def __init__(self, container: Any) -> None:
        self._container = container
        self._pictures = self._decoded()

    def read(self) -> tuple[bool, Uint8 | None]:
        picture = next(self._pictures, None)
        return picture is not None, picture

    def release(self) -> None:
        self._container.close()

    def _decoded(self) -> Iterator[Uint8]:
        """Whole pictures until the stream ends or falls silent; packets that cannot be decoded are left out."""
        import av

        try:
            for packet in self._container.demux(video=0):
                try:
                    frames = packet.decode()
                except av.InvalidDataError:
                    continue
                yield from (frame.to_ndarray(format="bgr24") for frame in frames if not frame.is_corrupt)
        except (av.FFmpegError, OSError, IndexError):
            return


def _opened(url: str) -> _StreamCapture | None:
    import av

    if without_surrogates(url) != url:
        raise CameraError(f"{without_password(url)!r} is not UTF-8, which FFmpeg cannot open; rename it")
    try:
        return _StreamCapture(av.open(url, options=OPTIONS, timeout=TIMEOUT_S))
    except (av.FFmpegError, OSError, ValueError):
        return None
