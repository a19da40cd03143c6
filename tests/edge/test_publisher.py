"""The publishing socket is private unless told otherwise, never waits, and says what stands in its way."""

from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path

import pytest
import zmq

from fbft_edge.errors import PublisherError
from fbft_edge.publisher import SEND_QUEUE_MESSAGES, ResultPublisher
from fbft_edge.security import check_bind

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


def test_sending_to_a_stalled_subscriber_does_not_wait() -> None:
    context = zmq.Context()
    with ResultPublisher(LOOPBACK) as publisher:
        stalled = context.socket(zmq.SUB)
        stalled.setsockopt(zmq.RCVHWM, 1)
        stalled.setsockopt(zmq.SUBSCRIBE, b"")
        stalled.connect(publisher.endpoint)
        time.sleep(0.2)
        start_s = time.monotonic()
        for _ in range(500):
            publisher.send([b"topic", b"header", bytes(100_000)])
        assert time.monotonic() - start_s < 5
        context.destroy(linger=0)


def test_the_last_message_leaves_before_the_endpoint_closes() -> None:
    context = zmq.Context()
    with ResultPublisher(LOOPBACK) as publisher:
        subscriber = context.socket(zmq.SUB)
        subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        subscriber.connect(publisher.endpoint)
        time.sleep(0.2)
        publisher.send([b"topic", b"last", b""])
    assert subscriber.poll(2000)
    assert subscriber.recv_multipart() == [b"topic", b"last", b""]
    context.destroy(linger=0)
