"""Files under a folder or a URL such as ``s3://bucket/prefix``: read, and written completely or not at all.

URLs go through fsspec, which has one file system per scheme: s3:// needs s3fs, gs:// needs gcsfs, and so on. Keys and
endpoints come from where these packages look for them (the environment, ``~/.aws``), never from a URL.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from edgeleaf.errors import MissingExtra, PlaceError
from edgeleaf.files import write_bytes
from edgeleaf.places import reason_without, without_password

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_PIECE = 4 << 20
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
"""What pip installs for a scheme, where fsspec alone does not do."""


def is_url(place: str | Path) -> bool:
    """Return whether a place is a URL and not a path."""
    return isinstance(place, str) and _URL.fullmatch(place) is not None


def knows(place: str | Path) -> bool:
    """Return whether a place is a URL of a scheme for which fsspec has a file system, installed or not."""
    if not is_url(place):
        return False
    try:
        from fsspec import available_protocols
    except ImportError:
        raise MissingExtra("a URL needs fsspec, not installed: pip install 'edgeleaf[ray]'") from None
    return _scheme(place) in available_protocols()


class Place:
    """A folder of files, on disk or under a URL.

    Args:
        place: a path, or a URL of a scheme that fsspec knows.

    Raises:
        PlaceError: no such scheme, or a URL without a bucket. Every method raises it if the place cannot be reached,
            or a file cannot be read or written; the message names it.
        MissingExtra: the package for the scheme is not installed.
    """

    def __init__(self, place: str | Path) -> None:
        self.name = str(place).rstrip("/") or str(place)
        self._folder: Path | None = None
        self._files: Any = None
        self._root = ""
        if is_url(place):
            self._files, self._root = _file_system(str(place))
        else:
            self._folder = Path(place).absolute()
            self.name = str(self._folder)

    @property
    def shown(self) -> str:
        """The place as messages and files say it: without a password."""
        return without_password(self.name)

    def __truediv__(self, part: str) -> Place:
        return Place(f"{self.name}/{part}")

    def names(self) -> set[str]:
        """Return the names of the files directly in the place; none if it does not exist yet."""
        with self._named("", "listed"):
            if self._folder is not None:
                return {path.name for path in self._folder.iterdir()} if self._folder.is_dir() else set()
            try:
                found = self._files.ls(self._root, detail=False, refresh=True)
            except FileNotFoundError:
                self._check_bucket()
                return set()
            except TypeError:  # a file system without a cache of its listings
                found = self._files.ls(self._root, detail=False)
            return {str(path).rstrip("/").rpartition("/")[2] for path in found}

    def has(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        with self._named(name, "looked up"):
            if self._folder is not None:
                return (self._folder / name).is_file()
            return bool(self._files.exists(f"{self._root}/{name}"))

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        with self._named(name, "read"):
            if self._folder is not None:
                return (self._folder / name).read_bytes()
            return bytes(self._files.cat_file(f"{self._root}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        """Write a file: aside and renamed on disk; as one object, which appears when all of it is there, elsewhere."""
        with self._named(name, "written"):
            if self._folder is not None:
                write_bytes(self._folder / name, data)
                return
            self._make_folder()
            self._files.pipe_file(f"{self._root}/{name}", data)

    def put(self, name: str, file: Path) -> None:
        """Copy a file of this machine to the place, in pieces."""
        with self._named(name, "written"):
            self._make_folder()
            self._files.put_file(str(file), f"{self._root}/{name}")

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._named(name, "removed"):
            if self._folder is not None:
                (self._folder / name).unlink(missing_ok=True)
            elif self.has(name):
                self._files.rm_file(f"{self._root}/{name}")

    def prune(self) -> None:
        """Remove the folder, if it is one on disk and empty."""
        if self._folder is not None and self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _make_folder(self) -> None:
        """Make the folder where there are folders; an object store would make a bucket, by whatever name was typed."""
        if _scheme(self.name) not in PACKAGES:
            self._files.makedirs(self._root, exist_ok=True)

    def _check_bucket(self) -> None:
        bucket = self._root.partition("/")[0]
        if _scheme(self.name) in PACKAGES and not self._files.exists(bucket):
            raise PlaceError(f"{self.shown}: there is no bucket {bucket!r}; make it, or mend the name")

    @contextmanager
    def _named(self, name: str, done: str) -> Iterator[None]:
        with _failures(f"{self.name}/{name}".rstrip("/"), done):
            yield


@contextmanager
def opened(url: str) -> Iterator[IO[bytes]]:
    """Open the file at a URL to read it from its beginning.

    Raises:
        PlaceError, MissingExtra: see :class:`Place`; also in the middle of reading.
    """
    files, path = _file_system(url)
    with _failures(url, "read"), files.open(path, "rb", block_size=_PIECE) as stream:
        yield io.BufferedReader(stream, _PIECE)


def _scheme(place: str | Path) -> str:
    found = _URL.fullmatch(str(place))
    return found[1].lower() if found else ""


def _file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path in it."""
    scheme, shown = _scheme(url), without_password(url)
    if not knows(url):
        raise PlaceError(f"{shown}: no file system for {scheme}://; give a path, or a URL such as s3://bucket/folder")
    found = _URL.fullmatch(url)
    if found is None or not found[2].strip("/"):
        raise PlaceError(f"{shown}: names no bucket or folder; needed is something like {scheme}://bucket/folder")
    from fsspec.core import url_to_fs

    try:
        files, path = url_to_fs(url)
    except ImportError:
        package = PACKAGES.get(scheme, f"the package that fsspec uses for {scheme}://")
        bring = "'edgeleaf[ray]'" if package == "s3fs" else package
        raise MissingExtra(f"{scheme}:// needs {package}, not installed: pip install {bring}") from None
    except Exception as error:  # each scheme has errors of its own
        raise PlaceError(f"{shown}: cannot be used: {reason_without(url, error)}") from None
    files.invalidate_cache()
    return files, str(path).rstrip("/")


@contextmanager
def _failures(file: str, done: str) -> Iterator[None]:
    """Turn whatever a file system raises into one line that names the file, without its URL's password."""
    from edgeleaf.errors import EdgeleafError

    name = without_password(file)
    try:
        yield
    except EdgeleafError:
        raise
    except FileNotFoundError as error:
        reason = reason_without(file, error) if "bucket" in str(error).lower() else "no such file"
        raise PlaceError(f"{name}: cannot be {done}: {reason}") from None
    except OSError as error:
        raise PlaceError(f"{name}: cannot be {done}: {error.strerror or reason_without(file, error)}") from None
    except Exception as error:  # botocore's, aiohttp's, google's own classes
        raise PlaceError(f"{name}: cannot be {done}: {type(error).__name__}: {reason_without(file, error)}") from None
