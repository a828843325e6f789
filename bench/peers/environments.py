"""Reads bench/peers/peers.toml, the list of peers, and makes an environment for each if it does not exist."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgeleaf import progress
from edgeleaf.errors import InputError
from edgeleaf.latency.process import System
from edgeleaf.latency.worker import BUILT_IN

ROOT = Path(__file__).parent.parent.parent
PEERS = Path(__file__).parent / "peers.toml"
SOURCES = ("edgeleaf", "pyproject.toml", "README.md", "LICENSE")
"""The files from which edgeleaf's own package is built."""
PEERS_GPU = Path(__file__).parent / "peers-gpu.toml"
ADAPTERS = Path(__file__).parent / "adapters"
WORKER = ROOT / "edgeleaf" / "latency" / "worker.py"
NODE_WORKER = Path(__file__).parent / "worker.mjs"
NOT_THE_PEERS = ("pip", "pip-*", "setuptools", "setuptools-*", "_distutils_hack", "__pycache__", "*.pth")
"""Packages of every virtual environment."""


@dataclass(frozen=True)
class Peer:
    """One row of the table; see bench/peers/peers.toml."""

    name: str
    title: str
    environment: str
    adapter: str
    artefact: str
    space: Literal["teacher", "own"] = "teacher"
    note: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def system(self, environments: Environments, path: Path, prompt: str) -> System:
        """Return how this peer is started on its artefact."""
        adapter = self.adapter if self.adapter in BUILT_IN else str(ADAPTERS / self.adapter)
        if self.adapter.endswith(".mjs"):
            command: tuple[str, ...] = ("node", str(NODE_WORKER), adapter)
            variables = {"BENCH_MODULES": str(environments.folder(self.environment))}
        else:
            # -P: a peer must not import from the worker's own folder, which is edgeleaf's source.
            command = (str(environments.python(self.environment)), "-P", str(WORKER), adapter)
            variables = {"PYTHONPATH": ""}
        return System(
            self.name, self.title, command, str(path), prompt=prompt, options=self.options, environment=variables
        )


@dataclass(frozen=True)
class Environments:
    """Virtual environments and npm folders below one folder.

    Args:
        root: the folder that contains them.
        pip: packages of each virtual environment.
        npm: packages of each npm folder.
    """

    root: Path
    pip: Mapping[str, Sequence[str]]
    npm: Mapping[str, Sequence[str]]

    def folder(self, name: str) -> Path:
        return self.root / name

    def python(self, name: str) -> Path:
        """Return the interpreter of a virtual environment, which is made if it does not exist."""
        self.make(name)
        return self.folder(name) / "bin" / "python"

    def make(self, name: str) -> None:
        """Install an environment, once.

        Raises:
            InputError: its packages are not available; the message has the installer's last line.
        """
        folder = self.folder(name)
        wanted = list(self.npm[name] if name in self.npm else self.pip[name])
        stamp, key = folder / "packages.json", wanted + [source_hash()] * ("{root}" in wanted)
        if stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == key:
            return
        progress.say(f"environment: {name}")
        shutil.rmtree(folder, ignore_errors=True)
        if name in self.npm:
            folder.mkdir(parents=True)
            # Packages are complete as downloaded; onnxruntime-node's own script would only fetch CUDA.
            quiet = ("--ignore-scripts", "--no-audit", "--no-fund")
            _call(["npm", "install", *quiet, "--prefix", str(folder), *wanted], name)
        else:
            _call([sys.executable, "-m", "venv", str(folder)], name)
            with tempfile.TemporaryDirectory() as copy:
                if "{root}" in wanted:  # built beside the checkout, not in it
                    wanted[wanted.index("{root}")] = copy
                    for part in SOURCES:
                        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, Path(copy) / part)
                _call([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *wanted], name)
        stamp.write_text(json.dumps(key), encoding="utf-8")

    def versions(self, name: str) -> dict[str, str]:
        """Return every installed package and its version."""
        if name in self.npm:
            lock = json.loads((self.folder(name) / "package-lock.json").read_text(encoding="utf-8"))
            entries = lock["packages"].items()
            return {path.removeprefix("node_modules/"): entry["version"] for path, entry in entries if path}
        listed = subprocess.run(
            [self.python(name), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
            capture_output=True,
            text=True,
            check=True,
        )
        return {entry["name"]: entry["version"] for entry in json.loads(listed.stdout)}

    def size_mb(self, name: str) -> float:
        """Return the size of everything installed besides the interpreter and pip, in 10^6 bytes."""
        folder = self.folder(name)
        inside = folder / "node_modules" if name in self.npm else next(folder.glob("lib/python*/site-packages"))
        left = {path for pattern in NOT_THE_PEERS for path in inside.glob(pattern)}
        files = [path for top in inside.iterdir() if top not in left for path in (top, *top.rglob("*"))]
        # Compiled bytecode is the same code a second time.
        sizes = [path.stat().st_size for path in files if path.is_file() and path.suffix != ".pyc"]
        return round(sum(sizes) / 1e6, 1)


def source_hash() -> str:
    """Return a hash of edgeleaf's present source, so that no older version is measured."""
    found = hashlib.sha256()
    for path in [ROOT / "pyproject.toml", *sorted((ROOT / "edgeleaf").rglob("*.py"))]:
        found.update(path.relative_to(ROOT).as_posix().encode() + b"\x00" + path.read_bytes())
    return found.hexdigest()[:16]


def read_peers(path: Path, root: Path) -> tuple[list[Peer], Environments]:
    """Read a peers.toml.

    Raises:
        InputError: an unknown environment or key.
    """
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    environments = Environments(root, table.get("environments", {}), table.get("npm", {}))
    known = {*environments.pip, *environments.npm}
    peers = []
    for row in table["peer"]:
        try:
            peer = Peer(**row)
        except TypeError as error:
            raise InputError(f"{path}: peer {row.get('name')!r}: {error}") from None
        if peer.environment not in known:
            raise InputError(
                f"{path}: peer {peer.name!r}: no environment {peer.environment!r}; there are {sorted(known)}"
            )
        peers.append(peer)
    return peers, environments


def _call(command: Sequence[str], name: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InputError(f"environment {name}: {command[0]} is not installed") from None
    if done.returncode:
        said = [line for line in done.stderr.strip().splitlines() if "complete log" not in line]
        last = (said or ["it said nothing"])[-1]
        raise InputError(f"environment {name}: {' '.join(command[:4])} failed: {last}")
