"""The publishing socket is private unless told otherwise, never waits, and says what stands in its way."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from waiting import wait_until

from fbft_edge.errors import PublisherError
from fbft_edge.sockets.endpoints import check_bind
from fbft_edge.sockets.publisher import MAX_SUBSCRIPTION_BYTES, MAX_SUBSCRIPTIONS, SEND_QUEUE_MESSAGES, ResultPublisher

LOOPBACK = "tcp://127.0.0.1:*"


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/results"


def socket_file(endpoint: str) -> Path:
    return Path(endpoint.removeprefix("ipc://"))


@pytest.mark.parametrize(
    "allowed",
    [
        "tcp://127.0.0.1:5555",
        "tcp://127.5.6.7:*",
        "tcp://localhost:5555",
        "tcp://[::1]:5555",
        "ipc:///run/x",
        "ipc://@x",
    ],
)
def test_this_machine_may_always_be_bound(allowed: str) -> None:
    check_bind(allowed, insecure=False)


BEYOND = [
    "tcp://*:5555",
    "tcp://0.0.0.0:5555",
    "tcp://192.168.1.5:5555",
    "tcp://eth0:5555",
    "tcp://[::]:5555",
]


@pytest.mark.parametrize("beyond", [*BEYOND, "tcp://127.0.0.1.example.com:5555", "tcp://line.local:5555"])
def test_other_machines_are_refused_unless_asked_for(beyond: str) -> None:
    with pytest.raises(PublisherError, match="--insecure"):
        check_bind(beyond, insecure=False)


@pytest.mark.parametrize("beyond", BEYOND)
def test_insecure_allows_other_machines(beyond: str) -> None:
    check_bind(beyond, insecure=True)


@pytest.mark.parametrize("other", ["", "tcp://", "5555", "inproc://x", "udp://127.0.0.1:1", "pgm://eth0;239.1.1.1:1"])
@pytest.mark.parametrize("insecure", [False, True])
def test_other_transports_are_refused_always(other: str, insecure: bool) -> None:
    with pytest.raises(PublisherError, match="cannot bind"):
        check_bind(other, insecure=insecure)


def test_a_publisher_checks_before_it_binds() -> None:
    with pytest.raises(PublisherError, match="--insecure"):
        ResultPublisher("tcp://*:*")


def test_an_insecure_publisher_binds_beyond_loopback() -> None:
    with ResultPublisher("tcp://0.0.0.0:*", insecure=True) as publisher:
        assert publisher.endpoint.startswith("tcp://0.0.0.0:")


def test_the_endpoint_names_the_port_that_was_found() -> None:
    with ResultPublisher(LOOPBACK) as publisher:
        assert int(publisher.endpoint.rpartition(":")[2]) > 0


def test_a_tcp_endpoint_in_use_is_named_with_a_remedy() -> None:
    with ResultPublisher(LOOPBACK) as publisher:
        with pytest.raises(PublisherError) as caught:
            ResultPublisher(publisher.endpoint)
        assert publisher.endpoint in str(caught.value)
        assert "--bind" in str(caught.value)


def test_an_ipc_endpoint_in_use_is_not_taken_over(endpoint: str) -> None:
    with ResultPublisher(endpoint), pytest.raises(PublisherError, match="already in use"):
        ResultPublisher(endpoint)


def test_an_ipc_endpoint_is_for_owner_and_group_only(endpoint: str) -> None:
    with ResultPublisher(endpoint):
        assert stat.S_IMODE(socket_file(endpoint).stat().st_mode) == 0o660


def test_binding_leaves_the_umask_as_it_was(endpoint: str) -> None:
    before = os.umask(0o022)
    try:
        with ResultPublisher(endpoint):
            pass
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_a_socket_file_left_behind_is_reused(endpoint: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_file(endpoint)))
    with ResultPublisher(endpoint):
        assert socket_file(endpoint).is_socket()


def test_a_file_in_the_way_is_not_deleted(endpoint: str) -> None:
    socket_file(endpoint).write_text("precious")
    with pytest.raises(PublisherError, match="not a socket"):
        ResultPublisher(endpoint)
    assert socket_file(endpoint).read_text() == "precious"


@pytest.mark.parametrize("wrong", ["tcp://127.0.0.1:99999", "tcp://127.0.0.1:x", "ipc:///nowhere/at/all/x"])
def test_an_endpoint_that_can_not_be_bound_is_refused_in_one_line(wrong: str) -> None:
    with pytest.raises(PublisherError) as caught:
        ResultPublisher(wrong)
    assert wrong in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(PublisherError, match="cannot bind"):
        ResultPublisher("tcp://192.0.2.1:5555", insecure=True)


def test_closing_frees_the_endpoint() -> None:
    with ResultPublisher(LOOPBACK) as first:
        endpoint = first.endpoint
    with ResultPublisher(endpoint) as second:
        assert second.endpoint == endpoint


def test_closing_twice_does_no_harm() -> None:
    publisher = ResultPublisher(LOOPBACK)
    publisher.close()
    publisher.close()


def test_sending_without_a_subscriber_does_not_wait() -> None:
    with ResultPublisher(LOOPBACK) as publisher:
        for _ in range(SEND_QUEUE_MESSAGES * 10):
            publisher.send([b"topic", b"header", b"mask"])


def test_ticks_that_were_held_up_and_leave_at_once_reach_a_subscriber_that_reads() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with ResultPublisher(LOOPBACK) as publisher:
        subscriber = context.socket(zmq.SUB)
        subscriber.setsockopt(zmq.SUBSCRIBE, b"topic")
        subscriber.connect(publisher.endpoint)
        while not subscriber.poll(50):
            publisher.send([b"topic", b"first"])
        for burst in range(10):
            for number in range(200):
                publisher.send([b"topic", b"%d/%d" % (burst, number), bytes(1000)])
            received = []
            while not received or received[-1] != b"%d/199" % burst:
                assert subscriber.poll(30_000), f"silent after {len(received)} messages"
                received.append(subscriber.recv_multipart()[1])
            assert [part for part in received if part != b"first"] == [b"%d/%d" % (burst, n) for n in range(200)]
        context.destroy(linger=0)


def test_sending_to_a_stalled_subscriber_does_not_wait() -> None:
    context = zmq.Context()
    with ResultPublisher(LOOPBACK) as publisher:
        stalled = context.socket(zmq.SUB)
        stalled.setsockopt(zmq.RCVHWM, 1)
        stalled.setsockopt(zmq.SUBSCRIBE, b"")
        stalled.connect(publisher.endpoint)
        time.sleep(0.2)
        message = [b"topic", b"header", bytes(100_000)]
        sending = threading.Thread(target=lambda: [publisher.send(message) for _ in range(500)], daemon=True)
        sending.start()
        sending.join(DEADLINE_S)
        assert not sending.is_alive()
        context.destroy(linger=0)


def test_messages_that_find_no_room_are_counted() -> None:
    with ResultPublisher(LOOPBACK) as publisher:
        publisher.send([b"topic", b"0"])
        assert publisher.dropped() == {"queue": 0}
        for number in range(200_000):  # faster than any socket takes them
            publisher.send([b"topic", b"%d" % number])
        assert 0 < publisher.dropped()["queue"] < 200_000


def test_the_last_message_leaves_before_the_endpoint_closes() -> None:
    context = zmq.Context()
    with ResultPublisher(LOOPBACK) as publisher:
        subscriber = context.socket(zmq.SUB)
        subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        subscriber.connect(publisher.endpoint)
        time.sleep(0.2)
        publisher.send([b"topic", b"last", b""])
    assert subscriber.poll(60_000)
    assert subscriber.recv_multipart() == [b"topic", b"last", b""]
    context.destroy(linger=0)


NUM_MESSAGES = 150
MASK = bytes(20_000)
DEADLINE_S = 60

SUBSCRIBE_AND_WAIT = """
import sys, time, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.subscribe(b"")
socket.connect(sys.argv[1])
socket.recv()
print("receiving", flush=True)
time.sleep(60)
"""
SUBSCRIBE_WITHOUT_END = """
import os, sys, zmq
socket = zmq.Context().socket(zmq.XSUB)
socket.connect(sys.argv[1])
print("subscribing", flush=True)
while True:
    socket.send(b"\\1" + os.urandom(100))
"""


class Listener:
    """A healthy subscriber: takes numbered messages in a thread, from the first that it gets."""

    def __init__(self, context: zmq.Context, endpoint: str) -> None:
        self._socket = context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"n")
        self._socket.connect(endpoint)
        self.numbers: list[int] = []
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        while self._socket.poll(DEADLINE_S * 1000):
            number = int(self._socket.recv_multipart()[1])
            self.numbers.append(number)
            if number == NUM_MESSAGES - 1:
                break
        self._socket.close(linger=0)

    def wait(self) -> list[int]:
        """What came, from the first to the last message that was sent."""
        self._thread.join(DEADLINE_S)
        return self.numbers


@contextlib.contextmanager
def listening(publisher: ResultPublisher, count: int = 1) -> Iterator[list[Listener]]:
    """Listeners that are known to get messages: the first of all is sent until everyone has it."""
    with zmq.Context() as context:
        listeners = [Listener(context, publisher.endpoint) for _ in range(count)]

        def all_have_it() -> bool:
            publisher.send([b"n", b"0", b""])
            return all(listener.numbers for listener in listeners)

        wait_until(all_have_it, "every listener to have the first message")
        yield listeners


def send_all(publisher: ResultPublisher, mask: bytes = MASK, every_s: float = 0.01) -> None:
    """Send the other messages at a rate."""
    for number in range(1, NUM_MESSAGES):
        publisher.send([b"n", str(number).encode(), mask])
        time.sleep(every_s)


def without_repeats(numbers: list[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


EVERY_MESSAGE = list(range(NUM_MESSAGES))


@contextlib.contextmanager
def another_program(code: str, endpoint: str) -> Iterator[subprocess.Popen[str]]:
    program = subprocess.Popen([sys.executable, "-c", code, endpoint], stdout=subprocess.PIPE, text=True)
    try:
        yield program
    finally:
        program.kill()
        program.communicate()


def test_a_stopped_subscriber_takes_nothing_from_the_others() -> None:
    with (
        ResultPublisher(LOOPBACK) as publisher,
        another_program(SUBSCRIBE_AND_WAIT, publisher.endpoint) as stopped,
        listening(publisher) as (healthy,),
    ):
        greeted = threading.Thread(target=stopped.stdout.readline)
        greeted.start()
        while greeted.is_alive():
            publisher.send([b"n", b"0", b""])
            greeted.join(0.02)
        stopped.send_signal(signal.SIGSTOP)
        send_all(publisher, bytes(200_000))
        assert without_repeats(healthy.wait()) == EVERY_MESSAGE


def test_two_hundred_subscribers_get_every_message() -> None:
    with ResultPublisher(LOOPBACK) as publisher, listening(publisher, 200) as listeners:
        send_all(publisher, b"", 0.02)
        assert [without_repeats(listener.wait()) for listener in listeners] == [EVERY_MESSAGE] * 200


def test_connections_that_send_garbage_are_counted_and_take_nothing_from_the_others() -> None:
    with ResultPublisher(LOOPBACK) as publisher, listening(publisher) as (healthy,):
        address = ("127.0.0.1", int(publisher.endpoint.rpartition(":")[2]))
        is_over = threading.Event()

        def flood() -> None:
            while not is_over.is_set():
                with contextlib.suppress(OSError), socket.create_connection(address, 1) as connection:
                    connection.sendall(b"\xff" + os.urandom(2000))

        floods = [threading.Thread(target=flood) for _ in range(4)]
        for thread in floods:
            thread.start()
        send_all(publisher)
        is_over.set()
        for thread in floods:
            thread.join()
        assert without_repeats(healthy.wait()) == EVERY_MESSAGE
        wait_until(lambda: publisher.refused()["protocol"] + publisher.refused()["handshake"], "garbage to be counted")


def test_an_oversized_subscription_is_not_taken() -> None:
    with ResultPublisher(LOOPBACK) as publisher, zmq.Context() as context, context.socket(zmq.SUB) as greedy:
        greedy.setsockopt(zmq.LINGER, 0)
        greedy.subscribe(b"n" * (MAX_SUBSCRIPTION_BYTES + 1))
        greedy.connect(publisher.endpoint)
        with listening(publisher) as (healthy,):
            for number in range(1, NUM_MESSAGES):
                publisher.send([b"n" * 1000, str(number).encode(), b""])
                time.sleep(0.005)
            assert without_repeats(healthy.wait()) == EVERY_MESSAGE
        assert greedy.poll(0) == 0


def test_a_client_that_subscribes_without_end_is_sent_away_and_takes_nothing_from_the_others() -> None:
    """With libzmq's defaults, sending in the caller's thread, the first send never comes back."""
    with (
        ResultPublisher(LOOPBACK) as publisher,
        listening(publisher) as (healthy,),
        another_program(SUBSCRIBE_WITHOUT_END, publisher.endpoint) as flood,
    ):
        flood.stdout.readline()
        sending = threading.Thread(target=send_all, args=(publisher, MASK, 0.02), daemon=True)
        sending.start()
        sending.join(DEADLINE_S)
        assert not sending.is_alive()
        assert without_repeats(healthy.wait()) == EVERY_MESSAGE
        assert publisher.refused()["subscriptions"] > 0


def test_a_hundred_subscriptions_are_nothing_unusual() -> None:
    with ResultPublisher(LOOPBACK) as publisher, zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.setsockopt(zmq.LINGER, 0)
        for number in range(MAX_SUBSCRIPTIONS // 2):
            subscriber.subscribe(b"fbft/hall-3/press-%d/result" % number)
        subscriber.connect(publisher.endpoint)

        def has_it() -> int:
            publisher.send([b"fbft/hall-3/press-7/result", b"", b""])
            return subscriber.poll(10)

        wait_until(has_it, "a message")
        assert publisher.refused()["subscriptions"] == 0


def test_a_socket_that_failed_says_so_instead_of_dropping_in_silence() -> None:
    with ResultPublisher(LOOPBACK) as publisher:
        publisher.send(["not bytes"])  # type: ignore[list-item]
        with pytest.raises(PublisherError, match="cannot be sent to any more"):
            send_all(publisher)
