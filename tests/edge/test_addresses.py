"""An endpoint or an address is taken apart, or refused."""

from __future__ import annotations

import pytest

from fbft_edge.addresses import address_and_port, endpoint_parts, is_loopback


@pytest.mark.parametrize(
    ("endpoint", "parts"),
    [
        ("tcp://127.0.0.1:5555", ("tcp", "127.0.0.1")),
        ("tcp://[::1]:*", ("tcp", "[::1]")),
        ("ipc:///run/fbft/results", ("ipc", "/run/fbft/results")),
        ("ipc://@abstract", ("ipc", "@abstract")),
    ],
)
def test_an_endpoint_has_a_transport_and_a_place(endpoint: str, parts: tuple[str, str]) -> None:
    assert endpoint_parts(endpoint) == parts


@pytest.mark.parametrize("endpoint", ["", "5555", "tcp://", "udp://127.0.0.1:1", "tcp://127.0.0.1:99999", "ipc://"])
def test_what_is_no_endpoint_is_refused_with_it_and_a_remedy(endpoint: str) -> None:
    with pytest.raises(ValueError, match=f"cannot bind '{endpoint}'.*; use "):
        endpoint_parts(endpoint)


@pytest.mark.parametrize(
    ("text", "found"),
    [("127.0.0.1:9090", ("127.0.0.1", 9090)), ("[::1]:0", ("::1", 0)), ("localhost:80", ("127.0.0.1", 80))],
)
def test_an_address_has_a_port(text: str, found: tuple[str, int]) -> None:
    address, port = address_and_port(text)
    assert (str(address), port) == found


@pytest.mark.parametrize("text", ["", "9090", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "line.local:80", "1.2.3:4"])
def test_what_is_no_address_and_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        address_and_port(text)


def test_only_addresses_of_this_machine_are_loopback() -> None:
    hosts = ("localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "0.0.0.0", "*", "::", "line.local", "")
    assert [host for host in hosts if is_loopback(host)] == ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"]
