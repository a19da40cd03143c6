"""A folder of images as a camera: its files, sorted by name, at a fixed rate."""

from __future__ import annotations

from pathlib import Path

from fbft_edge.cameras.sequence import FrameSequence, Pace, SequenceCamera
from fbft_edge.errors import CameraError, ImageError
from fbft_edge.frames.frame import Frame, Uint8
from fbft_edge.frames.images import image_paths, read_image


class FolderCamera(SequenceCamera):
    """Plays image files like a camera.

    Args:
        folder: Where the images are; all must be of the first one's size.
        name: The camera's name.
        fps: Frames per second.
        loop: Start again after the last image.

    Raises:
        CameraError: The folder holds no readable image.
    """

    def __init__(self, folder: str, name: str, fps: float = 5.0, loop: bool = False) -> None:
        try:
            self._paths = image_paths(Path(folder))
        except ImageError as error:
            raise CameraError(f"camera {name!r}: {error}") from error
        self._pace = Pace(fps)
        self._loop = loop
        self._next = 0
        self._sequence = FrameSequence(name, _read(self._paths[0]).shape[:2])

    def read(self) -> Frame | None:
        """Wait for the next image to be due; None after the last one.

        Raises:
            CameraError: The image cannot be read, or has another size; the next call goes on behind it.
        """
        if self._next == len(self._paths) and self._loop:
            self._next = 0
        if self._next == len(self._paths) or not self._pace.wait():
            return None
        path = self._paths[self._next]
        self._next += 1
        return self._sequence.frame(_read(path))

    def close(self) -> None:
        """Wake a waiting `read`, which then returns None."""
        self._pace.end()


def _read(path: Path) -> Uint8:
    try:
        return read_image(path)
    except ImageError as error:
        raise CameraError(str(error)) from error
