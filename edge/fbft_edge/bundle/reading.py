"""Reading bundles, the one folder that passes from calibration to export to the line: a folder in, a `Bundle` out.

`bundle.json` holds the SHA-256 of every other file, and its own SHA-256 names the bundle. `bundle.json.sig`, when there
is one, is an Ed25519 signature over the exact bytes of `bundle.json`, and so over every file. The signature is verified
before the manifest is parsed, every file before it is used. Knows nothing about models or frames, and writes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from fbft_edge.bundle.manifest import TeacherIdentity, Thresholds, TileGeometry, manifest_from_json
from fbft_edge.bundle.notes import Notes, notes_from_json
from fbft_edge.bundle.signing import SIGNATURE_BYTES, fingerprint, signer
from fbft_edge.errors import BundleError
from fbft_edge.names import MAX_SIDE_PX, size_text
from fbft_edge.plain_file import open_plain, read_plain, sha256_of
from fbft_edge.strict_json import json_from_bytes

if TYPE_CHECKING:
    from fbft_edge.frames.pixel_format import PixelFormat, Pixels

MANIFEST = "bundle.json"
SIGNATURE = "bundle.json.sig"
GRAPH = "model.onnx"
GRAPH_INPUT, GRAPH_OUTPUT = "tiles", "distances"
STUDENTS = "students.safetensors"
PROTOTYPES = "prototypes.safetensors"
REPORT = "report.html"
ENGINES = "engines"
OLD = ".old"
# JSON of 4 MiB takes at most 150 MB and half a second to read, whatever it holds.
_MAX_MANIFEST_BYTES = 4 << 20
_MAX_FILE_BYTES = 16 << 30


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
        notes: How it was fitted and calibrated.
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
    notes: Notes = field(default_factory=Notes)
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
            BundleError: The bundle was fitted on frames of other sizes, or no frame is as large.
        """
        if max(height, width) > MAX_SIDE_PX:
            raise BundleError(
                f"{source} has {size_text((height, width))}, a frame has at most {MAX_SIDE_PX} a side; cut it into "
                "shorter ones, and fit again with images of that size"
            )
        if self.frame_sizes and (height, width) not in self.frame_sizes:
            raise BundleError(
                f"{source} has {size_text((height, width))}, the bundle was fitted on {size_text(*self.frame_sizes)}; "
                "set the camera to that size, or fit again with images of the new size"
            )

    def require_look(self, pixels: Pixels, pixel_format: PixelFormat, source: str) -> None:
        """Accept only pictures that have colour, or none, as all nominal images have.

        Raises:
            BundleError: It is the other way round.
        """
        if objection := self.notes.look.objection(source, pixels, pixel_format):
            raise BundleError(objection)

    def require_pixel_format(self, pixel_format: PixelFormat, source: str) -> None:
        """Accept a source only if its pixel format can have colour, or none, as all nominal images have.

        Raises:
            BundleError: It cannot.
        """
        if objection := self.notes.look.objection_to_format(source, pixel_format):
            raise BundleError(objection)

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
        with verified_file(self.path, name) as file:
            contents = file.read()
        require_same(self.path / name, hashlib.sha256(contents).hexdigest(), self.files[name])
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
    raw = read_manifest(path)
    if trusted:
        _require_signature(path, raw, trusted)
    return verified(path, raw)


def read_manifest(path: Path) -> bytes:
    """The very bytes of a bundle's manifest, not verified yet.

    Raises:
        BundleError: There is none, or it cannot be read.
    """
    try:
        return read_plain(path / MANIFEST, _MAX_MANIFEST_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        if moved_aside := [left for left in leftovers(path) if left.name.endswith(OLD)]:
            raise BundleError(
                f"{path} is not there: a program was killed while it replaced it, or is about to replace it; "
                f"if none is, take what it was: mv {moved_aside[-1]} {path}"
            ) from error
        raise BundleError(f"{path} is not a bundle (it has no {MANIFEST}); make one with fbft-calibrate fit") from error
    except OSError as error:
        raise BundleError(
            f"{path / MANIFEST} cannot be read: {error.strerror}; check its permissions, or copy the bundle again"
        ) from error
    except ValueError as error:
        raise BundleError(f"{str(path)!r} cannot be the name of a bundle: {error}; name its folder") from error


def leftovers(path: Path) -> list[Path]:
    """Folders beside a bundle in which it is being changed, or was when a program was killed.

    Args:
        path: The bundle's folder, which need not be there.
    """
    out = Path(os.path.realpath(path))
    draft = re.compile(rf"\.{re.escape(out.name)}\.[a-z0-9_]{{8}}({re.escape(OLD)})?")
    with contextlib.suppress(OSError), os.scandir(out.parent) as entries:
        names = [each.name for each in entries if draft.fullmatch(each.name) and each.is_dir(follow_symlinks=False)]
        return [out.with_name(name) for name in sorted(names)]
    return []


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


def verified(path: Path, raw: bytes) -> Bundle:
    """The bundle that a manifest describes, once every file is what the manifest says.

    Args:
        path: The folder.
        raw: The manifest, from `read_manifest`; a signature over it is the caller's to verify.

    Raises:
        BundleError: The manifest is not valid, or a file, which is named, is missing or was altered.
    """
    bundle = _parse(path, raw)
    for name, expected in bundle.files.items():
        with verified_file(path, name) as file:
            found = sha256_of(file)
        require_same(path / name, found, expected)
    return bundle


@contextlib.contextmanager
def verified_file(path: Path, name: str) -> Iterator[BinaryIO]:
    """A listed file, open for reading, if it is a plain one inside the bundle; its hash is the caller's to compare.

    Args:
        path: The folder of the bundle.
        name: Relative POSIX path, as the manifest has it.

    Raises:
        BundleError: It is missing, cannot be read, or is a link, a device or outside the bundle.
    """
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


def require_same(file: Path, found: str, expected: str) -> None:
    """Accept a file only with the SHA-256 that the manifest has.

    Raises:
        BundleError: It has another one.
    """
    if found != expected:
        raise BundleError(
            f"{file} was altered: SHA-256 {found[:12]}..., {MANIFEST} says {expected[:12]}...; copy the bundle again"
        )


def _parse(path: Path, raw: bytes) -> Bundle:
    try:
        manifest = manifest_from_json(json_from_bytes(raw))
        notes = notes_from_json(manifest.notes)
    except ValueError as error:
        raise BundleError(
            f"{path / MANIFEST} is not a valid manifest ({error!s:.200}); copy the bundle again, or fit it again"
        ) from error
    return Bundle(
        path=path,
        product=manifest.product,
        created=manifest.created,
        teacher=manifest.teacher,
        tile=manifest.tile,
        frame_sizes=manifest.frame_sizes,
        thresholds=manifest.thresholds,
        notes=notes,
        files=manifest.files,
        sha256=hashlib.sha256(raw).hexdigest(),
    )
