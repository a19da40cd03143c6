"""One program at a time writes to a folder; the next one is told which."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from fbft_edge.bundle.write_lock import LOCK, write_lock
from fbft_edge.errors import ArgumentError
from fbft_edge.jobs.results_file import RESULTS, results_file


def taken(file: Path) -> None:
    with write_lock(file, file.parent):
        pass


def test_a_lock_is_held_once_and_gone_afterwards(tmp_path: Path) -> None:
    with write_lock(tmp_path / LOCK, tmp_path):
        with pytest.raises(ArgumentError, match=rf"{tmp_path} is being written by .*process {os.getpid()}"):
            taken(tmp_path / LOCK)
        assert (tmp_path / LOCK).is_file()
    taken(tmp_path / LOCK)
    assert not (tmp_path / LOCK).exists()


def test_what_a_killed_program_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("fbft-export, process 1 on another machine, and a longer text than the next one\n" * 3)
    with write_lock(tmp_path / LOCK, tmp_path):
        assert (tmp_path / LOCK).read_text().count("process") == 1


def test_never_two_at_once_however_many_try(tmp_path: Path) -> None:
    inside, most, done = 0, [0], [0]

    def work() -> None:
        nonlocal inside
        while done[0] < 200:
            try:
                with write_lock(tmp_path / LOCK, tmp_path):
                    inside += 1
                    most[0] = max(most[0], inside)
                    done[0] += 1
                    inside -= 1
            except ArgumentError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArgumentError, match="cannot be had"):
        taken(tmp_path / LOCK)
    assert not (tmp_path / "elsewhere").exists()


def test_a_second_run_into_one_folder_of_results_is_refused(tmp_path: Path) -> None:
    with results_file(tmp_path) as file:
        file.write("first\n")
        with pytest.raises(ArgumentError, match="being written"), results_file(tmp_path):
            pass
    assert (tmp_path / RESULTS).read_text() == "first\n"
