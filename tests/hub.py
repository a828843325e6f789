"""A stand-in for the Hugging Face hub, as far as a push and a load need it: a server of the standard library.

    python -m tests.hub BUNDLE    push BUNDLE to it, load it from there, load it again without it; print its log

It keeps repositories in memory, asks for a token to write, hides private repositories, takes large files by the LFS
protocol, and makes one commit per request. :attr:`Hub.faults` makes requests fail.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_stand_in_token_of_the_tests"
LARGE = 10_000
"""Files from this many bytes on, and binary ones, are uploaded by LFS."""
DROP = -1
"""A fault: the connection is closed in the middle."""


@dataclass
class Repository:
    """Commits, newest last: each the files by their path, and the name of the commit."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)


@dataclass
class Hub:
    """What the server has and does.

    Args:
        url: its address.
        repositories: by ``owner/name``.
        objects: uploaded large files, by sha256.
        faults: a regular expression for "METHOD path", to the status that such requests get; or :data:`DROP`.
        log: "METHOD path status" of every request.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def files(self, name: str) -> dict[str, bytes]:
        """The newest files of a repository."""
        return self.repositories[name].commits[-1][1]

    def commit(self, name: str, files: dict[str, bytes], *, private: bool = False) -> str:
        """Add a commit with exactly these files; return its name."""
        repository = self.repositories.setdefault(name, Repository(private))
        digest = hashlib.sha1(f"{len(repository.commits)} {sorted(files)}".encode()).hexdigest()
        repository.commits.append((digest, files))
        return digest


@contextmanager
def stand_in() -> Iterator[Hub]:
    """Run the stand-in on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Nothing to standard error."""

    def _any(self) -> None:
        self.path = unquote(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        fault = next((status for pattern, status in self.hub.faults.items() if self._is(pattern)), None)
        if fault == DROP:
            self.rfile.read(length // 2)
            self.hub.log.append(f"{self.command} {self.path} dropped")
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        if fault is not None:
            self._answer(fault, {"error": f"fault of the test, token {self.headers.get('Authorization', '')[7:]}"})
            return
        path = urlsplit(self.path).path
        for method, pattern, route in _ROUTES:
            if method == self.command and (found := re.fullmatch(pattern, path)):
                route(self, body, *found.groups())
                return
        self._answer(404, {"error": "no such route"})

    do_GET = do_HEAD = do_POST = do_PUT = _any  # noqa: N815

    def _is(self, pattern: str) -> bool:
        return re.search(pattern, f"{self.command} {self.path}") is not None

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, value: Any, *, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.hub.log.append(f"{self.command} {self.path} {status}")
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _knows(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _found(self, name: str, revision: str = "main") -> tuple[str, dict[str, bytes]] | None:
        """The commit that is asked for; None if an answer was given that says why not."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._knows()):
            self._answer(401, {"error": "Repository not found"}, headers={"X-Error-Code": "RepoNotFound"})
            return None
        empty = hashlib.sha1(name.encode()).hexdigest()
        commits = repository.commits or [(empty, {})]
        found = next((part for part in reversed(commits) if revision in ("main", part[0])), None)
        if found is None:
            self._answer(404, {"error": "Invalid rev id"}, headers={"X-Error-Code": "RevisionNotFound"})
        return found

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if not self._knows():
            self._answer(401, {"error": "Invalid username or password."})
        elif name in self.hub.repositories:
            self._answer(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        else:
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.repositories[name] = Repository(private)
            self._answer(200, {"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def _validate(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        fine = re.match(r"---\n(?:.*\n)+?---\n", content) is not None
        message = [] if fine else [{"message": "no metadata"}]
        self._answer(200 if fine else 400, {"errors": message, "warnings": []})

    def _info(self, body: bytes, name: str, revision: str | None = None) -> None:
        if found := self._found(name, revision or "main"):
            siblings = [{"rfilename": path} for path in sorted(found[1])]
            private = self.hub.repositories[name].private
            self._answer(200, {"id": name, "modelId": name, "sha": found[0], "private": private, "siblings": siblings})

    def _preupload(self, body: bytes, name: str, revision: str) -> None:
        if not self._knows():
            self._answer(401, {"error": "Invalid username or password."})
        elif self._found(name, revision) or name not in self.hub.repositories:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if _is_large(file) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})

    def _batch(self, body: bytes, name: str) -> None:
        objects = []
        for part in json.loads(body)["objects"]:
            actions = {"upload": {"href": f"{self.hub.url}/lfs/{part['oid']}"}}
            known = part["oid"] in self.hub.objects
            objects.append({**part, "authenticated": True, **({} if known else {"actions": actions})})
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _upload(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self._answer(400, {"error": "another hash"})
            return
        self.hub.objects[oid] = body
        self._answer(200, b"", headers={"ETag": f'"{oid}"'})

    def _commit(self, body: bytes, name: str, revision: str) -> None:
        if not self._knows() or name not in self.hub.repositories:
            self._answer(401, {"error": "Invalid username or password."})
            return
        commits = self.hub.repositories[name].commits
        files = dict(commits[-1][1]) if commits else {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        oid = self.hub.commit(name, files)
        url = f"{self.hub.url}/{name}/commit/{oid}"
        self._answer(200, {"success": True, "commitOid": oid, "commitUrl": url})

    def _tree(self, body: bytes, name: str, revision: str) -> None:
        if found := self._found(name, revision):
            entries = []
            for path, data in sorted(found[1].items()):
                digest = hashlib.sha256(data).hexdigest()
                lfs = {"lfs": {"oid": digest, "size": len(data), "pointerSize": 134}} if len(data) >= LARGE else {}
                entries.append({"type": "file", "path": path, "size": len(data), "oid": digest[:40], **lfs})
            self._answer(200, entries)

    def _resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        if not (found := self._found(name, revision)):
            return
        if path not in found[1]:
            self._answer(404, {"error": "Entry not found"}, headers={"X-Error-Code": "EntryNotFound"})
            return
        data = found[1][path]
        digest = hashlib.sha256(data).hexdigest()
        etag = digest if len(data) >= LARGE else digest[:40]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": found[0], "Accept-Ranges": "bytes"}
        headers["X-Linked-Size"] = str(len(data))
        status = 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        self._answer(status, data, headers={**headers, "Content-Type": "application/octet-stream"})


def _is_large(file: dict[str, Any]) -> bool:
    return file["size"] >= LARGE or b"\0" in base64.b64decode(file["sample"])


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES = (
    ("POST", r"/api/repos/create", _Handler._create),
    ("POST", r"/api/validate-yaml", _Handler._validate),
    ("GET", rf"/api/models/{_NAME}", _Handler._info),
    ("GET", rf"/api/models/{_NAME}/revision/([\w.-]+)", _Handler._info),
    ("GET", rf"/api/models/{_NAME}/tree/([\w.-]+)(?:/.*)?", _Handler._tree),
    ("POST", rf"/api/models/{_NAME}/preupload/([\w.-]+)", _Handler._preupload),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler._batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", _Handler._upload),
    ("POST", rf"/api/models/{_NAME}/commit/([\w.-]+)", _Handler._commit),
    ("HEAD", rf"/{_NAME}/resolve/([\w.-]+)/(.+)", _Handler._resolve),
    ("GET", rf"/{_NAME}/resolve/([\w.-]+)/(.+)", _Handler._resolve),
)

LOAD = """
import sys
from edgeleaf import QueryEncoder
print(QueryEncoder.load(sys.argv[1]).encode(["where is my parcel?"]).shape)
"""


def main(bundle: str, name: str = "acme/queries") -> int:
    """Push, load, and load again without the hub; print the log."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HF_HOME": home, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
        with stand_in() as hub:
            environment["HF_ENDPOINT"] = hub.url
            push = [sys.executable, "-m", "edgeleaf.cli", "push", str(Path(bundle).resolve()), name]
            status = 0
            for step, command in (("push", push), ("load", [sys.executable, "-c", LOAD, name])):
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                status |= done.returncode
                sys.stdout.write(f"{step}: exit {done.returncode}\n{done.stdout}{done.stderr}")
                sys.stdout.writelines(f"    {line}\n" for line in hub.log)
                hub.log.clear()
        done = subprocess.run(
            [sys.executable, "-c", LOAD, name], env=environment, capture_output=True, text=True, check=False
        )
        sys.stdout.write(f"load without the hub: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return status | done.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
