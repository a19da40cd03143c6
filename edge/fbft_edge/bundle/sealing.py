"""Writing bundles: a folder of files in, a sealed, perhaps signed bundle in its place out.

Never runs on the line. Knows nothing about what the files hold; what a sealed bundle is, `fbft_edge.bundle.reading`
says, and whatever is sealed here is read back through it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from fbft_edge.bundle.manifest import SCHEMA
from fbft_edge.bundle.notes import notes_to_json
from fbft_edge.bundle.reading import (
    MANIFEST,
    SIGNATURE,
    Bundle,
    open_bundle,
    read_manifest,
    require_same,
    verified,
    verified_file,
)
from fbft_edge.bundle.signing import sign
from fbft_edge.errors import BundleError
from fbft_edge.plain_file import file_sha256

_UNSEALED = (MANIFEST, f"{MANIFEST}.partial", SIGNATURE, f"{SIGNATURE}.partial")


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
    raw = read_manifest(path)
    bundle = verified(path, raw)
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

    Args:
        bundle: What the manifest is to say; its `files` and `sha256` are found anew.

    Raises:
        ValueError: A number in it is not finite; the manifest that was there stays.
        BundleError: What was sealed cannot be read back.
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
        "notes": notes_to_json(bundle.notes),
        "files": {name: file_sha256(bundle.path / name) for name in names},
    }
    raw = (json.dumps(contents, indent=2, allow_nan=False) + "\n").encode()
    manifest, partial = bundle.path / MANIFEST, bundle.path / f"{MANIFEST}.partial"
    partial.write_bytes(raw)
    if not manifest.is_file() or manifest.read_bytes() != raw:
        (bundle.path / SIGNATURE).unlink(missing_ok=True)
    partial.replace(manifest)
    return open_bundle(bundle.path)


def written(draft: Bundle, *names: str) -> Bundle:
    """A draft that vouches for files which were just written in it, hashed as they lie there.

    Whoever makes a draft may use its files before they are sealed: `Bundle.read` holds them to these hashes.

    Args:
        draft: In a folder of `building` or `revising`.
        names: Relative POSIX paths of the files.
    """
    found = {name: file_sha256(draft.path / name) for name in names}
    return dataclasses.replace(draft, files={**draft.files, **found}, sha256="")


def removed(draft: Bundle, *names: str) -> Bundle:
    """A draft without some of its files; they are gone from its folder too."""
    for name in names:
        (draft.path / name).unlink()
    kept = {name: sha256 for name, sha256 in draft.files.items() if name not in names}
    return dataclasses.replace(draft, files=kept, sha256="")


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
    with verified_file(bundle.path, name) as source, target.open("wb") as copy:
        while block := source.read(1 << 20):
            digest.update(block)
            copy.write(block)
    require_same(bundle.path / name, digest.hexdigest(), bundle.files[name])


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
