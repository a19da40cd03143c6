"""Every end of a command has its status; only bugs show a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fbft_edge.cli.exit_status import exit_status, refuse
from fbft_edge.errors import ArgumentError, BundleError


def ended(body: str, stdout: object = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """A Python program whose command runs `body`."""
    program = (
        "import sys, os\n"
        "from fbft_edge.cli.exit_status import exit_status\n"
        f"def command():\n    {body}\n    return 0\n"
        "sys.exit(exit_status('fbft-test', command))\n"
    )
    return subprocess.run([sys.executable, "-c", program], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60)


def into_a_closed_pipe(body: str) -> subprocess.CompletedProcess[str]:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return ended(body, writer)
    finally:
        os.close(writer)


def raising(error: BaseException):
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize(("name", "said"), [("fbft-infer", "done\n"), ("other", "done\ntorn down\n")])
def test_a_line_whose_thread_never_came_back_ends_without_tearing_down_what_it_uses(name: str, said: str) -> None:
    program = (
        "import atexit, threading, time\n"
        "from fbft_edge.cli.exit_status import leave\n"
        "atexit.register(print, 'torn down')\n"
        f"threading.Thread(target=time.sleep, args=(60,), name={name!r}, daemon=True).start()\n"
        "print('done')\n"
        "leave(3)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, said, "")


@pytest.mark.parametrize("status", [0, 1, 2])
def test_a_command_that_ends_gives_its_own_status(status: int) -> None:
    assert exit_status("fbft-test", lambda: status) == status


@pytest.mark.parametrize("error", [ArgumentError("no"), BundleError("no"), OSError(errno.ENOSPC, "full")])
def test_what_the_user_can_act_on_is_status_2(error: Exception) -> None:
    assert exit_status("fbft-test", raising(error)) == 2


def test_a_user_error_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    exit_status("fbft-test", raising(ArgumentError("--fps 0 is too slow; try 30")))
    assert capsys.readouterr() == ("", "fbft-test: error: --fps 0 is too slow; try 30\n")


def test_an_interrupt_is_status_130() -> None:
    assert exit_status("fbft-test", raising(KeyboardInterrupt())) == 130


@pytest.mark.parametrize("error", [ValueError("bug"), OSError(errno.EBADF, "bug"), RuntimeError("bug")])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error), match="bug"):
        exit_status("fbft-test", raising(error))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_storage_that_takes_no_more_is_named(capsys: pytest.CaptureFixture[str], number: int) -> None:
    exit_status("fbft-test", raising(OSError(number, "", "/data/masks/7.png")))
    assert "cannot write (/data/masks/7.png)" in capsys.readouterr().err


@pytest.mark.parametrize("body", ["print('x')", "print('x' * 100_000)", "print('x', flush=True)"])
def test_a_reader_that_went_away_is_status_1_in_silence(body: str) -> None:
    result = into_a_closed_pipe(body)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("body", ["print('x')", "print('x' * 100_000)", "print('x', flush=True)"])
def test_an_output_on_a_full_disk_is_status_2_and_one_line(body: str) -> None:
    with Path("/dev/full").open("w") as full:
        result = ended(body, full)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)


def test_a_message_that_the_terminal_cannot_show_still_ends_with_status_2() -> None:
    result = ended("from fbft_edge.errors import ImageError; raise ImageError('caf\\udce9.png is no image')")
    assert result.returncode == 2


def test_a_closed_standard_error_changes_no_status() -> None:
    program = "import sys; from fbft_edge.cli.exit_status import refuse; sys.exit(refuse('fbft-test', 'no'))"
    result = subprocess.run(["/bin/sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, program], timeout=60)
    assert result.returncode == 2


def test_refusing_is_status_2() -> None:
    assert refuse("fbft-test", "no") == 2
