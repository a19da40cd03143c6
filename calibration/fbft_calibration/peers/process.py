"""A detector in a process of its own: nominal images in, then anomaly maps and scores, and what they cost.

So its peak memory is its own, and its end is not ours. Knows nothing about which detector it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fbft_edge.closeable import Closeable
from fbft_edge.errors import FbftError, PeerError
from fbft_edge.frames.frame import Detection, Float32, Uint8
from fbft_edge.names import size_text

_LOG_CHARACTERS = 300
_PARENT_DEATH_SIGNAL = 1  # as Linux's prctl.h numbers it


class Peer(Protocol):
    """A detector under test."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it is and how it is set, fit for JSON."""

    def fit(self, nominal: Sequence[Path]) -> None:
        """Learn from images of good parts; those that cannot be read are left out."""

    def map_of(self, pixels: Uint8) -> tuple[Float32, float]:
        """Inspect one image.

        Args:
            pixels: (height, width, 3) uint8 RGB.

        Returns:
            (height, width) float32 anomaly map on the peer's own scale, owned by the caller, and its image score.
        """

    def close(self) -> None:
        """Give everything back."""


@dataclass(frozen=True, slots=True)
class PeerCost:
    """What a peer took so far, on this machine.

    Libraries and, where it was fitted, what fitting left behind are in its memory; the peak of fitting itself is not,
    unless the system cannot begin a new peak (Linux can).

    Attributes:
        fit_s: Seconds of fitting, reading images included; None before.
        image_median_s: Median seconds from pixels to map at the original size and score; None before the first.
        peak_memory_bytes: Largest resident memory of its process since it was fitted.
    """

    fit_s: float | None
    image_median_s: float | None
    peak_memory_bytes: int


class PeerProcess(Closeable):
    """A peer in a process of its own; itself a `Peer`.

    Args:
        name: For messages.
        make: Makes the peer there; it is pickled.

    Raises:
        PeerError: It cannot be made.
    """

    def __init__(self, name: str, make: Callable[[], Peer]) -> None:
        self.name = name
        self._fit_s: float | None = None
        self._image_s: list[float] = []
        self._folder = tempfile.TemporaryDirectory(prefix="fbft-peer-")
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, self._folder.name), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.settings: Mapping[str, Any] = self._call("settings")[0]
        except BaseException:
            self.close()
            raise

    def fit(self, nominal: Sequence[Path]) -> None:
        """See `Peer`.

        Raises:
            PeerError: It failed, or its process ended.
        """
        _, self._fit_s = self._call("fit", [path.absolute() for path in nominal])

    def map_of(self, pixels: Uint8) -> tuple[Float32, float]:
        """See `Peer`.

        Raises:
            PeerError: It failed, its process ended, or what it found is no number for every pixel.
        """
        (anomaly_map, score), seconds = self._call("map_of", pixels)
        if anomaly_map.shape != pixels.shape[:2] or not (np.isfinite(anomaly_map).all() and math.isfinite(score)):
            raise PeerError(
                f"peer {self.name} found {np.isfinite(anomaly_map).sum()} numbers and the score {score} in an image of "
                f"{size_text(pixels.shape[:2])}; leave it out, or put that right"
            )
        self._image_s.append(seconds)
        return anomaly_map, score

    def detect(self, pixels: Uint8) -> tuple[Detection, Float32]:
        """A detection that flags nothing, as a peer has no threshold of a stated false-alarm rate; and its map.

        Raises:
            PeerError: As `map_of` does.
        """
        anomaly_map, score = self.map_of(pixels)
        nothing = np.zeros(anomaly_map.shape, np.bool_)
        return Detection(score, float(anomaly_map.max()), nothing, (), False), anomaly_map

    def cost(self) -> PeerCost:
        """What it took so far; the first image, which warms up, counts only where it is the only one.

        Raises:
            PeerError: Its process ended.
        """
        timed = self._image_s[1:] or self._image_s
        return PeerCost(self._fit_s, statistics.median(timed) if timed else None, self._call("peak_memory")[0])

    def close(self) -> None:
        """End the process; what it left on the disk goes with it."""
        self._connection.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._folder.cleanup()

    def _call(self, method: str, *arguments: object) -> tuple[Any, float]:
        """What the peer's method returned, and the seconds it took there."""
        try:
            self._connection.send((method, arguments))
            value, failure, seconds = self._connection.recv()
        except (EOFError, OSError):
            raise PeerError(
                f"peer {self.name} ended during {method} ({self._last_words()}); "
                "free memory, or leave this peer out; the others are not touched"
            ) from None
        if failure is not None:
            raise PeerError(f"peer {self.name} failed during {method}: {failure}; leave it out, or put that right")
        return value, seconds

    def _last_words(self) -> str:
        self._process.join(timeout=5)
        code = self._process.exitcode
        words = _log(Path(self._folder.name)).read_text(errors="replace")[-_LOG_CHARACTERS:].strip().splitlines()
        ending = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
        return f"{ending}, its last words: {words[-1] if words else 'none'}"


def _log(folder: Path) -> Path:
    return folder / "output.log"


def _serve(connection: Connection, make: Callable[[], Peer], folder: str) -> None:
    """The other process: makes the peer, then answers each call with (value, failure, seconds) until none can come."""
    os.chdir(folder)  # Lightning and anomalib write where they stand
    with _log(Path(folder)).open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    _go_first()
    peer: Peer | None = None
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            break
        started = time.perf_counter()
        try:
            peer = make() if peer is None else peer
            value = _answer(peer, method, arguments)
        except Exception as error:  # whatever a foreign library raises is the peer's failure, not ours
            name = "" if isinstance(error, FbftError) else f"{type(error).__name__}: "
            connection.send((None, _one_line(f"{name}{error}"), 0.0))
        else:
            connection.send((value, None, time.perf_counter() - started))
    if peer is not None:
        peer.close()


def _answer(peer: Peer, method: str, arguments: tuple[Any, ...]) -> object:
    if method == "settings":
        return dict(peer.settings)
    if method == "peak_memory":
        return _peak_memory_bytes()
    value = getattr(peer, method)(*arguments)
    if method == "fit":
        _begin_new_peak()
    return value


def _one_line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _LOG_CHARACTERS else f"{words[:_LOG_CHARACTERS]}..."


def _go_first() -> None:
    """When memory runs out, the kernel ends this process before any other; it also ends with its parent."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _begin_new_peak() -> None:
    """Count the largest resident memory from here on."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # as Linux's proc_pid_clear_refs(5) numbers it


def _peak_memory_bytes() -> int:
    """Largest resident memory of this process; ru_maxrss would count what its parent had when it was started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
