"""Pages in, a small HTTP server for monitoring out: GET and HEAD, one request a connection.

It cannot hurt the line: one thread; so many connections at a time and so many a second, the rest wait in the kernel;
one deadline for a whole connection, however slowly it sends or reads; a request of bounded size, whose headers are not
even read. The server knows nothing about what the pages say.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST

from fbft_edge.addresses import address_and_port
from fbft_edge.closeable import Closeable
from fbft_edge.errors import PublisherError

if TYPE_CHECKING:
    from fbft_edge.service.liveness import Liveness, Report
    from fbft_edge.service.telemetry import Telemetry

MAX_CONNECTIONS = 32
MAX_REQUEST_BYTES = 8192
DEADLINE_S = 2.0
PACE_S = 0.01
RETRY_S = 1.0
METRICS_HELD_S = 0.25
BACKLOG = 16

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """One answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


Pages = Mapping[str, Callable[[], Page]]


def monitoring_pages(liveness: Liveness, telemetry: Telemetry) -> Pages:
    """`/healthz`, `/readyz` and `/metrics`; the last is made four times a second at most, however often it is read."""
    return {
        "/healthz": lambda: _report_page(liveness.alive()),
        "/readyz": lambda: _report_page(liveness.ready()),
        "/metrics": _held(lambda: Page(HTTPStatus.OK, CONTENT_TYPE_LATEST, telemetry.render()), METRICS_HELD_S),
    }


class HttpEndpoint(Closeable):
    """Serves pages from a thread of its own until it is closed.

    Args:
        bind: `HOST:PORT`; the host is an address or `localhost`, port 0 takes any that is free.
        pages: Path to what is called, in the server's thread, for its page; it answers at once.
        insecure: Allow addresses beyond loopback.
        deadline_s: A connection is closed after so long, answered or not.

    Attributes:
        address: What was bound, `HOST:PORT`.

    Raises:
        PublisherError: The address cannot be bound, or must not be.
    """

    def __init__(self, bind: str, pages: Pages, *, insecure: bool = False, deadline_s: float = DEADLINE_S) -> None:
        self._listener, self._pages, self._deadline_s = _listener(bind, insecure), pages, deadline_s
        host, port = self._listener.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._answering: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._is_paused = False
        self._thread = threading.Thread(target=self._run, name="fbft-http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End every connection and free the address; may be called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        self._loop.call_soon(self._resume)
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        self._pause()
        self._listener.close()
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    def _pause(self) -> None:
        self._is_paused = True
        self._loop.remove_reader(self._listener)

    def _resume(self) -> None:
        self._is_paused = False
        self._listen()

    def _listen(self) -> None:
        """Take connections from the kernel again, if it is time, there is room and the endpoint is open."""
        is_open = self._listener.fileno() >= 0
        if is_open and not self._is_paused and len(self._answering) < MAX_CONNECTIONS:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        self._pause()
        try:
            connection, _ = self._listener.accept()
        except OSError as error:  # no descriptor left, or the client is gone already
            _logger.warning("the HTTP endpoint cannot accept a connection: %s", error.strerror)
            self._loop.call_later(RETRY_S, self._resume)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._answer(connection))
        self._answering.add(task)
        task.add_done_callback(partial(self._finish, connection))
        self._loop.call_later(PACE_S, self._resume)

    def _finish(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        connection.close()
        self._answering.discard(task)
        self._listen()

    async def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(self._exchange(connection), self._deadline_s)

    async def _exchange(self, connection: socket.socket) -> None:
        request = b""
        while not _is_complete(request):
            block = await self._loop.sock_recv(connection, MAX_REQUEST_BYTES)
            if not block:
                return
            request += block
            if len(request) > MAX_REQUEST_BYTES:
                await self._send(connection, _text_page(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
                return
        method, page = self._page_for(request)
        await self._send(connection, page, with_body=method != "HEAD")

    def _page_for(self, request: bytes) -> tuple[str, Page]:
        words = request.partition(b"\n")[0].decode("latin-1").split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "", _text_page(HTTPStatus.BAD_REQUEST)
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return method, _text_page(HTTPStatus.METHOD_NOT_ALLOWED)
        page = self._pages.get(target.partition("?")[0])
        return method, _text_page(HTTPStatus.NOT_FOUND) if page is None else _made(page)

    async def _send(self, connection: socket.socket, page: Page, *, with_body: bool = True) -> None:
        head = (
            f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\nContent-Type: {page.content_type}\r\n"
            f"Content-Length: {len(page.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n"
        )
        allow = "Allow: GET, HEAD\r\n" if page.status is HTTPStatus.METHOD_NOT_ALLOWED else ""
        await self._loop.sock_sendall(connection, f"{head}{allow}\r\n".encode() + (page.body if with_body else b""))


def _held(page: Callable[[], Page], for_s: float) -> Callable[[], Page]:
    """A page that is made anew after so long."""
    made, made_s = page(), time.monotonic()

    def held() -> Page:
        nonlocal made, made_s
        if time.monotonic() - made_s >= for_s:
            made, made_s = page(), time.monotonic()
        return made

    return held


def _is_complete(request: bytes) -> bool:
    return b"\r\n\r\n" in request or b"\n\n" in request


def _made(page: Callable[[], Page]) -> Page:
    try:
        return page()
    except Exception:
        _logger.exception("a page of the HTTP endpoint failed")
        return _text_page(HTTPStatus.INTERNAL_SERVER_ERROR)


def _text_page(status: HTTPStatus) -> Page:
    return Page(status, "text/plain; charset=utf-8", f"{status.phrase}\n".encode())


def _report_page(report: Report) -> Page:
    status = HTTPStatus.OK if report.reason is None else HTTPStatus.SERVICE_UNAVAILABLE
    return Page(status, "application/json", json.dumps(report.to_json()).encode() + b"\n")


def check_http_bind(bind: str, *, insecure: bool) -> tuple[IPv4Address | IPv6Address, int]:
    """Refuse what is no address, or reaches beyond this machine without `insecure`.

    Returns:
        Address and port.

    Raises:
        PublisherError: Either.
    """
    try:
        address, port = address_and_port(bind)
    except ValueError:
        raise PublisherError(f"cannot serve HTTP on {bind!r}; use ADDRESS:PORT, such as 127.0.0.1:9090") from None
    if not (address.is_loopback or insecure):
        raise PublisherError(
            f"HTTP on {bind} reaches beyond this machine, in clear text to anyone; bind 127.0.0.1:{port} and let a "
            f"proxy or agent on this machine read it, or allow insecure on a network you trust"
        )
    return address, port


def _listener(bind: str, insecure: bool) -> socket.socket:
    address, port = check_http_bind(bind, insecure=insecure)
    listener = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        in_use = error.errno == errno.EADDRINUSE
        remedy = "another program listens there; choose another port" if in_use else "choose an address of this machine"
        raise PublisherError(f"cannot serve HTTP on {bind}: {error.strerror}; {remedy}") from error
    listener.setblocking(False)
    return listener
