"""Where a job writes its lines of results: a folder in, an open file in it out.

Knows nothing about what a line says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fbft_edge.bundle.write_lock import LOCK, write_lock
from fbft_edge.errors import ImageError

RESULTS = "results.jsonl"


@contextmanager
def results_file(out: Path, folders: Sequence[str] = ()) -> Iterator[IO[str]]:
    """Open `results.jsonl` in `out`, which is made if it does not exist, and `folders` in it, too.

    Raises:
        ArgumentError: Another program writes to `out`.
        ImageError: Something cannot be written, now or later: the disk is full, say.
    """
    path = out / RESULTS
    try:
        for folder in (out, *(out / name for name in folders)):
            folder.mkdir(parents=True, exist_ok=True)
        with write_lock(out / LOCK, out), path.open("w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise ImageError(f"{path} cannot be written: {error.strerror}; free space or choose another folder") from error
