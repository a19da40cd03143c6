"""Only clients whose key is known get anything, keys come and go while the line runs, secrets stay private."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from waiting import wait_until
from zmq.auth import load_certificate

from fbft_edge.errors import ArgumentError, PublisherError
from fbft_edge.frames.frame import Verdict
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger
from fbft_edge.messages.writing import MessageWriter, encode_no_detection
from fbft_edge.sockets.access import CurveServer, LimitedLog
from fbft_edge.sockets.endpoints import check_bind
from fbft_edge.sockets.keys import SECRET_KEY_VARIABLE, read_key_pair, read_public_key, write_key_pair
from fbft_edge.sockets.publisher import ResultPublisher
from fbft_edge.sockets.subscriber import ResultSubscriber

DEADLINE_S = 30
FBFT_EDGE = str(Path(sys.executable).with_name("fbft-edge"))


class Keys:
    """A line's key pair, those of two clients, and the folder of clients that are let in; the bridge alone is."""

    def __init__(self, folder: Path) -> None:
        self.line, self.line_secret = write_key_pair(folder / "line", "line")
        self.bridge, self.bridge_secret = write_key_pair(folder / "bridge", "bridge")
        self.stranger, self.stranger_secret = write_key_pair(folder / "stranger", "stranger")
        self.clients = folder / "clients"
        self.clients.mkdir()
        self.allow(self.bridge)

    @property
    def curve(self) -> CurveServer:
        return CurveServer(self.line_secret, self.clients)

    def allow(self, public_key: Path) -> None:
        (self.clients / public_key.name).write_bytes(public_key.read_bytes())

    def remove(self, public_key: Path) -> None:
        (self.clients / public_key.name).unlink()


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


class Line:
    """A publisher with keys, and messages for it."""

    def __init__(self, keys: Keys, endpoint: str = "tcp://127.0.0.1:*") -> None:
        self.publisher = ResultPublisher(endpoint, curve=keys.curve)
        self.endpoint = self.publisher.endpoint
        self._writer = MessageWriter("hall-3", "press-1", 0.5, "ab" * 32)

    def send(self) -> None:
        result, ledger = encode_no_detection(), Ledger().publish_stale()
        self.publisher.send(self._writer.write(result, Verdict.STALE, 5, ledger, Health("ok")))

    def reaches(self, subscriber: ResultSubscriber, within_s: float = DEADLINE_S) -> bool:
        """Send until the subscriber gets something or time is up."""
        return self.wait_for(lambda: subscriber.receive(0.02) is not None, within_s)

    def wait_for(self, condition: Callable[[], bool], within_s: float = DEADLINE_S) -> bool:
        def is_so() -> bool:
            self.send()
            return condition()

        with contextlib.suppress(AssertionError):
            return wait_until(is_so, timeout_s=within_s)
        return False

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.publisher.close()


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_a_client_whose_key_is_known_gets_results(keys: Keys, tmp_path: Path, transport: str) -> None:
    endpoint = "tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{tmp_path}/results"
    with (
        Line(keys, endpoint) as line,
        ResultSubscriber(line.endpoint, server_key=keys.line, secret_key=keys.bridge_secret, every=True) as subscriber,
    ):
        assert line.reaches(subscriber)
        assert set(line.publisher.refused().values()) == {0}


def test_keys_allow_a_bind_beyond_this_machine(keys: Keys) -> None:
    with Line(keys, "tcp://0.0.0.0:*") as line:
        port = line.endpoint.rpartition(":")[2]
        endpoint = f"tcp://127.0.0.1:{port}"
        with ResultSubscriber(endpoint, server_key=keys.line, secret_key=keys.bridge_secret, every=True) as subscriber:
            assert line.reaches(subscriber)


@pytest.mark.parametrize(
    ("server_key", "secret_key", "causes"),
    [
        ("line", "stranger_secret", {"key"}),
        ("stranger", "bridge_secret", {"protocol", "handshake"}),
        (None, None, {"protocol", "handshake"}),
    ],
    ids=["unknown key", "wrong server key", "no keys"],
)
def test_anyone_else_gets_nothing_and_is_counted(
    keys: Keys, server_key: str | None, secret_key: str | None, causes: set[str]
) -> None:
    files = {
        "server_key": getattr(keys, server_key) if server_key else None,
        "secret_key": getattr(keys, secret_key) if secret_key else None,
    }
    with Line(keys) as line, ResultSubscriber(line.endpoint, **files, every=True) as subscriber:
        assert line.wait_for(lambda: any(line.publisher.refused()[cause] for cause in causes))
        assert not line.reaches(subscriber, 0.5)


def test_an_anonymous_curve_client_gets_nothing(keys: Keys) -> None:
    """One with the line's public key, which is no secret, and a key pair made up on the spot."""
    with Line(keys) as line, zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.setsockopt(zmq.LINGER, 0)
        subscriber.curve_publickey, subscriber.curve_secretkey = zmq.curve_keypair()
        subscriber.curve_serverkey = read_public_key(keys.line)
        subscriber.subscribe(b"")
        subscriber.connect(line.endpoint)
        assert line.wait_for(lambda: line.publisher.refused()["key"] > 0)
        assert subscriber.poll(0) == 0


def test_a_key_that_is_added_lets_its_client_in_without_a_restart(keys: Keys) -> None:
    with (
        Line(keys) as line,
        ResultSubscriber(
            line.endpoint, server_key=keys.line, secret_key=keys.stranger_secret, every=True
        ) as subscriber,
    ):
        assert line.wait_for(lambda: line.publisher.refused()["key"] > 0)
        keys.allow(keys.stranger)
        assert line.reaches(subscriber)


def test_a_key_that_is_removed_ends_the_connection_and_keeps_new_ones_out(keys: Keys) -> None:
    keys.allow(keys.stranger)
    with (
        Line(keys) as line,
        ResultSubscriber(line.endpoint, server_key=keys.line, secret_key=keys.stranger_secret, every=True) as removed,
        ResultSubscriber(line.endpoint, server_key=keys.line, secret_key=keys.bridge_secret, every=True) as staying,
    ):
        assert line.reaches(removed)
        assert line.reaches(staying)
        keys.remove(keys.stranger)
        lost = 0

        def is_out() -> bool:
            nonlocal lost
            removed.receive(0)
            while (result := staying.receive(0)) is not None:
                lost += result.lost
            return line.publisher.refused()["removed_key"] > 0 and line.publisher.refused()["key"] > 0

        assert line.wait_for(is_out)
        while removed.receive(0.1) is not None:
            pass
        assert not line.reaches(removed, 0.5)
        assert lost == 0


def test_a_file_that_is_no_key_keeps_nobody_else_out(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    (keys.clients / "a.key").write_bytes(os.urandom(100))
    with (
        Line(keys) as line,
        ResultSubscriber(line.endpoint, server_key=keys.line, secret_key=keys.bridge_secret, every=True) as subscriber,
    ):
        assert line.reaches(subscriber)
    assert "a.key" in caplog.text


def test_a_folder_of_clients_that_is_not_there_is_refused(keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="not a folder of client keys"):
        ResultPublisher("tcp://127.0.0.1:*", curve=CurveServer(keys.line_secret, tmp_path / "nobody"))


def test_results_are_encrypted_on_their_way(keys: Keys) -> None:
    """What a proxy between line and subscriber sees holds nothing of a message."""
    import socket
    import threading

    seen = bytearray()
    with Line(keys) as line, socket.create_server(("127.0.0.1", 0)) as proxy:

        def pump(source: socket.socket, target: socket.socket) -> None:
            with contextlib.suppress(OSError):  # the other direction has ended
                while data := source.recv(65536):
                    seen.extend(data)
                    target.sendall(data)
            target.close()

        def serve() -> None:
            client, _ = proxy.accept()
            server = socket.create_connection(("127.0.0.1", int(line.endpoint.rpartition(":")[2])))
            threading.Thread(target=pump, args=(client, server), daemon=True).start()
            pump(server, client)

        threading.Thread(target=serve, daemon=True).start()
        endpoint = f"tcp://127.0.0.1:{proxy.getsockname()[1]}"
        with ResultSubscriber(endpoint, server_key=keys.line, secret_key=keys.bridge_secret, every=True) as subscriber:
            assert line.reaches(subscriber)
    assert b"press-1" not in seen
    assert b"CURVE" in seen


def test_refusals_are_logged_at_a_limited_rate(caplog: pytest.LogCaptureFixture) -> None:
    log = LimitedLog()
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            log.warn("connection refused: unknown key")
    assert len(caplog.records) == 1


def test_a_refusal_names_the_way_to_let_the_client_in() -> None:
    with pytest.raises(PublisherError, match="fbft-edge keygen"):
        check_bind("tcp://0.0.0.0:5555", insecure=False)


def test_keys_are_certificates_that_every_zeromq_program_reads(tmp_path: Path) -> None:
    public, secret = write_key_pair(tmp_path / "keys", "line")
    pair = read_key_pair(secret)
    assert load_certificate(secret) == (pair.public, pair.secret)
    assert load_certificate(public) == (pair.public, None)
    assert zmq.curve_public(pair.secret) == pair.public


def test_secret_keys_are_for_their_owner_alone_whatever_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        public, secret = write_key_pair(tmp_path / "keys", "line")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (public, secret, secret.parent)]
    assert modes == [0o644, 0o600, 0o700]


@pytest.mark.parametrize("existing", ["line.key", "line.key_secret"])
def test_keys_are_never_overwritten(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    with pytest.raises(ArgumentError, match="would be overwritten"):
        write_key_pair(tmp_path, "line")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("name", ["", "../line", ".hidden", "a/b", "a" * 65])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArgumentError, match="cannot name a key"):
        write_key_pair(tmp_path, name)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_secret_key_that_others_may_use_is_refused_with_the_remedy(keys: Keys, mode: int) -> None:
    keys.line_secret.chmod(mode)
    with pytest.raises(ArgumentError, match=f"chmod 600 {keys.line_secret}"):
        read_key_pair(keys.line_secret)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"curve\n",
        b"public-key\n",
        b'public-key = "short"',
        b'public-key = "' + b"#" * 40,
        b'public-key = "' + b"0" * 40 + b'"\nsecret-key = ""',
        b"\xff" * 100,
        bytes(10_000),
    ],
    ids=["empty", "no key", "no equals sign", "short", "beyond 32 bits", "no secret", "not text", "large"],
)
def test_what_is_no_key_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.key"
    path.write_bytes(content)
    with pytest.raises(ArgumentError, match="is not a CURVE key") as caught:
        read_public_key(path)
    assert "\n" not in str(caught.value)


def test_a_pipe_in_the_place_of_a_key_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.key")
    with pytest.raises(ArgumentError, match="not a regular file"):
        read_public_key(tmp_path / "pipe.key")


def test_a_public_key_does_not_serve_as_a_secret_one(keys: Keys) -> None:
    with pytest.raises(ArgumentError, match="no secret key"):
        read_key_pair(keys.line)


def test_a_secret_key_does_not_show_itself(keys: Keys) -> None:
    pair = read_key_pair(keys.line_secret)
    assert pair.secret.decode() not in repr(pair)


@pytest.mark.parametrize("given", [{"server_key": "line"}, {"secret_key": "bridge_secret"}])
def test_half_of_what_a_client_needs_is_refused(keys: Keys, given: dict[str, str]) -> None:
    with pytest.raises(ArgumentError, match="--server-key"):
        ResultSubscriber(**{what: getattr(keys, name) for what, name in given.items()}, every=True)


def test_the_secret_key_may_be_named_by_the_environment(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_KEY_VARIABLE, str(keys.bridge_secret))
    with Line(keys) as line, ResultSubscriber(line.endpoint, server_key=keys.line, every=True) as subscriber:
        assert line.reaches(subscriber)


def test_keygen_says_what_goes_where_and_refuses_to_do_it_twice(tmp_path: Path) -> None:
    command = [FBFT_EDGE, "keygen", str(tmp_path / "keys"), "--name", "bridge"]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (first.returncode, first.stderr) == (0, "")
    assert "stays on this machine" in first.stdout
    assert read_key_pair(tmp_path / "keys" / "bridge.key_secret").secret.decode() not in first.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, "overwritten" in again.stderr) == (2, True)


def test_listen_with_keys_shows_results(keys: Keys) -> None:
    with Line(keys) as line:
        options = ["--connect", line.endpoint, "--server-key", str(keys.line), "--count", "1", "--timeout", "30"]
        environment = {**os.environ, SECRET_KEY_VARIABLE: str(keys.bridge_secret)}
        listener = subprocess.Popen([FBFT_EDGE, "listen", *options], stdout=subprocess.PIPE, text=True, env=environment)
        line.wait_for(lambda: listener.poll() is not None)
        assert "hall-3/press-1" in listener.communicate()[0]
