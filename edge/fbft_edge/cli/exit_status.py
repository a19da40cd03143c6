"""From what a command raises to its exit status; shared by the project's three commands.

Status 0: done; 1: whoever read the output went away; 2: an error that the user can act on, said in one line;
130: interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from fbft_edge.errors import FbftError

_STORAGE = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EROFS: "read-only"}


def exit_status(program: str, command: Callable[[], int]) -> int:
    """Run a command; user errors become one line on standard error, bugs keep their traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # shows what its encoding lacks as standard error does
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = command()
        sys.stdout.flush()
    except FbftError as error:
        return refuse(program, str(error))
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.errno == errno.EPIPE:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        if error.errno in _STORAGE:
            where = f" ({error.filename})" if error.filename else ""
            return refuse(program, f"cannot write{where}: {_STORAGE[error.errno]}; free space or write elsewhere")
        raise
    return status


def leave(status: int) -> NoReturn:
    """End the process, even when one of a line's threads never came back from an engine, a driver or a load.

    The interpreter would tear down what such a thread still uses, which can crash, or wait for ever.
    """
    if any(thread.daemon and thread.name.startswith("fbft-") for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


def refuse(program: str, reason: str) -> int:
    """Say one line on standard error; returns status 2."""
    with contextlib.suppress(OSError):
        print(f"{program}: error: {reason}", file=sys.stderr, flush=True)
    return 2
