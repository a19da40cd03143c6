"""A lock file in, the sole right to write what it stands for out; who comes second is told which program has it.

The kernel ends the lock with the program that holds it, however that ends. Knows nothing about what is written.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from fbft_edge.errors import ArgumentError

LOCK = ".lock"  # in a folder of results; that of a bundle lies beside it
_MAX_HOLDER_BYTES = 512
_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def write_lock(file: Path, what: Path) -> Iterator[None]:
    """Hold a lock while the block runs; its file is there for that long.

    Args:
        file: In a folder that is there. One that a killed program left is taken over.
        what: What is written, for messages.

    Raises:
        ArgumentError: Another program, which is named, or another thread holds it, or the file cannot be written.
    """
    try:
        descriptor = _locked(file, what)
    except OSError as error:
        raise ArgumentError(
            f"{what} cannot be written: its lock {file} cannot be had ({error.strerror}); "
            "change the rights of the folder that it lies in, or choose another"
        ) from error
    try:
        yield
    finally:
        # While it is still held: whoever waits at this file finds afterwards that it is no longer the one there.
        with contextlib.suppress(OSError):
            file.unlink()
        os.close(descriptor)


def _locked(file: Path, what: Path) -> int:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            _lock(descriptor, what)
            if _is_still(file, descriptor):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, _this_program().encode()[:_MAX_HOLDER_BYTES], 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, what: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.pread(descriptor, _MAX_HOLDER_BYTES, 0).decode(errors="replace")
        holder = said if said.isprintable() and said else "another program"
        raise ArgumentError(f"{what} is being written by {holder}; wait until that has ended") from None
    except OSError as error:
        _logger.warning("%s is written without a lock (%s): let no other program write it", what, error.strerror)


def _is_still(file: Path, descriptor: int) -> bool:
    """Whether a file is the one that was opened, not one that its holder has removed meanwhile."""
    try:
        there = file.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def _this_program() -> str:
    name, now = Path(sys.argv[0]).name or "python", datetime.now().astimezone()
    return f"{name}, process {os.getpid()} on {os.uname().nodename}, since {now:%Y-%m-%d %H:%M:%S %z}"
