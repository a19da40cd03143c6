"""What every camera can do, and what some can; knows nothing about kinds of cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fbft_edge.errors import CameraError
from fbft_edge.frames.frame import Frame
from fbft_edge.frames.pixel_format import PixelFormat


class Camera(Protocol):
    """A source of frames of one size and pixel format.

    A camera may have abilities more, each of which is a protocol that it follows or not: `Triggerable`, a shutter that
    software releases; `CountsIncomplete`, a count of pictures that arrived with parts missing; `CountsLost`, one of
    pictures that never arrived; `CountsRefused`, one of pictures that must not be judged; and `Live`, what cannot be a
    picture of the world. `WatchedCamera` has the first four for every camera, and passes them on to those that have
    them. Counts are asked for once a period.
    """

    @property
    def name(self) -> str:
        """The camera's name in the message topic."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every frame."""
        ...

    @property
    def pixel_format(self) -> PixelFormat:
        """Layout of every frame's pixels."""
        ...

    def read(self) -> Frame | None:
        """Wait for the next frame; None at the end of a finite source, or once closed.

        After an error it may be called again.

        Raises:
            SourceLostError: The source is gone, and every further call says so.
            CameraError: There is no frame this time: a wrong size, an unreadable file; the next call goes on behind it.
        """
        ...

    def close(self) -> None:
        """Give the source back; may be called twice, and while another thread waits in `read`."""
        ...


@runtime_checkable
class Triggerable(Protocol):
    """A camera whose shutter software can release."""

    def trigger(self) -> bool:
        """Release the shutter; False when the camera does not wait for that, as it is set up.

        May be called while another thread waits in `read`.

        Raises:
            CameraError: The camera is not there, or did not take the command.
        """
        ...


@runtime_checkable
class CountsIncomplete(Protocol):
    """A camera that skips pictures of which parts were lost on the way, and counts them."""

    @property
    def incomplete(self) -> int:
        """How many so far; never less than before."""
        ...


@runtime_checkable
class CountsLost(Protocol):
    """A camera that knows how many of its pictures never reached this program, by their numbers or their beat."""

    @property
    def lost(self) -> int:
        """How many so far; never less than before."""
        ...


@runtime_checkable
class CountsRefused(Protocol):
    """A camera that counts the pictures that came, and that it refused with a CameraError or let go."""

    @property
    def refused(self) -> int:
        """How many so far; never less than before."""
        ...


def incomplete_of(camera: Camera | None) -> int:
    """Pictures that arrived with parts missing, as far as a camera counts them."""
    return camera.incomplete if isinstance(camera, CountsIncomplete) else 0


def lost_of(camera: Camera | None) -> int:
    """Pictures that never arrived, as far as a camera counts them."""
    return camera.lost if isinstance(camera, CountsLost) else 0


@dataclass(frozen=True, slots=True)
class Repetition:
    """How often one picture may come again, bit for bit, before its source counts as frozen.

    Attributes:
        pictures: So many in a row are too many, the first one counted; at least 2.
        seconds: And they span so long.
    """

    pictures: int
    seconds: float = 0.0


# The noise of a sensor makes any two pictures differ in some of their millions of values: the first repetition is none.
SENSOR = Repetition(2)
# Encoders drop noise and repeat a still picture until the next key frame, which they make of a new one. Most cameras
# leave the factory with one each 1 or 2 s; a slow stream has to bring some pictures before anything can be said.
COMPRESSED = Repetition(10, 5.0)


@runtime_checkable
class Live(Protocol):
    """A camera that looks at the world: frozen, black and white pictures are no pictures of it."""

    @property
    def frozen_by(self) -> Repetition | None:
        """Which repetition shows that it is frozen; None for a source that is not live, as it is set up."""
        ...


class SourceLostError(CameraError):
    """A camera stopped delivering for good; only opening it again can help."""
