"""Regular files and nothing else: a path in, the file's bytes out, never more than were allowed.

Waits for nobody: a FIFO, a socket or a device in the place of a file is refused, not read. Knows nothing about what
files hold.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_PRIVATE_BYTES = 4096


@contextlib.contextmanager
def open_plain(path: Path, max_bytes: int, *, follow: bool = False) -> Iterator[BinaryIO]:
    """A regular file, open for reading.

    Args:
        path: Of the file.
        max_bytes: Larger files are refused.
        follow: Whether the path may be a symbolic link; folders on the way may be links in any case.

    Raises:
        OSError: There is no such file, it is too large, or it is something else; `strerror` says what.
        ValueError: No file can have that name.
    """
    # Without O_NONBLOCK, opening a FIFO waits for someone to write to it.
    more = os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        file = open(path, "rb", opener=lambda path, flags: os.open(path, flags | more))  # noqa: SIM115
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise OSError(errno.ELOOP, "it is a symbolic link", str(path)) from error
        raise
    with file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if found.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"it has {found.st_size} bytes, at most {max_bytes} are read", str(path))
        yield file


def read_plain(path: Path, max_bytes: int, *, follow: bool = False) -> bytes:
    """The contents of a regular file; see `open_plain`."""
    return read_with_mode(path, max_bytes, follow=follow)[0]


def read_with_mode(path: Path, max_bytes: int, *, follow: bool = False) -> tuple[bytes, int]:
    """The contents of a regular file and its permissions, of one and the same file; see `open_plain`."""
    with open_plain(path, max_bytes, follow=follow) as file:
        found = os.fstat(file.fileno())
        contents = file.read(found.st_size + 1)  # Python makes room for as much as it is asked to read
    if len(contents) > found.st_size:
        raise OSError(errno.EFBIG, f"it grew beyond {found.st_size} bytes while it was read", str(path))
    return contents, stat.S_IMODE(found.st_mode)


def read_private(path: Path) -> bytes:
    """The contents of a small file that nobody but its owner may read or change.

    Raises:
        ValueError: It is not there, cannot be read, is no such file, or others may: cause, then remedy.
    """
    try:
        raw, mode = read_with_mode(path, MAX_PRIVATE_BYTES, follow=True)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; check the path and its permissions") from None
    if mode & 0o077:
        raise ValueError(f"{path} may be read or changed by others (mode {mode:04o}); chmod 600 {path}")
    return raw


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return sha256_of(file)


def sha256_of(file: BinaryIO) -> str:
    """SHA-256 of what is left to read of a file, in hexadecimal."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
