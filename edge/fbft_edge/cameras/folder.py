"""A folder of images as a camera: its files, sorted by name, at a fixed rate."""

from __future__ import annotations

import logging
from pathlib import Path

from fbft_edge.cameras.camera import COMPRESSED, Repetition
from fbft_edge.cameras.sequence import FrameSequence, Pace, SequenceCamera
from fbft_edge.errors import CameraError, ImageError
from fbft_edge.frames.frame import Frame, Uint8
from fbft_edge.frames.images import about_dark_16_bit, image_paths, peak_of_dark_16_bit, read_image

_logger = logging.getLogger(__name__)


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
        self._is_dark_said = False
        self._sequence = FrameSequence(name, _read(self._paths[0]).shape[:2])

    @property
    def frozen_by(self) -> Repetition | None:
        """A folder that never ends stands in for a live camera, and must not show one picture for ever."""
        return COMPRESSED if self._loop else None

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
        pixels = _read(path)
        if not self._is_dark_said and (peak := peak_of_dark_16_bit(path, pixels)) is not None:
            self._is_dark_said = True
            _logger.warning("camera %s: %s", self.name, about_dark_16_bit({path: peak}))
        return self._sequence.frame(pixels)

    def close(self) -> None:
        """Wake a waiting `read`, which then returns None."""
        self._pace.end()


def _read(path: Path) -> Uint8:
    try:
        return read_image(path)
    except ImageError as error:
        raise CameraError(str(error)) from error
