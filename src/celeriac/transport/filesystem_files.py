"""Folders and the few things that are done in them: bringing files to the disk, moving them whole, listing them.

The filesystem transport and its parts call it. Invariant: a file appears under its name with all its content or not at
all, and what `Files.put` has returned from outlives a power cut (unless told to be quick).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator, Sequence

from celeriac.errors import OperationalError

__all__ = ["Files", "listed", "mapped_errors", "move", "moved", "read", "removed"]

#: Age in seconds at which what a killed process left half-written is deleted.
LEFTOVER = 3600.0
_numbers = itertools.count()


class Files:
    """Writing into folders.

    Args:
        is_synchronous: Wait for the disk.
    """

    def __init__(self, is_synchronous: bool) -> None:
        self.is_synchronous = is_synchronous

    def put(self, files: Sequence[tuple[str, bytes]], temporary: str) -> None:
        """Write files (path, content); none appears before all are on the disk. `temporary` is a folder beside them."""
        os.makedirs(temporary, exist_ok=True)
        head = os.path.join(temporary, f"{os.getpid()}-{os.urandom(4).hex()}")
        written: list[tuple[str, str]] = []
        try:
            for place, content in files:
                path = f"{head}-{next(_numbers)}"
                written.append((path, place))
                self._write(path, content)
            for path, place in written:
                move(path, place)
        except BaseException:
            for path, _ in written:
                removed(path)
            raise
        self.sync(os.path.dirname(place) for place, _ in files)

    def _write(self, path: str, content: bytes) -> None:
        with open(path, "xb") as file:
            file.write(content)
            if self.is_synchronous:
                file.flush()
                os.fsync(file.fileno())

    def sync(self, folders: Iterable[str]) -> None:
        """Bring the names in folders to the disk."""
        if not self.is_synchronous:
            return
        for folder in set(folders):
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def sweep(self, temporary: str) -> None:
        """Delete what killed processes left in a folder of temporary files."""
        for name in listed(temporary):
            path = os.path.join(temporary, name)
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_mtime < time.time() - LEFTOVER:
                    os.unlink(path)


def move(path: str, place: str) -> None:
    """Rename, making the folder of the new place where it isn't there yet."""
    try:
        os.rename(path, place)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.rename(path, place)


def moved(path: str, place: str) -> bool:
    """`move`; False if the file has gone, since another process was faster."""
    try:
        move(path, place)
    except FileNotFoundError:
        return False
    return True


def removed(path: str) -> bool:
    """Delete a file; False if it has gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def read(path: str) -> bytes | None:
    """The content of a file; None if it has gone."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def listed(folder: str) -> list[str]:
    """The names in a folder; none if it isn't there."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def mapped_errors(url: str) -> Iterator[None]:
    """Turn the system's errors into ours."""
    try:
        yield
    except OSError as exc:
        where = f" ({exc.filename})" if exc.filename else ""
        raise OperationalError(f"{url}: {exc.strerror or exc}{where}.") from exc
