"""Monitoring over HTTP: right answers to real clients, and no client that can take the line's threads or memory."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from fbft_edge.errors import PublisherError
from fbft_edge.service.http_endpoint import MAX_CONNECTIONS, HttpEndpoint, Page, monitoring_pages
from fbft_edge.service.liveness import Liveness
from fbft_edge.service.telemetry import Telemetry

DEADLINE_S = 0.5
MessageSource = Callable[[str], Any]


@pytest.fixture
def liveness() -> Liveness:
    liveness = Liveness(["press-1"], 1.0)
    liveness.engine = "OpenVINO"
    return liveness


@pytest.fixture
def endpoint(liveness: Liveness) -> Iterator[HttpEndpoint]:
    pages = monitoring_pages(liveness, Telemetry(["press-1"]))
    with HttpEndpoint("127.0.0.1:0", pages, deadline_s=DEADLINE_S) as endpoint:
        yield endpoint


def request(endpoint: HttpEndpoint, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(endpoint.address, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read()


def connected(endpoint: HttpEndpoint) -> socket.socket:
    host, _, port = endpoint.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def said(endpoint: HttpEndpoint, sent: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    with connected(endpoint) as client:
        client.sendall(sent)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while block := client.recv(65536):
                answer += block
    return answer


# Answers


def test_health_is_200_while_messages_are_published(
    endpoint: HttpEndpoint, liveness: Liveness, messages: MessageSource
) -> None:
    liveness.published(messages("press-1").fresh())
    status, kind, body = request(endpoint, "/healthz")
    assert (status, kind, json.loads(body)["cameras"]["press-1"]["verdict"]) == (200, "application/json", "ok")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_503_with_the_reason_otherwise(endpoint: HttpEndpoint, path: str) -> None:
    status, _, body = request(endpoint, path)
    assert (status, json.loads(body)["reason"]) == (503, "camera press-1: no message yet")


def test_metrics_are_of_the_type_that_prometheus_asks_for(endpoint: HttpEndpoint) -> None:
    status, kind, body = request(endpoint, "/metrics")
    assert (status, kind.startswith("text/plain; version="), b"fbft_messages_total" in body) == (200, True, True)


def test_a_query_does_not_change_the_page(endpoint: HttpEndpoint) -> None:
    assert request(endpoint, "/metrics?name=x")[0] == 200


def test_head_has_no_body(endpoint: HttpEndpoint) -> None:
    assert request(endpoint, "/metrics", "HEAD")[::2] == (200, b"")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/%2e%2e/etc/passwd"])
def test_there_is_nothing_else(endpoint: HttpEndpoint, path: str) -> None:
    assert request(endpoint, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_written(endpoint: HttpEndpoint, method: str) -> None:
    assert request(endpoint, "/metrics", method)[0] == 405


@pytest.mark.parametrize(
    "garbage", [b"\r\n\r\n", b"GET /metrics\r\n\r\n", b"\x16\x03\x01\x02\x00\n\n", b"A B C\r\n\r\n"]
)
def test_what_is_not_http_is_refused(endpoint: HttpEndpoint, garbage: bytes) -> None:
    assert said(endpoint, garbage).startswith(b"HTTP/1.1 400 ")


def test_a_page_that_fails_is_500_and_the_next_request_is_served(caplog: pytest.LogCaptureFixture) -> None:
    pages = {"/bad": lambda: 1 / 0, "/good": lambda: Page(HTTPStatus.OK, "text/plain", b"x")}
    with HttpEndpoint("127.0.0.1:0", pages) as endpoint:  # type: ignore[arg-type]
        assert (request(endpoint, "/bad")[0], request(endpoint, "/good")[0]) == (500, 200)
    assert "ZeroDivisionError" in caplog.text


# Clients that mean harm, or are broken


def test_a_request_that_never_ends_is_cut_off_at_a_bounded_size(endpoint: HttpEndpoint) -> None:
    sent = 0
    with connected(endpoint) as client, contextlib.suppress(ConnectionError):
        while sent < 50_000_000:
            sent += client.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 65536)
    assert sent < 50_000_000
    assert request(endpoint, "/metrics")[0] == 200


def test_a_connection_that_drips_is_closed_at_its_deadline(endpoint: HttpEndpoint) -> None:
    def drip() -> None:
        for _ in range(1200):
            client.sendall(b"x")
            time.sleep(0.05)

    with connected(endpoint) as client, pytest.raises(ConnectionError):
        drip()


def test_a_client_that_does_not_read_is_closed_at_its_deadline() -> None:
    pages = {"/": lambda: Page(HTTPStatus.OK, "text/plain", bytes(100_000_000))}
    with HttpEndpoint("127.0.0.1:0", pages, deadline_s=DEADLINE_S) as endpoint, connected(endpoint) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        time.sleep(2 * DEADLINE_S)
        with contextlib.suppress(ConnectionResetError):
            while client.recv(1 << 20):
                pass


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def test_a_flood_of_connections_takes_no_threads_and_no_memory_and_a_scrape_still_comes_through(
    endpoint: HttpEndpoint,
) -> None:
    request(endpoint, "/metrics")
    threads, resident = threading.active_count(), resident_bytes()
    with contextlib.ExitStack() as stack:
        flood = []
        for index in range(300):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", int(endpoint.address.rpartition(":")[2])))
            flood.append(client)
            with contextlib.suppress(OSError):
                client.send(b"GET /metrics HTTP/1.1\r\n" if index % 2 else b"x" * 8000)
        answered = request(endpoint, "/healthz")[0]
        assert threading.active_count() == threads
        assert resident_bytes() - resident < 16 << 20
    assert answered == 503
    assert len(flood) > MAX_CONNECTIONS


def test_requests_as_fast_as_a_client_can_are_paced_and_answered(endpoint: HttpEndpoint) -> None:
    assert {request(endpoint, "/metrics")[0] for _ in range(50)} == {200}


def test_the_next_request_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbft_edge.service.http_endpoint.PACE_S", 3600.0)
    pages = {"/": lambda: Page(HTTPStatus.OK, "text/plain", b"here")}
    with HttpEndpoint("127.0.0.1:0", pages) as endpoint:
        assert request(endpoint, "/")[0] == 200
        with connected(endpoint) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            client.settimeout(0.3)
            with pytest.raises(TimeoutError):
                client.recv(1)


# Where it listens


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "192.0.2.1:9090"])
def test_other_machines_are_refused_unless_asked_for(bind: str) -> None:
    with pytest.raises(PublisherError, match="beyond this machine"):
        HttpEndpoint(bind, {})


def test_insecure_allows_other_machines() -> None:
    with HttpEndpoint("0.0.0.0:0", {}, insecure=True) as endpoint:
        assert endpoint.address.startswith("0.0.0.0:")


@pytest.mark.parametrize("bind", ["", "9090", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "line.local:80", "[::1"])
def test_what_is_no_address_is_refused(bind: str) -> None:
    with pytest.raises(PublisherError, match="ADDRESS:PORT"):
        HttpEndpoint(bind, {})


def test_an_address_in_use_is_named_with_a_remedy(endpoint: HttpEndpoint) -> None:
    with pytest.raises(PublisherError, match=f"{endpoint.address}.*another port"):
        HttpEndpoint(endpoint.address, {})


def test_closing_frees_the_address_at_once_even_with_a_client_connected() -> None:
    with HttpEndpoint("localhost:0", {}) as first:
        client = connected(first)
        address = first.address
    with contextlib.closing(client), HttpEndpoint(address, {}) as second:
        assert request(second, "/")[0] == 404


def test_closing_twice_does_no_harm() -> None:
    endpoint = HttpEndpoint("127.0.0.1:0", {})
    endpoint.close()
    endpoint.close()
