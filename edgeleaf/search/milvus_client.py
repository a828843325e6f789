"""The connection of the store ``milvus``: a client of Milvus Lite or of a server, and its errors in one line."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

from edgeleaf.errors import BundleError, EdgeleafError, InputError
from edgeleaf.extras import require
from edgeleaf.places import check_password, reason_without, without_password
from edgeleaf.search.sqlite import file_of

COLLECTION = "edgeleaf"
"""The collection's name in a file."""
SECONDS = 10


def is_file(place: str) -> bool:
    return place.partition("://")[2].startswith("/")


def collection_of(place: str) -> str:
    """Return the name of the collection that says what the store is."""
    if is_file(place):
        if not place.endswith(".db"):
            raise InputError(f"{place}: Milvus Lite takes names that end in .db; write milvus:///docs.db")
        return COLLECTION
    name = place.partition("://")[2].partition("/")[2]
    if not name.replace("_", "a").isalnum() or not name.isascii() or name[0].isdigit() or len(name) > 200:
        raise InputError(
            f"{without_password(place)}: the name of a collection is needed, of letters, digits and _: "
            "milvus://host:19530/collection"
        )
    return name


class LiteClient:
    """A client of Milvus Lite, which runs in this process for as long as any client of the same file is open."""

    _open: ClassVar[dict[str, int]] = {}
    _lock = threading.Lock()

    def __init__(self, path: Path) -> None:
        from pymilvus import MilvusClient

        self._path = str(path.absolute())
        with self._lock:
            self._open[self._path] = self._open.get(self._path, 0) + 1
        try:
            self._client = MilvusClient(self._path, timeout=SECONDS, dedicated=True)
        except BaseException:
            self._release()
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def close(self) -> None:
        self._client.close()
        self._release()

    def _release(self) -> None:
        from milvus_lite.server_manager import server_manager_instance

        with self._lock:
            self._open[self._path] -= 1
            if not self._open[self._path]:
                server_manager_instance.release_server(self._path)


def connected(place: str) -> Any:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for package in ("pymilvus", "milvus_lite", "grpc"):
        logging.getLogger(package).setLevel(logging.CRITICAL)  # their errors come back as exceptions
    if is_file(place):
        return LiteClient(file_of(place))
    from pymilvus import MilvusClient

    user, at, host = place.partition("://")[2].partition("/")[0].rpartition("@")
    return MilvusClient(f"http://{host}", token=unquote(user) if at else "", timeout=SECONDS)


@contextmanager
def errors(place: str, url: str, *, writing: bool = False) -> Iterator[None]:
    """Turn Milvus's errors into one line that names the place and never the password."""
    file = is_file(url)
    require("milvus in a file" if file else "milvus")
    check_password(url)
    import grpc
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except EdgeleafError:  # some are TypeErrors too
        raise
    except (MilvusException, grpc.RpcError, OSError, ValueError, KeyError, TypeError) as error:
        reason = reason_without(url, error)
        what = "cannot be written" if writing else "cannot be read"
        if file and not Path(file_of(url)).is_dir():
            reason = "not a database of Milvus Lite"
        raise BundleError(f"{place}: {what}: {reason}") from None
