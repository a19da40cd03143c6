"""A subscriber gets typed results, knows what it missed, and survives whatever comes over the wire."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import get_type_hints

import numpy as np
import pytest
import zmq
from waiting import wait_until

from fbft_edge.errors import ArgumentError, MessageError
from fbft_edge.frames.frame import Detection, Frame, Verdict
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger
from fbft_edge.messages.reading import Result, decode_message
from fbft_edge.messages.writing import MessageWriter, encode_detection, encode_no_detection
from fbft_edge.sockets.publisher import ResultPublisher
from fbft_edge.sockets.subscriber import ResultSubscriber

OK = Health("ok")


def writer(site: str = "hall-3", camera: str = "press-1") -> MessageWriter:
    return MessageWriter(site, camera, 0.5, "ab" * 32)


def message(session: MessageWriter) -> list[bytes]:
    return session.write(encode_no_detection(), Verdict.STALE, 5, Ledger().publish_stale(), OK)


@pytest.fixture
def publisher() -> Iterator[ResultPublisher]:
    with ResultPublisher("tcp://127.0.0.1:*") as publisher:
        yield publisher


def joined(publisher: ResultPublisher, **names: str) -> ResultSubscriber:
    """A subscriber of every message, known to be connected: it has received a message of another session."""
    subscriber = ResultSubscriber(publisher.endpoint, every=True, **names)
    greeting = writer(names.get("site", "hall-3"), names.get("camera", "greeter"))
    while subscriber.receive(0.01) is None:
        publisher.send(message(greeting))
    while subscriber.receive(0.05) is not None:
        pass
    return subscriber


def received(subscriber: ResultSubscriber, limit: int = 100) -> list[Result]:
    results = []
    while len(results) < limit and (result := subscriber.receive(0.3)) is not None:
        results.append(result)
    return results


def test_a_result_arrives_as_it_was_published(publisher: ResultPublisher) -> None:
    mask = np.zeros((6, 9), bool)
    mask[2, 3] = True
    frame = Frame("press-1", 4, 17, np.zeros((6, 9, 3), np.uint8))
    encoded = encode_detection(frame, Detection(0.75, 1.0, mask, (), True))
    with joined(publisher) as subscriber:
        publisher.send(writer().write(encoded, Verdict.ANOMALOUS, 18, Ledger().publish_stale(), OK))
        result = subscriber.receive(5)
    assert (result.frame_id, result.captured_ns, result.verdict, result.score) == (
        4,
        17,
        Verdict.ANOMALOUS,
        0.75,
    )
    np.testing.assert_array_equal(result.mask, mask)


def test_without_a_message_receive_waits_until_its_timeout_and_returns_none(publisher: ResultPublisher) -> None:
    with joined(publisher) as subscriber:
        assert subscriber.receive(0.1) is None
        later = threading.Timer(0.1, publisher.send, [message(writer())])
        later.start()
        assert subscriber.receive(60) is not None
        later.join()


def test_a_subscriber_may_come_before_its_publisher() -> None:
    with ResultPublisher("tcp://127.0.0.1:*") as placeholder:
        endpoint = placeholder.endpoint
    with ResultSubscriber(endpoint, every=True) as subscriber:
        assert subscriber.receive(0.05) is None
        with ResultPublisher(endpoint) as publisher:
            session = writer()
            answers = (publisher.send(message(session)) or subscriber.receive(0.05) for _ in range(200))
            assert next(result for result in answers if result is not None).site == "hall-3"


def test_the_iterator_yields_results(publisher: ResultPublisher) -> None:
    session = writer()
    with joined(publisher) as subscriber:
        for _ in range(3):
            publisher.send(message(session))
        assert [result.sequence for result in itertools.islice(subscriber, 3)] == [0, 1, 2]


@pytest.mark.parametrize("lost", [[], [1], [1, 2, 3], [2, 4]])
def test_lost_counts_the_messages_missed_just_before(publisher: ResultPublisher, lost: list[int]) -> None:
    session = writer()
    messages = [message(session) for _ in range(6)]
    with joined(publisher) as subscriber:
        for index in set(range(6)) - set(lost):
            publisher.send(messages[index])
        assert sum(result.lost for result in received(subscriber, 6 - len(lost))) == len(lost)


def test_the_first_result_of_a_late_subscriber_has_lost_nothing(publisher: ResultPublisher) -> None:
    session = writer()
    messages = [message(session) for _ in range(6)]
    with joined(publisher) as subscriber:
        publisher.send(messages[5])
        assert subscriber.receive(5).lost == 0


def test_a_restarted_publisher_is_no_loss(publisher: ResultPublisher) -> None:
    before, after = writer(), writer()
    with joined(publisher) as subscriber:
        for session in (before, before, after):
            publisher.send(message(session))
        assert [result.lost for result in received(subscriber, 3)] == [0, 0, 0]


def test_loss_is_counted_per_camera(publisher: ResultPublisher) -> None:
    one, two = writer(camera="press-1"), writer(camera="press-2")
    with joined(publisher) as subscriber:
        for session in (one, two, one, one, two):
            publisher.send(message(session))
        assert [result.lost for result in received(subscriber, 5)] == [0] * 5


def test_a_repeated_message_is_no_loss(publisher: ResultPublisher) -> None:
    session = writer()
    messages = [message(session) for _ in range(3)]
    with joined(publisher) as subscriber:
        for index in (2, 0):
            publisher.send(messages[index])
        assert [result.lost for result in received(subscriber, 2)] == [0, 0]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_lost_of_several_cameras_and_their_restarts_is_counted_once(
    publisher: ResultPublisher, seed: int
) -> None:
    chosen, cameras = random.Random(seed), ("press-1", "press-2", "press-3")
    sessions = {camera: writer(camera=camera) for camera in cameras}
    arrived: dict[str, list[int]] = {}
    lost: Counter[str] = Counter()
    with joined(publisher) as subscriber:
        for _ in range(120):
            camera = chosen.choice(cameras)
            if chosen.random() < 0.04:
                sessions[camera] = writer(camera=camera)
            parts = message(sessions[camera])
            if chosen.random() < 0.3:
                continue
            publisher.send(parts)
            result = subscriber.receive(10)
            arrived.setdefault(result.session, []).append(result.sequence)
            lost[result.session] += result.lost
    assert len(arrived) >= len(cameras)
    for session, numbers in arrived.items():
        # What a session sent before its first message arrived, nobody could know of.
        assert lost[session] == numbers[-1] - numbers[0] + 1 - len(numbers)


def test_a_slow_subscriber_sees_what_it_missed(publisher: ResultPublisher) -> None:
    session = writer()
    mask = np.random.default_rng(0).random((400, 400)) > 0.5
    encoded = encode_detection(Frame("press-1", 0, 1, np.zeros((1, 1, 3), np.uint8)), Detection(0, 0, mask, (), False))
    with joined(publisher) as subscriber:
        for _ in range(5000):  # more than all queues on the way hold
            publisher.send(session.write(encoded, Verdict.OK, 5, Ledger().publish_stale(), OK))
        results = received(subscriber, 100)
        while not any(result.lost for result in results):
            publisher.send(message(session))
            results += received(subscriber, 1)
    assert len(results) + sum(result.lost for result in results) == results[-1].sequence + 1


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, ["a/x", "a/y", "b/x", "ab/x"]),
        ({"site": "a"}, ["a/x", "a/y"]),
        ({"camera": "x"}, ["a/x", "b/x", "ab/x"]),
        ({"site": "b", "camera": "x"}, ["b/x"]),
    ],
)
def test_a_subscriber_gets_only_what_it_asked_for(
    publisher: ResultPublisher, names: dict[str, str], expected: list[str]
) -> None:
    with joined(publisher, **names) as subscriber:
        for site, camera in (("a", "x"), ("a", "y"), ("b", "x"), ("ab", "x")):
            publisher.send(message(writer(site, camera)))
        assert [f"{result.site}/{result.camera}" for result in received(subscriber)] == expected


@dataclass(frozen=True)
class FromNow:
    """A session whose clock shows 1000 s at its beginning; its messages say when they were sent by that."""

    session: MessageWriter = field(default_factory=writer)
    start_s: float = field(default_factory=time.monotonic)

    def message(self, age_s: float = 0.0, verdict: Verdict = Verdict.OK) -> list[bytes]:
        published_s = 1000 + time.monotonic() - self.start_s - age_s
        found = Detection(0, 0, np.zeros((1, 1), bool), (), verdict is Verdict.ANOMALOUS)
        encoded = encode_detection(Frame("camera", 1, 1, np.zeros((1, 1, 3), np.uint8)), found)
        return self.session.write(encoded, verdict, round(1e9 * published_s), Ledger().publish_stale(), OK)


@pytest.fixture
def lines() -> dict[str, FromNow]:
    return {camera: FromNow(writer(camera=camera)) for camera in ("press-1", "press-2")}


@pytest.fixture
def newest(publisher: ResultPublisher, lines: dict[str, FromNow]) -> Iterator[ResultSubscriber]:
    """A subscriber that knows the clock of both lines, and that a message comes every second.

    Their first messages seem 900 s old, so that what is learned is no shorter than what is given.
    """
    with ResultSubscriber(publisher.endpoint, site="hall-3", camera=lines, period_s=1.0) as subscriber:
        with joined(publisher):
            for line in lines.values():
                publisher.send(line.message(age_s=900))
        assert subscriber.receive(0.5) is None
        known: set[str] = set()
        while known != set(lines):
            for line in lines.values():
                publisher.send(line.message())
            result = subscriber.receive(0.05)
            known |= set() if result is None else {result.camera}
        while subscriber.receive(0.2) is not None:
            pass
        yield subscriber


def send_all(publisher: ResultPublisher, messages: list[list[bytes]]) -> None:
    """Send, and wait until all of it lies in the subscribers' queues: a subscriber of the same end has it."""
    with joined(publisher) as other:
        for parts in messages:
            publisher.send(parts)
        assert len(received(other, len(messages))) == len(messages)


def test_a_reader_that_falls_behind_gets_the_newest_and_is_told_how_many_it_skipped(
    publisher: ResultPublisher, newest: ResultSubscriber, lines: dict[str, FromNow]
) -> None:
    verdicts = [*[Verdict.OK] * 20, Verdict.ANOMALOUS]
    send_all(publisher, [lines["press-1"].message(0.0, verdict) for verdict in verdicts])
    skipped = 0
    while (result := newest.receive(0.3)) is not None:
        last, skipped = result, skipped + result.lost
    assert (last.verdict, skipped >= 18) == (Verdict.ANOMALOUS, True)


def test_each_camera_has_a_newest_of_its_own(
    publisher: ResultPublisher, newest: ResultSubscriber, lines: dict[str, FromNow]
) -> None:
    messages = [line.message() for _ in range(5) for line in lines.values()]
    send_all(publisher, messages)
    last = {result.camera: result.sequence for _ in range(10) if (result := newest.receive(0.1)) is not None}
    assert last == {result.camera: result.sequence for result in map(decode_message, messages)}


def test_what_is_older_than_two_periods_is_not_handed_out_and_counts_as_lost(
    publisher: ResultPublisher, newest: ResultSubscriber, lines: dict[str, FromNow]
) -> None:
    publisher.send(lines["press-1"].message(age_s=2.5))
    assert newest.receive(0.5) is None
    publisher.send(lines["press-1"].message(age_s=0.5))
    result = newest.receive()
    assert (result.verdict, result.lost) == (Verdict.OK, 1)
    assert result.age_s >= 0.4


def test_a_result_that_is_kept_ends_being_good(
    publisher: ResultPublisher, newest: ResultSubscriber, lines: dict[str, FromNow]
) -> None:
    publisher.send(lines["press-1"].message())
    result = newest.receive()
    assert result.is_good
    wait_until(lambda: not result.is_good)


@pytest.mark.parametrize("verdict", [Verdict.ANOMALOUS, Verdict.STALE])
def test_only_ok_is_good(
    publisher: ResultPublisher, newest: ResultSubscriber, lines: dict[str, FromNow], verdict: Verdict
) -> None:
    publisher.send(lines["press-1"].message(verdict=verdict))
    result = newest.receive()
    assert (result.is_current, result.is_good) == (True, False)


def test_with_every_an_old_message_is_handed_out_and_not_good(publisher: ResultPublisher) -> None:
    line = FromNow()
    messages = [line.message(age_s) for age_s in (9.0, 8.0, 7.0, 6.0)]
    with joined(publisher) as subscriber:
        send_all(publisher, messages)
        results = [result for result in received(subscriber) if result.session == line.session.session]
    assert ([result.lost for result in results], [result.is_good for result in results]) == ([0] * 4, [False] * 4)


def test_what_waited_before_it_was_read_is_never_handed_out_as_new(publisher: ResultPublisher) -> None:
    line = FromNow()
    with ResultSubscriber(publisher.endpoint, camera="press-1") as subscriber:
        send_all(publisher, [line.message(age_s) for age_s in (9.0, 8.0, 7.0, 6.0)])
        assert subscriber.receive(0.3) is None


def test_silence_ends_a_wait_without_a_timeout(publisher: ResultPublisher) -> None:
    with ResultSubscriber(publisher.endpoint) as subscriber:
        assert subscriber.receive() is None


def test_a_loop_that_silence_would_stop_is_refused(publisher: ResultPublisher) -> None:
    with ResultSubscriber(publisher.endpoint) as subscriber, pytest.raises(ArgumentError, match="every=True"):
        next(iter(subscriber))


def test_of_several_cameras_only_those_that_are_asked_for_come(publisher: ResultPublisher) -> None:
    with ResultSubscriber(publisher.endpoint, site="a", camera=("x", "y"), every=True) as subscriber:
        send_all(publisher, [message(writer("a", name)) for name in ("x", "xx", "z", "y")])
        assert [result.camera for result in received(subscriber)] == ["x", "y"]


def test_an_invalid_message_is_an_error_and_the_next_one_arrives(publisher: ResultPublisher) -> None:
    with joined(publisher) as subscriber:
        publisher.send([b"fbft/hall-3/press-1/result", b"{}", b""])
        publisher.send(message(writer()))
        with pytest.raises(MessageError):
            subscriber.receive(5)
        assert subscriber.receive(5) is not None


def test_messages_of_other_programs_do_not_prolong_a_timeout(publisher: ResultPublisher) -> None:
    is_over = threading.Event()

    def others() -> None:
        for _ in range(3000):
            publisher.send([b"fbft/hall-3/press-2/result", b"{}", b""])
            if is_over.wait(0.02):
                return

    with joined(publisher, camera="press-1") as subscriber:
        sending = threading.Thread(target=others)
        sending.start()
        assert subscriber.receive(0.2) is None
        assert sending.is_alive()
        is_over.set()
        sending.join()


@pytest.mark.parametrize("endpoint", ["", "5555", "tcp://", "tcp://127.0.0.1", "http://127.0.0.1:80"])
def test_an_endpoint_that_can_not_be_connected_to_is_refused(endpoint: str) -> None:
    with pytest.raises(ArgumentError, match="cannot connect"):
        ResultSubscriber(endpoint)


def test_closing_twice_does_no_harm(publisher: ResultPublisher) -> None:
    with ResultSubscriber(publisher.endpoint) as subscriber:
        subscriber.close()


def test_a_closed_subscriber_does_not_receive(publisher: ResultPublisher) -> None:
    subscriber = ResultSubscriber(publisher.endpoint)
    subscriber.close()
    with pytest.raises(zmq.ZMQError):
        subscriber.receive(0.1)


def test_receive_is_typed() -> None:
    assert get_type_hints(ResultSubscriber.receive)["return"] == Result | None
