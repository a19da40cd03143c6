"""The folder of all recordings: files in, whole recordings on disk, and only recordings removed.

A recording is written under a temporary name, synced and renamed, and renamed before it is removed: whenever the
process or the machine dies, what stands under a recording's name is whole, and the next start clears the rest.
Symbolic links below the folder are never followed. Knows nothing about what is in the files, and when to remove.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fbft_edge.errors import RecordingError
from fbft_edge.recording.recordings import ABOUT_FILE, FILES, Place, is_place, temporary_name

# Pictures of somebody's product: for the line's account and its group, whatever the umask.
_FILE_MODE, _FOLDER_MODE = 0o640, 0o750
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class RecordingFolder:
    """A folder that this process alone writes recordings to.

    Args:
        path: Made if it does not exist; what is made in it, and it itself, is closed to all but owner and group.

    Raises:
        RecordingError: It cannot be made or written to, or another process has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise RecordingError(f"{path} cannot hold recordings: {error.strerror}; choose another folder") from error
        try:
            self._claim()
        except RecordingError:
            self.close()
            raise

    def _claim(self) -> None:
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise RecordingError(f"{self.path} cannot be written to; change its permissions or choose another folder")
        try:
            fcntl.flock(self._root, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecordingError(
                f"another process records to {self.path}; give every line a folder of its own"
            ) from None
        except OSError:
            pass  # some network file systems have no locks

    def close(self) -> None:
        """Let another process have the folder."""
        os.close(self._root)

    def write(self, place: Place, files: Mapping[str, bytes]) -> None:
        """Write one recording; it is on disk, whole, when this returns. A recording that is there already stays.

        Raises:
            OSError: It is not written, and nothing of it is left unless that cannot be removed either.
        """
        partial = temporary_name(place.name)
        with self._folder(place.date, place.camera, make=True) as camera:
            if _is_there(place.name, camera):
                return
            try:
                _discard(partial, camera)
                os.mkdir(partial, _FOLDER_MODE, dir_fd=camera)
                with _opened(partial, camera) as folder:
                    for name, content in files.items():
                        _write_file(name, content, folder)
                    os.fsync(folder)
                os.rename(partial, place.name, src_dir_fd=camera, dst_dir_fd=camera)
                os.fsync(camera)
            except BaseException:
                with contextlib.suppress(OSError):
                    _discard(partial, camera)
                raise

    def remove(self, place: Place) -> bool:
        """Remove one recording, and the folders above it that this leaves empty.

        Returns:
            False when nothing was removed: it is gone, or is no recording any more because it holds other files.

        Raises:
            OSError: It cannot be removed.
        """
        try:
            with self._folder(place.date, place.camera) as camera:
                with _opened(place.name, camera) as folder:
                    if _sizes(folder) is None:
                        return False
                partial = temporary_name(place.name)
                os.rename(place.name, partial, src_dir_fd=camera, dst_dir_fd=camera)
                _discard(partial, camera)
        except (FileNotFoundError, NotADirectoryError):
            return False
        with contextlib.suppress(OSError), self._folder(place.date) as date:
            os.rmdir(place.camera, dir_fd=date)
            os.rmdir(place.date, dir_fd=self._root)
        return True

    def recordings(self) -> dict[Place, int]:
        """Every recording with the bytes of its files; none that holds other files."""
        found = {}
        for place in self._places(str):
            with contextlib.suppress(OSError), self._folder(place.date, place.camera, place.name) as folder:
                sizes = _sizes(folder)
                if sizes and ABOUT_FILE in sizes:
                    found[place] = sum(sizes.values())
        return found

    def clear_temporaries(self) -> None:
        """Remove what was being written or removed when a process died.

        Raises:
            OSError: That cannot be removed.
        """
        for place in self._places(temporary_name):
            with self._folder(place.date, place.camera) as camera:
                _discard(temporary_name(place.name), camera)

    def _places(self, called: Callable[[str], str]) -> Iterator[Place]:
        """Places in real folders below the root whose recordings are called by this function of their name."""
        for date in _names(self._root):
            with contextlib.suppress(OSError), self._folder(date) as date_folder:
                for camera in _names(date_folder):
                    with contextlib.suppress(OSError), _opened(camera, date_folder) as camera_folder:
                        for entry in _names(camera_folder):
                            name = entry.removeprefix(".").removesuffix(".partial")
                            if entry == called(name) and is_place(date, camera, name):
                                yield Place(date, name, camera)

    @contextlib.contextmanager
    def _folder(self, *names: str, make: bool = False) -> Iterator[int]:
        """A folder below the root, opened one name after the other so that no symbolic link is followed."""
        with contextlib.ExitStack() as stack:
            folder = self._root
            for name in names:
                if make and not _is_there(name, folder):
                    os.mkdir(name, _FOLDER_MODE, dir_fd=folder)
                    os.fsync(folder)
                folder = stack.enter_context(_opened(name, folder))
            yield folder


@contextlib.contextmanager
def _opened(name: str, parent: int) -> Iterator[int]:
    folder = os.open(name, _FOLDER, dir_fd=parent)
    try:
        yield folder
    finally:
        os.close(folder)


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries)


def _is_there(name: str, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _sizes(folder: int) -> dict[str, int] | None:
    """Bytes of each file; None when anything but a recording's files is there."""
    with os.scandir(folder) as entries:
        found = {entry.name: entry for entry in entries}
        if not all(name in FILES and entry.is_file(follow_symlinks=False) for name, entry in found.items()):
            return None
        return {name: entry.stat(follow_symlinks=False).st_size for name, entry in found.items()}


def _discard(name: str, parent: int) -> None:
    """Remove a recording's files in a folder and, when that leaves it empty, the folder."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), _opened(name, parent) as folder:
        if _sizes(folder) is not None:
            for file in _names(folder):
                os.unlink(file, dir_fd=folder)
            os.rmdir(name, dir_fd=parent)


def _write_file(name: str, content: bytes, parent: int) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _FILE_MODE, dir_fd=parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
