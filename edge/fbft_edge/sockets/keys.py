"""CURVE key files: made, read and checked, in the format of `zmq.auth` certificates.

A pair is two files, NAME.key (public) and NAME.key_secret. Knows nothing about sockets.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from fbft_edge.errors import ArgumentError
from fbft_edge.names import NAME_PATTERN, NAME_RULE
from fbft_edge.plain_file import read_with_mode

SECRET_KEY_VARIABLE = "FBFT_SECRET_KEY_FILE"
MAX_KEY_FILE_BYTES = 4096

_PUBLIC = """#   ZeroMQ CURVE public key: may be given to anyone, over a way on which nobody can replace it

metadata
curve
    public-key = "{public}"
"""
_SECRET = """#   ZeroMQ CURVE secret key: stays on the machine that uses it, readable by its owner alone

metadata
curve
    public-key = "{public}"
    secret-key = "{secret}"
"""
_LINE = re.compile(rb"^[ \t]*(public|secret)-key[ \t]*=[ \t\"']*([^ \t\"'\r\n]*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair, both in Z85, 40 characters each."""

    public: bytes
    secret: bytes = field(repr=False)


def write_key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a key pair; returns its files, NAME.key (mode 0644) and NAME.key_secret (mode 0600).

    A folder that is not there is made, for its owner alone.

    Raises:
        ArgumentError: One of the files exists already, the name cannot name a file, or the folder cannot be written.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise ArgumentError(f"{name!r} cannot name a key; use {NAME_RULE}")
    public_file, secret_file = folder / f"{name}.key", folder / f"{name}.key_secret"
    if existing := [str(path) for path in (public_file, secret_file) if path.exists()]:
        raise ArgumentError(
            f"{' and '.join(existing)} would be overwritten; choose another --name, or remove them first"
        )
    public, secret = (key.decode() for key in zmq.curve_keypair())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(secret_file, _SECRET.format(public=public, secret=secret), 0o600)
        _write(public_file, _PUBLIC.format(public=public), 0o644)
    except OSError as error:
        raise ArgumentError(f"cannot write keys into {folder}: {error.strerror}; choose a folder you own") from error
    return public_file, secret_file


def read_public_key(path: Path) -> bytes:
    """The public key in a NAME.key file, Z85.

    Raises:
        ArgumentError: The file cannot be read, or holds no public key.
    """
    return _read(path).public


def read_key_pair(path: Path) -> KeyPair:
    """The pair in a NAME.key_secret file.

    Raises:
        ArgumentError: The file cannot be read, may be read by others, or holds no secret key.
    """
    found = _read(path)
    if found.pair is None:
        raise ArgumentError(f"{path} holds no secret key; name the file that ends in .key_secret")
    if found.mode & 0o077:
        raise ArgumentError(
            f"{path} holds a secret key and may be used by others (mode {found.mode:04o}); chmod 600 {path}"
        )
    return found.pair


def secret_key_file(named: Path | str | None) -> Path | None:
    """The file that was named, else the one that the environment names in FBFT_SECRET_KEY_FILE, else None."""
    named = named or os.environ.get(SECRET_KEY_VARIABLE)
    return Path(named) if named else None


def client_keys(server_key: Path | str | None, secret_key: Path | str | None) -> tuple[bytes, KeyPair] | None:
    """What a client needs to reach a CURVE socket: the server's public key and a pair of its own.

    Args:
        server_key: File of the server's public key; None for a socket without CURVE.
        secret_key: File of the client's secret key; None to take the one in FBFT_SECRET_KEY_FILE.

    Raises:
        ArgumentError: A file cannot be used, or only one of the two was named.
    """
    if server_key is None and secret_key is None:
        return None
    secret_key_path = secret_key_file(secret_key)
    if server_key is None or secret_key_path is None:
        raise ArgumentError(
            "CURVE takes the line's public key (--server-key) and a secret key of one's own (--secret-key, or "
            f"{SECRET_KEY_VARIABLE}); make one with fbft-edge keygen"
        )
    return read_public_key(Path(server_key)), read_key_pair(secret_key_path)


@dataclass(frozen=True, slots=True)
class _KeyFile:
    public: bytes
    pair: KeyPair | None
    mode: int


def _read(path: Path) -> _KeyFile:
    try:
        contents, mode = read_with_mode(path, MAX_KEY_FILE_BYTES, follow=True)
        found = dict(_LINE.findall(contents))
        if b"public" not in found:
            raise ValueError("it has no public key")
        for key in found.values():
            _require_key(key)
        secret = found.get(b"secret")
        pair = None if secret is None else KeyPair(zmq.curve_public(secret), secret)
        return _KeyFile(found[b"public"], pair, mode)
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ArgumentError(f"{path} is not a CURVE key: {cause}; make one with fbft-edge keygen") from error


def _require_key(key: bytes) -> None:
    try:
        is_key = len(z85.decode(key)) == 32
    except (ValueError, KeyError, struct.error):
        is_key = False
    if not is_key:
        raise ValueError("a key is 40 characters of Z85")


def _write(path: Path, text: str, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
