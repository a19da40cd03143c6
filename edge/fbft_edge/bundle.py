"""The bundle: the one folder that passes from calibration to export to the line; reading, verifying, sealing.

`bundle.json` holds the SHA-256 of every other file, and its own SHA-256 names the bundle. `bundle.json.sig`, when there
is one, is an Ed25519 signature over the exact bytes of `bundle.json`, and so over every file. Signature and files are
verified before anything is parsed. Knows nothing about models or frames.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from fbft_edge.errors import BundleError
from fbft_edge.manifest import (
    TeacherIdentity,
    Thresholds,
    files_from_json,
    frame_sizes_from_json,
    json_from_bytes,
    members,
    teacher_from_json,
    text,
    thresholds_from_json,
    tile_from_json,
)
from fbft_edge.plain_file import open_plain, read_plain
from fbft_edge.signing import SIGNATURE_BYTES, fingerprint, sign, signer
from fbft_edge.tiling import TileGeometry

SCHEMA = "fbft.bundle/1"
MANIFEST = "bundle.json"
SIGNATURE = "bundle.json.sig"
GRAPH = "model.onnx"
STUDENTS = "students.safetensors"
PROTOTYPES = "prototypes.safetensors"
REPORT = "report.html"
ENGINES = "engines"
# JSON of 4 MiB takes at most 150 MB and half a second to read, whatever it holds.
_MAX_MANIFEST_BYTES = 4 << 20
_MAX_FILE_BYTES = 16 << 30
_UNSEALED = (MANIFEST, f"{MANIFEST}.partial", SIGNATURE, f"{SIGNATURE}.partial")


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

        The file was what the manifest says when the bundle was opened. Whoever may write to the bundle can change it
        between then and the moment at which the path is read; `read` leaves no such moment.

        Raises:
            BundleError: The manifest does not list it.
        """
        if name not in self.files:
            raise BundleError(f"{self.path} has no {name}; fit the bundle again with fbft-calibrate fit")
        return self.path / name

    def read(self, name: str) -> bytes:
        """Contents of a file that the manifest vouches for, verified as they were read.

        Raises:
            BundleError: The manifest does not list it, or it was altered since the bundle was opened.
        """
        self.file(name)
        with _verified_file(self.path, name) as file:
            contents = file.read()
        _require_same(self.path / name, hashlib.sha256(contents).hexdigest(), self.files[name])
        return contents


def open_bundle(path: Path | str, trusted: Sequence[Path] = ()) -> Bundle:
    """Read and verify a bundle.

    Args:
        path: The folder.
        trusted: Ed25519 public keys, PEM files. When there are any, one of them must have signed the bundle.

    Raises:
        BundleError: No bundle there, a file missing or altered, a manifest that is not valid, or a signature that is
            missing or made by no trusted key.
        ArgumentError: A trusted key cannot be used.
    """
    path = Path(path)
    raw = _read_manifest(path)
    if trusted:
        _require_signature(path, raw, trusted)
    return _verified(path, raw)


def sign_bundle(path: Path | str, secret: Path) -> Bundle:
    """Verify a bundle's files and sign it; the signature takes the place of an earlier one.

    Args:
        path: The folder.
        secret: Ed25519 secret key, a PEM file.

    Raises:
        BundleError: See `open_bundle`; nothing was signed.
        ArgumentError: The key cannot be used.
    """
    path = Path(path)
    raw = _read_manifest(path)
    bundle = _verified(path, raw)
    signature, partial = sign(raw, secret), path / f"{SIGNATURE}.partial"
    try:
        partial.write_bytes(signature)
        partial.replace(path / SIGNATURE)
    except OSError as error:
        raise BundleError(f"{path / SIGNATURE} cannot be written: {error.strerror}; sign where it can be") from error
    return bundle


def seal_bundle(bundle: Bundle) -> Bundle:
    """Hash the bundle's files, write `bundle.json` (atomically) and return the sealed bundle.

    Every regular file in the folder is taken into the manifest, but for the manifest's signature, which is removed
    unless it is still one of the same bytes.
    """
    names = sorted(file.relative_to(bundle.path).as_posix() for file in bundle.path.rglob("*") if file.is_file())
    names = [name for name in names if name not in _UNSEALED]
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
    raw = (json.dumps(contents, indent=2, allow_nan=False) + "\n").encode()
    manifest, partial = bundle.path / MANIFEST, bundle.path / f"{MANIFEST}.partial"
    partial.write_bytes(raw)
    if not manifest.is_file() or manifest.read_bytes() != raw:
        (bundle.path / SIGNATURE).unlink(missing_ok=True)
    partial.replace(manifest)
    return open_bundle(bundle.path)


@contextlib.contextmanager
def building(out: Path) -> Iterator[Path]:
    """A new folder that takes the place of `out` when the block ends well, and is gone when it does not.

    What stood at `out` stays whole until then. Where `out` is a link, what it points to is replaced.
    """
    out = Path(os.path.realpath(out))
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
    """A copy of a bundle to change and seal; it takes the bundle's place when the block ends well.

    Raises:
        BundleError: The bundle holds what its manifest does not list, which sealing would vouch for, or a file was
            altered since the bundle was opened.
    """
    _refuse_strangers(bundle)
    with building(bundle.path) as partial:
        for name in bundle.files:
            _copy_verified(bundle, name, partial / name)
        for name in (MANIFEST, SIGNATURE):
            if (bundle.path / name).is_file():
                shutil.copyfile(bundle.path / name, partial / name)
        yield dataclasses.replace(bundle, path=partial)


def _refuse_strangers(bundle: Bundle) -> None:
    known = {*bundle.files, *_UNSEALED}
    for file in sorted(bundle.path.rglob("*")):
        name = file.relative_to(bundle.path).as_posix()
        if name not in known and (file.is_symlink() or not file.is_dir()):
            raise BundleError(f"{bundle.path} holds {name}, which its {MANIFEST} does not list; take it out first")


def _copy_verified(bundle: Bundle, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with _verified_file(bundle.path, name) as source, target.open("wb") as copy:
        while block := source.read(1 << 20):
            digest.update(block)
            copy.write(block)
    _require_same(bundle.path / name, digest.hexdigest(), bundle.files[name])


def _swap(partial: Path, out: Path) -> None:
    old = partial.with_name(f"{partial.name}.old")
    if out.exists():
        out.replace(old)
    try:
        partial.replace(out)
    except OSError:
        if old.exists():
            old.replace(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return _sha256(file)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _read_manifest(path: Path) -> bytes:
    try:
        return read_plain(path / MANIFEST, _MAX_MANIFEST_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(f"{path} is not a bundle (it has no {MANIFEST}); make one with fbft-calibrate fit") from error
    except OSError as error:
        raise BundleError(
            f"{path / MANIFEST} cannot be read: {error.strerror}; check its permissions, or copy the bundle again"
        ) from error
    except ValueError as error:
        raise BundleError(f"{str(path)!r} cannot be the name of a bundle: {error}; name its folder") from error


def _require_signature(path: Path, raw: bytes, trusted: Sequence[Path]) -> None:
    """Accept a manifest only when a trusted key signed these very bytes."""
    keys, file = _named(trusted), path / SIGNATURE
    try:
        signature = read_plain(file, SIGNATURE_BYTES)
    except FileNotFoundError as error:
        raise BundleError(
            f"{path} is not signed (it has no {SIGNATURE}), and has to be by one of {keys}; "
            f"sign it with fbft-edge sign {path} --key SECRET"
        ) from error
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}; copy the bundle again, or sign it anew") from error
    if len(signature) != SIGNATURE_BYTES:
        raise BundleError(
            f"{file} has {len(signature)} bytes, a signature has {SIGNATURE_BYTES}; copy the bundle again, complete"
        )
    if signer(raw, signature, trusted) is None:
        raise BundleError(
            f"{file} is no signature of {MANIFEST} by one of {keys}: {MANIFEST} was altered since, or another key "
            f"signed it; copy the bundle again, or sign it with fbft-edge sign {path} --key SECRET"
        )


def _named(keys: Sequence[Path]) -> str:
    return ", ".join(f"{key} ({fingerprint(key)})" for key in keys)


def _verified(path: Path, raw: bytes) -> Bundle:
    bundle = _parse(path, raw)
    for name, expected in bundle.files.items():
        with _verified_file(path, name) as file:
            found = _sha256(file)
        _require_same(path / name, found, expected)
    return bundle


@contextlib.contextmanager
def _verified_file(path: Path, name: str) -> Iterator[BinaryIO]:
    """A listed file, open for reading, if it is a plain one inside the bundle."""
    file = path / name
    try:
        relative = PurePosixPath(name)
        is_plain = not relative.is_absolute() and ".." not in relative.parts
        if not is_plain or Path(os.path.realpath(file)) != Path(os.path.realpath(path)) / relative:
            raise BundleError(f"{path / MANIFEST} lists {name!r:.80}, which is not a plain file inside the bundle")
        with open_plain(file, _MAX_FILE_BYTES) as contents:
            yield contents
    except FileNotFoundError as error:
        raise BundleError(f"{file} is missing; copy the bundle again, complete") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BundleError(f"{path} lists {name!r:.80}, which cannot be read ({reason!s:.80}); copy it again") from error


def _require_same(file: Path, found: str, expected: str) -> None:
    if found != expected:
        raise BundleError(
            f"{file} was altered: SHA-256 {found[:12]}..., {MANIFEST} says {expected[:12]}...; copy the bundle again"
        )


def _parse(path: Path, raw: bytes) -> Bundle:
    try:
        return _from_contents(path, members(json_from_bytes(raw)), hashlib.sha256(raw).hexdigest())
    except (ValueError, KeyError, RecursionError) as error:
        raise BundleError(
            f"{path / MANIFEST} is not a valid manifest ({type(error).__name__}: {error!s:.200}); copy the bundle again"
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
