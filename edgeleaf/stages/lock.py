"""Lets one process at a time work in a folder."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeleaf.errors import BundleError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Reserve a folder for this process alone; create it if it is missing.

    The operating system locks the file ``.lock``, so the lock ends with the process, however the process ends. The file
    stays. Only a folder with nothing else in it is removed at the end, together with the file, while the lock is still
    held. A process that waited for that file finds that it is gone and starts again with a new one.

    Raises:
        BundleError: another process holds the folder.
    """
    descriptor = _acquire(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows does not remove open files, so the folder stays there
            if [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                folder.rmdir()
        os.close(descriptor)


def _acquire(folder: Path) -> int:
    """Return the descriptor of the locked file, after checking that this file still has the name."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the folder was removed in between
            continue
        try:
            _lock(descriptor)
            here = os.fstat(descriptor)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(here, (folder / LOCK).stat()):
                    return descriptor
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError | PermissionError):
                raise BundleError(f"{folder}: another run is at work there; wait for it to end") from None
            raise
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Lock an open file, or raise BlockingIOError or PermissionError at once."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
