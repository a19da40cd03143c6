"""A folder for results that may hold those of an earlier run in; the lines that stay out.

Knows nothing about how an image is inspected.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

from fbft_edge.errors import ArgumentError, ImageError
from fbft_edge.frames.frame import Verdict
from fbft_edge.jobs.results_file import RESULTS
from fbft_edge.plain_file import file_sha256
from fbft_edge.strict_json import json_from_bytes, members

_PICTURES = ("mask", "overlay")


class Earlier(str, Enum):
    """What becomes of results that lie in the folder already."""

    REFUSED = "refused"
    RESUMED = "resumed"
    OVERWRITTEN = "overwritten"


def kept_lines(out: Path, earlier: Earlier, bundle_sha256: str) -> list[dict[str, Any]]:
    """Lines of results that stay; what the others tell of is removed when it is overwritten.

    Those stay, when the run is resumed, that are a verdict about a file as it is now.

    Args:
        out: The folder; need not exist.
        earlier: What is to become of what it has.
        bundle_sha256: Of the bundle that goes on.

    Raises:
        ArgumentError: There are results and they are not wanted, or another bundle made them.
        ImageError: They cannot be read or removed.
    """
    path = out / RESULTS
    try:
        if not path.is_file():
            return []
        lines = list(_read(path))
        if earlier is Earlier.REFUSED:
            raise ArgumentError(
                f"{path} has {len(lines)} results of an earlier run; name another folder, go on after them with "
                "--resume, or replace them with --overwrite"
            )
        if earlier is Earlier.OVERWRITTEN:
            _remove(out, lines)
            return []
        _require_bundle(path, lines, bundle_sha256)
        return [line for line in lines if _is_current(line)]
    except OSError as error:
        raise ImageError(f"{path} or what it names cannot be read or removed: {error}") from error


def clear(out: Path, *, overwrite: bool) -> None:
    """Let a folder take the results of a job that does not go on after earlier ones.

    Args:
        out: The folder; need not exist.
        overwrite: Remove the results that it has.

    Raises:
        ArgumentError: It has results, and they are to stay.
        ImageError: They cannot be read or removed.
    """
    if overwrite:
        kept_lines(out, Earlier.OVERWRITTEN, "")
    elif (out / RESULTS).is_file():
        raise ArgumentError(
            f"{out / RESULTS} has results of an earlier run; name another folder, or replace them with --overwrite"
        )


def picture_names(lines: Iterable[dict[str, Any]]) -> set[str]:
    """Names that the pictures of these lines have, without folder and suffix."""
    return {str(Path(line["mask"]).relative_to("masks").with_suffix("")) for line in lines if line["mask"]}


def _read(path: Path) -> Iterable[dict[str, Any]]:
    """Whole lines; the last may have been cut."""
    for text in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            line = members(json_from_bytes(text))
            if isinstance(line.get("file"), str):
                yield line


def _require_bundle(path: Path, lines: Iterable[dict[str, Any]], bundle_sha256: str) -> None:
    others = {str(line.get("bundle_sha256")) for line in lines} - {bundle_sha256}
    if others:
        raise ArgumentError(
            f"{path} has results of bundle {sorted(others)[0][:16]}, this one is {bundle_sha256[:16]}; name another "
            "folder, or replace them with --overwrite"
        )


def _is_current(line: dict[str, Any]) -> bool:
    is_verdict = line.get("verdict") in (Verdict.OK.value, Verdict.ANOMALOUS.value)
    if not is_verdict or not str(line.get("mask")).startswith("masks/"):
        return False
    file = Path(line["file"])
    return file.is_file() and file_sha256(file) == line.get("file_sha256")


def _remove(out: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Masks and overlays that the lines name, inside of the folder alone, and the overview."""
    names = [line[kind] for line in lines for kind in _PICTURES if isinstance(line.get(kind), str)]
    for name in (*names, "overview.png"):
        picture = (out / name).resolve()
        if picture.is_relative_to(out.resolve()):
            picture.unlink(missing_ok=True)
