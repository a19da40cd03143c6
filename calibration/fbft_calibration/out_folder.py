"""The folder that a command is to fill, made and tried before hours of work go into what it cannot take.

Knows nothing about what is written there.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from fbft_edge.errors import ArgumentError


def make_out_folder(path: Path) -> None:
    """Make a folder where there is none, and write a file in it that is gone at once.

    Raises:
        ArgumentError: It cannot be made, or not be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ArgumentError(f"{path} is no folder to write to: {error.strerror}; choose another --out") from error
