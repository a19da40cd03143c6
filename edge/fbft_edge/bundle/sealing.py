"""Writing bundles: a folder of files in, a sealed, perhaps signed bundle in its place out.

Never runs on the line. One program at a time writes a bundle, and what it replaces is what it began with. Knows nothing
about what the files hold; what a sealed bundle is, `fbft_edge.bundle.reading` says, and whatever is sealed here is read
back through it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from fbft_edge.bundle.folder_swap import copy_rights, new_draft, replace_folder, settle
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
from fbft_edge.bundle.write_lock import write_lock
from fbft_edge.errors import BundleError
from fbft_edge.plain_file import file_sha256

_UNSEALED = (MANIFEST, f"{MANIFEST}.partial", SIGNATURE, f"{SIGNATURE}.partial")


def open_to_change(path: Path | str) -> Bundle:
    """`open_bundle` for who means to change it: what killed programs left of it is used, or cleared, with a word.

    Raises:
        ArgumentError: Another program is changing it.
        BundleError: See `open_bundle`.
    """
    with _writing(Path(path)):
        return open_bundle(path)


def sign_bundle(path: Path | str, secret: Path) -> Bundle:
    """Verify a bundle's files and sign it; the signature takes the place of an earlier one.

    Args:
        path: The folder.
        secret: Ed25519 secret key, a PEM file.

    Raises:
        BundleError: See `open_bundle`; nothing was signed.
        ArgumentError: The key cannot be used, or another program is changing the bundle.
    """
    path = Path(path)
    with _writing(path):
        raw = read_manifest(path)
        bundle = verified(path, raw)
        try:
            _put(path / SIGNATURE, sign(raw, secret), path / MANIFEST)
        except OSError as error:
            raise BundleError(
                f"{path / SIGNATURE} cannot be written: {error.strerror}; sign where it can be"
            ) from error
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
    manifest = bundle.path / MANIFEST
    if not manifest.is_file() or manifest.read_bytes() != raw:
        (bundle.path / SIGNATURE).unlink(missing_ok=True)
    _put(manifest, raw, manifest)
    return open_bundle(bundle.path)


def _put(file: Path, contents: bytes, like: Path) -> None:
    """Write a file as a whole or not at all, with the rights of another if that is there."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_bytes(contents)
    if like.is_file():
        copy_rights(like, partial)
    partial.replace(file)


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

    What stood at `out` stays whole until then, and its owner, group and modes stay beyond that. Where `out` is a link,
    what it points to is replaced. Until the block ends no other program changes it.

    Raises:
        ArgumentError: Another program is changing it.
        BundleError: It was changed meanwhile, by something that heeds no lock; it stays as it is then.
    """
    out = Path(os.path.realpath(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    with _writing(out):
        before, draft = _state(out), new_draft(out)
        try:
            yield draft
            if _state(out) != before:
                raise BundleError(
                    f"{out} was changed by another program while its next state was made, and stays as it is now; "
                    "run this again, when that program has ended"
                )
            replace_folder(draft, out)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def revising(bundle: Bundle) -> Iterator[Bundle]:
    """A copy of a bundle to change and seal; it takes the bundle's place when the block ends well. See `building`.

    Raises:
        ArgumentError: Another program is changing it.
        BundleError: The bundle holds what its manifest does not list, which sealing would vouch for, or was changed
            since it was opened, or is while the block runs.
    """
    with building(bundle.path) as draft:
        _refuse_strangers(bundle)
        raw = read_manifest(bundle.path)
        if hashlib.sha256(raw).hexdigest() != bundle.sha256:
            raise BundleError(f"{bundle.path} was changed by another program since it was opened; run this again")
        for name in bundle.files:
            _copy_verified(bundle, name, draft / name)
        (draft / MANIFEST).write_bytes(raw)
        if (bundle.path / SIGNATURE).is_file():
            shutil.copyfile(bundle.path / SIGNATURE, draft / SIGNATURE)
        yield dataclasses.replace(bundle, path=draft)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """The sole right to change a bundle, of which nothing is left to be settled."""
    try:
        out = Path(os.path.realpath(path))
    except ValueError:  # no name of a file
        out = path
    if not out.parent.is_dir():  # nothing there that anybody could change; what follows says so
        yield
        return
    with write_lock(out.with_name(f".{out.name}.lock"), path):
        settle(out)
        yield


def _state(out: Path) -> str | None:
    """By which a bundle is known to be what it was."""
    return file_sha256(out / MANIFEST) if (out / MANIFEST).is_file() else None


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
