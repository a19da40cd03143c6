"""A draft takes a bundle's place: two folders in, one of them out, with the rights that the other had.

Where the kernel and the file system can exchange two names (Linux `renameat2`; ext4, xfs, btrfs, tmpfs), there is no
moment without a bundle. Elsewhere (NFS, some overlays) the old one is moved aside first: who is killed between the two
renames leaves it there, and `settle` puts it back. Knows nothing about what is in a bundle but its manifest's name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import secrets
import shutil
import stat
from pathlib import Path

from fbft_edge.bundle.reading import MANIFEST, OLD, leftovers
from fbft_edge.errors import BundleError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NOT_HERE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_logger = logging.getLogger(__name__)


def new_draft(out: Path) -> Path:
    """An empty folder beside a bundle, of its owner and group if it is there.

    Raises:
        BundleError: The bundle belongs to a group that this program may not give anything to.
    """
    draft = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    draft.mkdir()
    if out.is_dir():
        try:
            _give_owner(draft, out.stat())
        except OSError as error:
            draft.rmdir()
            raise BundleError(
                f"{out} belongs to group {out.stat().st_gid}, which a new state of it could not be given to "
                f"({error.strerror}); become a member of that group, or run this as the bundle's owner"
            ) from error
        if draft.stat().st_uid != out.stat().st_uid:
            _logger.warning(
                "%s will belong to user %d, no longer to %d: give it back with chown -R, or run this as its owner",
                *(out, draft.stat().st_uid, out.stat().st_uid),
            )
    return draft


def replace_folder(draft: Path, out: Path) -> None:
    """Put a draft in a bundle's place, with its rights; what was there is gone, or left where the draft was.

    Args:
        draft: From `new_draft`; whoever made it removes what is there afterwards.
        out: A bundle, or nothing, or an empty folder.
    """
    if not out.exists():
        draft.rename(out)
        return
    _give_rights(draft, out)
    if _exchange(draft, out):
        return
    old = draft.with_name(f"{draft.name}{OLD}")
    out.rename(old)
    try:
        draft.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def settle(out: Path) -> None:
    """Clear what killed programs left beside a bundle, after putting the bundle back if one left none.

    To be called by who holds the bundle's lock, so that nobody is at work on what is found.
    """
    found = leftovers(out)
    moved_aside = [path for path in found if path.name.endswith(OLD) and (path / MANIFEST).is_file()]
    if moved_aside and not out.exists():
        newest = max(moved_aside, key=lambda path: path.stat().st_ctime_ns)
        newest.rename(out)
        found.remove(newest)
        _logger.warning("%s is back: a program was killed while it replaced it, and had left it in %s", out, newest)
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
        _logger.warning("%s was left by a program that was killed, and is removed", path)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names at once; False where this system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28, musl 1.2.6
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    if (code := ctypes.get_errno()) in _NOT_HERE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _give_rights(draft: Path, out: Path) -> None:
    """Owner, group and mode as they were; what is new in the draft has those of the manifest, or of the folder."""
    for path in [*draft.rglob("*"), draft]:
        is_folder = path.is_dir()
        was = out / path.relative_to(draft)
        if not was.exists() or was.is_dir() is not is_folder:
            was = out if is_folder else out / MANIFEST
        if was.exists():
            copy_rights(was, path)


def copy_rights(like: Path, path: Path) -> None:
    """Give a file or folder another one's group and mode, and its owner where this program may."""
    wanted = like.stat()
    _give_owner(path, wanted)
    path.chmod(stat.S_IMODE(wanted.st_mode))


def _give_owner(path: Path, wanted: os.stat_result) -> None:
    with contextlib.suppress(PermissionError):
        os.chown(path, wanted.st_uid, wanted.st_gid)
        return
    if path.stat().st_gid != wanted.st_gid:
        os.chown(path, -1, wanted.st_gid)
