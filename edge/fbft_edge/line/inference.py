"""Cameras take turns at one engine: frames of stations in, what was found in them back to their stations.

A station that waits longest since its last turn is next, so that of N busy cameras each gets the same share, and one
that is never idle starves nobody. A frame begins when the engine has room for it (a CPU takes one at a time, a GPU
copies the next while it infers the last) and when its station has: results that its ticks have not taken count.

Knows nothing about rates, messages or sockets.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import NoReturn, Protocol

from fbft_edge.detectors.model import Model
from fbft_edge.errors import CameraError, EngineError
from fbft_edge.frames.frame import Detection, Frame
from fbft_edge.line.trigger import Request

AGAIN_S = 5.0  # between proofs while the engine is not trusted

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Acquisition:
    """One frame to be inspected.

    Attributes:
        frame: As the camera sent it.
        request: The trigger that asked for it, or None.
        arrived_ns: When it came, on the monotonic clock.
        refusal: Why it is not inspected any more, and only takes its turn among the results; None when it is.
    """

    frame: Frame
    request: Request | None
    arrived_ns: int
    refusal: str | None = None

    @property
    def trigger_id(self) -> str | None:
        """Of the trigger that asked for it."""
        return None if self.request is None else self.request.trigger_id

    @property
    def part_id(self) -> str | None:
        """Of the part that the trigger was about."""
        return None if self.request is None else self.request.part_id


@dataclass(frozen=True, slots=True)
class Inspection:
    """What came of one frame.

    Attributes:
        acquisition: The frame.
        model: Inspected it.
        found: The detection, or why there is none.
        begun_ns: When its inference began, on the monotonic clock.
        ended_ns: When the detection was there.
    """

    acquisition: Acquisition
    model: Model
    found: Detection | Exception
    begun_ns: int
    ended_ns: int


class Client(Protocol):
    """Who has frames inspected; see `fbft_edge.line.station.Station`. Only the threads of an `Inference` call it."""

    def is_ready(self, most: int) -> bool:
        """True when a frame waits, and fewer than `most` are with the engine or waiting for their tick."""
        ...

    def take(self) -> Acquisition | None:
        """The next frame; None when there is none any more."""
        ...

    def deliver(self, inspection: Inspection) -> None:
        """Take over what came of a frame that was taken."""
        ...


@dataclass(frozen=True, slots=True)
class _Begun:
    """A frame that has begun; or, without one, that the engine shows what it computes (`Model.prove`)."""

    client: Client | None
    acquisition: Acquisition | None
    model: Model
    begun_ns: int


class Inference:
    """Lets clients take turns at a model.

    Args:
        clients: Whose frames are inspected.
        model: What inspects; closed by `close`, or, once replaced, when nothing of it is in flight any more.

    Attributes:
        distrust: Why no verdict of the model is believed; None when nothing stands against it.
    """

    def __init__(self, clients: Sequence[Client], model: Model) -> None:
        self._turns = deque(clients)
        self._model = model
        self._changed = threading.Condition()
        self._in_flight: deque[_Begun] = deque()
        self._begun: SimpleQueue[tuple[_Begun, Callable[[], Detection | None]] | None] = SimpleQueue()
        self._proved_ns = time.monotonic_ns()
        self.distrust: str | None = None
        self._former: tuple[Model, str] | None = None  # replaced last, if it was not believed then, and why
        self._last_ended_ns = 0
        self._is_stopped = False

    @property
    def model(self) -> Model:
        """What inspects the next frame."""
        return self._model

    @property
    def running_s(self) -> float:
        """How long the engine has been busy with one frame; 0 while it has none."""
        with self._changed:
            if not self._in_flight:
                return 0.0
            return (time.monotonic_ns() - max(self._in_flight[0].begun_ns, self._last_ended_ns)) / 1e9

    def replace_model(self, model: Model) -> None:
        """Let another model inspect, from the next frame on."""
        with self._changed:
            replaced, self._model = self._model, model
            self._former = None if self.distrust is None else (replaced, self.distrust)
            self._proved_ns, self.distrust = time.monotonic_ns(), None
            is_idle = self._is_idle(replaced)
            self._changed.notify_all()
        if is_idle:
            _close(replaced)

    def wake(self) -> None:
        """Say that a client may have become ready."""
        with self._changed:
            self._changed.notify_all()

    def tick(self) -> None:
        """Let an engine that waits for frames show what it computes, if it is time for that: called now and then."""
        if self._proof_due_in_s() <= 0:
            self.wake()

    def stop(self) -> None:
        """Let `begin` and `infer` end after what they are at."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Give the model's memory back, unless an engine that never came back still uses it."""
        with self._changed:
            is_idle = self._is_idle(self._model)
        if is_idle:
            _close(self._model)

    def begin(self) -> None:
        """Begin frames until stopped: the work of one thread."""
        try:
            while (begun := self._next()) is not None:
                self._begun.put((begun, _work(begun)))
        finally:
            self._begun.put(None)

    def infer(self) -> None:
        """Wait for the detections of frames that have begun, in their order: the work of a second thread."""
        while (waiting := self._begun.get()) is not None:
            begun, detection = waiting
            if self._is_stopped:  # the line ends, and its stations count what is in flight
                self._end(begun, time.monotonic_ns())
                continue
            found, ended_ns = _found(detection), time.monotonic_ns()
            if begun.client is None or begun.acquisition is None:
                self._judge_proof(begun.model, found)
            self._end(begun, ended_ns)
            if begun.client is not None and begun.acquisition is not None and found is not None:
                distrust = self._distrust_of(begun.model)
                if distrust is not None and not isinstance(found, Exception):
                    found = EngineError(distrust)
                begun.client.deliver(Inspection(begun.acquisition, begun.model, found, begun.begun_ns, ended_ns))

    def _next(self) -> _Begun | None:
        with self._changed:
            while not self._is_stopped:
                due_in_s = self._proof_due_in_s()
                is_overdue = due_in_s < -self._model.prove_every_s  # no frame begins until it is done
                client = None if is_overdue else self._ready()
                if client is None and due_in_s <= 0 and not self._in_flight:
                    return self._began(None, None)
                acquisition = None if client is None else client.take()
                if client is None or acquisition is None:
                    self._changed.wait()
                    continue
                self._turns.remove(client)
                self._turns.append(client)
                return self._began(client, acquisition)
            return None

    def _began(self, client: Client | None, acquisition: Acquisition | None) -> _Begun:
        begun = _Begun(client, acquisition, self._model, time.monotonic_ns())
        self._in_flight.append(begun)
        return begun

    def _proof_due_in_s(self) -> float:
        """Idle engines show what they compute once it is 0; busy ones, too, when it is that long overdue again."""
        if self._model.prove is None:
            return math.inf
        every_s = self._model.prove_every_s if self.distrust is None else min(self._model.prove_every_s, AGAIN_S)
        return every_s - (time.monotonic_ns() - self._proved_ns) / 1e9

    def _judge_proof(self, model: Model, found: object) -> None:
        with self._changed:
            if model is not self._model:
                return
            self._proved_ns = time.monotonic_ns()
            distrust = str(found) if isinstance(found, Exception) else None
            if distrust != self.distrust:
                _logger.error("%s", distrust) if distrust else _logger.info("the engine computes what it should again")
            self.distrust = distrust

    def _distrust_of(self, model: Model) -> str | None:
        """Also of a model that was replaced while a frame of it was in flight."""
        with self._changed:
            if model is self._model:
                return self.distrust
            return self._former[1] if self._former is not None and model is self._former[0] else None

    def _ready(self) -> Client | None:
        most = self._model.detectors.frames_in_flight
        if len(self._in_flight) >= most:
            return None
        return next((client for client in self._turns if client.is_ready(most)), None)

    def _end(self, begun: _Begun, ended_ns: int) -> None:
        with self._changed:
            self._in_flight.popleft()
            self._last_ended_ns = ended_ns
            is_retired = begun.model is not self._model and self._is_idle(begun.model)
            self._changed.notify_all()
        if is_retired:
            _close(begun.model)

    def _is_idle(self, model: Model) -> bool:
        return all(begun.model is not model for begun in self._in_flight)


def _work(begun: _Begun) -> Callable[[], Detection | None]:
    if begun.acquisition is None:
        return begun.model.prove or _nothing
    frame, refusal = begun.acquisition.frame, begun.acquisition.refusal
    if refusal is not None:
        return partial(_raise, CameraError(refusal))
    try:
        return begun.model.detectors.of(frame.layout).begin(frame.pixels)
    except Exception as error:
        return partial(_raise, error)


def _nothing() -> None: ...


def _found(detection: Callable[[], Detection | None]) -> Detection | Exception | None:
    try:
        return detection()
    except Exception as error:
        return error


def _close(model: Model) -> None:
    try:
        model.detectors.close()
    except Exception:
        _logger.exception("the model of bundle %.16s cannot be closed; its memory stays taken", model.bundle_sha256)


def _raise(error: Exception) -> NoReturn:
    raise error
