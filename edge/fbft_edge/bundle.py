"""The bundle: the one folder that passes from calibration to export to the line; reading, verifying, sealing.

`bundle.json` holds the SHA-256 of every other file, and its own SHA-256 names the bundle. Files are verified
before any of them is parsed. Knows nothing about models or frames.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fbft_edge.errors import BundleError
from fbft_edge.manifest import (
    TeacherIdentity,
    Thresholds,
    files_from_json,
    frame_sizes_from_json,
    members,
    teacher_from_json,
    text,
    thresholds_from_json,
    tile_from_json,
)
from fbft_edge.tiling import TileGeometry

SCHEMA = "fbft.bundle/1"
MANIFEST = "bundle.json"
GRAPH = "model.onnx"
STUDENTS = "students.safetensors"
PROTOTYPES = "prototypes.safetensors"
REPORT = "report.html"
ENGINES = "engines"
_MAX_MANIFEST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: The folder.
        product: What the bundle inspects.
        created: ISO 8601 date and time, UTC.
        teacher: Which teacher the students were fitted to.
        tile: How frames are cut.
        frame_sizes: (height, width) of the nominal images, at most 8 different ones; empty when there were more.
        thresholds: Where `ok` ends; None before calibration.
        notes: How it was fitted and checked, for people and reports.
        files: Relative POSIX path to SHA-256, for every file but `bundle.json`.
        sha256: SHA-256 of `bundle.json`: the bundle's name in every message. Empty before sealing.
    """

    path: Path
    product: str
    created: str
    teacher: TeacherIdentity
    tile: TileGeometry
    frame_sizes: tuple[tuple[int, int], ...]
    thresholds: Thresholds | None
    notes: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""

    def require_thresholds(self) -> Thresholds:
        """The thresholds.

        Raises:
            BundleError: The bundle was not calibrated.
        """
        if self.thresholds is None:
            raise BundleError(
                f"{self.path} has no thresholds yet; run fbft-calibrate threshold {self.path} NOMINAL_DIR"
            )
        return self.thresholds

    def require_frame_size(self, height: int, width: int, source: str) -> None:
        """Accept frames only of a size that the thresholds were found on.

        Raises:
            BundleError: The bundle was fitted on frames of other sizes.
        """
        if self.frame_sizes and (height, width) not in self.frame_sizes:
            expected = ", ".join(f"{rows}x{columns}" for rows, columns in self.frame_sizes)
            raise BundleError(
                f"{source} has {height}x{width} pixels (height x width), the bundle was fitted on {expected}; "
                "set the camera to that size, or fit again with images of the new size"
            )

    def file(self, name: str) -> Path:
        """Path of a file that the manifest vouches for.

        Raises:
            BundleError: The manifest does not list it.
        """
        if name not in self.files:
            raise BundleError(f"{self.path} has no {name}; fit the bundle again with fbft-calibrate fit")
        return self.path / name


def open_bundle(path: Path | str) -> Bundle:
    """Read and verify a bundle.

    Raises:
        BundleError: No bundle there, a file missing or altered, or a manifest that is not valid.
    """
    path = Path(path)
    raw = _read_manifest(path)
    bundle = _parse(path, raw)
    for name, expected in bundle.files.items():
        _verify_file(path, name, expected)
    return bundle


def seal_bundle(bundle: Bundle) -> Bundle:
    """Hash the bundle's files, write `bundle.json` (atomically) and return the sealed bundle.

    Every regular file in the folder is taken into the manifest.
    """
    partial = bundle.path / f"{MANIFEST}.partial"
    names = sorted(
        file.relative_to(bundle.path).as_posix()
        for file in bundle.path.rglob("*")
        if file.is_file() and file not in (bundle.path / MANIFEST, partial)
    )
    contents = {
        "schema": SCHEMA,
        "product": bundle.product,
        "created": bundle.created,
        "teacher": asdict(bundle.teacher),
        "tile": asdict(bundle.tile),
        "frame_sizes": bundle.frame_sizes,
        "thresholds": asdict(bundle.thresholds) if bundle.thresholds else None,
        "notes": bundle.notes,
        "files": {name: file_sha256(bundle.path / name) for name in names},
    }
    partial.write_text(json.dumps(contents, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(bundle.path / MANIFEST)
    return open_bundle(bundle.path)


@contextlib.contextmanager
def building(out: Path) -> Iterator[Path]:
    """A new folder that takes the place of `out` when the block ends well, and is gone when it does not.

    What stood at `out` stays whole until then.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield partial
        partial.chmod(0o755)
        _swap(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def revising(bundle: Bundle) -> Iterator[Bundle]:
    """A copy of a bundle to change and seal; it takes the bundle's place when the block ends well."""
    with building(bundle.path) as partial:
        shutil.copytree(bundle.path, partial, dirs_exist_ok=True)
        yield dataclasses.replace(bundle, path=partial)


def _swap(partial: Path, out: Path) -> None:
    old = partial.with_name(f"{partial.name}.old")
    if out.exists():
        out.replace(old)
    partial.replace(out)
    shutil.rmtree(old, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def _read_manifest(path: Path) -> bytes:
    manifest = path / MANIFEST
    try:
        if not manifest.is_file() or manifest.is_symlink():
            raise BundleError(f"{path} is not a bundle (it has no {MANIFEST}); make one with fbft-calibrate fit")
        if manifest.stat().st_size > _MAX_MANIFEST_BYTES:
            raise BundleError(f"{manifest} has {manifest.stat().st_size} bytes, at most {_MAX_MANIFEST_BYTES} are read")
        return manifest.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{manifest} cannot be read: {error.strerror}; check its permissions, or try again"
        ) from error


def _verify_file(path: Path, name: str, expected: str) -> None:
    file = path / name
    try:
        relative = PurePosixPath(name)
        is_plain = not relative.is_absolute() and ".." not in relative.parts
        is_inside = is_plain and file.resolve() == path.resolve() / relative
        found = file_sha256(file) if is_inside and file.is_file() else ""
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} lists {name!r:.80}, which cannot be read ({error!s:.80}); copy it again") from error
    if not is_inside:
        raise BundleError(f"{path / MANIFEST} lists {name!r}, which is not a plain file inside the bundle")
    if not found:
        raise BundleError(f"{file} is missing; copy the bundle again, complete")
    if found != expected:
        raise BundleError(
            f"{file} was altered: SHA-256 {found[:12]}..., {MANIFEST} says {expected[:12]}...; copy the bundle again"
        )


def _parse(path: Path, raw: bytes) -> Bundle:
    try:
        return _from_contents(path, members(json.loads(raw)), hashlib.sha256(raw).hexdigest())
    except (ValueError, KeyError, RecursionError) as error:
        raise BundleError(
            f"{path / MANIFEST} is not a valid manifest ({type(error).__name__}: {error}); copy the bundle again"
        ) from error


def _from_contents(path: Path, contents: dict[str, Any], sha256: str) -> Bundle:
    if contents["schema"] != SCHEMA:
        raise ValueError(f"schema {contents['schema']!r}, this version reads {SCHEMA!r}")
    return Bundle(
        path=path,
        product=text(contents["product"]),
        created=text(contents["created"]),
        teacher=teacher_from_json(contents["teacher"]),
        tile=tile_from_json(contents["tile"]),
        frame_sizes=frame_sizes_from_json(contents["frame_sizes"]),
        thresholds=thresholds_from_json(contents["thresholds"]),
        notes=members(contents["notes"]),
        files=files_from_json(contents["files"]),
        sha256=sha256,
    )
