"""Measures an index of many documents: time and memory to build, load and search, each in a process of its own.

python -m bench.studies.index_scale -o DIR [--documents 2000000] [--dim 256]

Vectors are random unit rows in float16, documents are short texts. DIR receives the vectors (1 GB by default), the
index, ``results.json`` and ``results.md``. Peaks are the process's largest resident set, mapped pages of files
included: the system takes those back when it needs them. The own peak excludes them. Runs on Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.files import write_json, write_text

PHASES = ("build", "load", "search 1", "search 100")
PIECE = 50_000
TEXT = "a short text of a document, as long as a paragraph's first sentence is, which stands for the others like it"


def space_of(dim: int) -> VectorSpace:
    return VectorSpace("synthetic", None, "0" * 64, "mean", True, "", "", dim)


class Documents(Sequence[tuple[str, str]]):
    """Any number of documents, made when they are needed."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, row: slice) -> list[tuple[str, str]]: ...
    def __getitem__(self, row: int | slice) -> tuple[str, str] | list[tuple[str, str]]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(self._count))]
        if not 0 <= row < self._count:
            raise IndexError(row)
        return f"d{row}", f"{row}: {TEXT}"


def write_vectors(path: Path, documents: int, dim: int) -> None:
    """Write random unit rows, float16 [documents, dim]."""
    dice = np.random.default_rng(0)
    matrix = np.lib.format.open_memmap(path, "w+", np.float16, (documents, dim))
    for start in range(0, documents, PIECE):
        rows = dice.standard_normal((min(PIECE, documents - start), dim), dtype=np.float32)
        matrix[start : start + PIECE] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    matrix.flush()


def status_mb(key: str) -> float:
    """Return a figure of this process's memory from Linux, in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith(f"{key}:"))


class OwnPeak:
    """Samples the memory that belongs to this process alone, every 5 ms, from a thread."""

    def __init__(self) -> None:
        self.mb = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._end.wait(0.005):
            self.mb = max(self.mb, status_mb("RssAnon"))

    def stop(self) -> float:
        self._end.set()
        self._thread.join()
        return max(self.mb, status_mb("RssAnon"))


def phase(name: str, folder: Path, dim: int) -> dict[str, float]:
    """Run one phase in this process."""
    from edgeleaf.search.index import Index

    space, target, watched = space_of(dim), folder / "index", OwnPeak()
    if name == "build":
        vectors = np.load(folder / "source.npy", mmap_mode="r")
        start = time.perf_counter()
        Index(space=space, documents=Documents(len(vectors)), vectors=vectors).save(target, force=True)
        seconds = time.perf_counter() - start
    else:
        start = time.perf_counter()
        index = Index.load(target)
        seconds = time.perf_counter() - start
        if name != "load":
            dice = np.random.default_rng(1)
            queries = dice.standard_normal((int(name.split()[1]), dim), dtype=np.float32)
            queries /= np.linalg.norm(queries, axis=1, keepdims=True)
            start = time.perf_counter()
            index.search(queries, space=space, k=10)
            seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 2), "peak_mb": round(status_mb("VmHWM")), "own_peak_mb": round(watched.stop())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for vectors, index and results")
    parser.add_argument("--documents", type=int, default=2_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder: Path = given.output
    if given.phase:
        sys.stdout.write(json.dumps(phase(given.phase, folder, given.dim)) + "\n")
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_vectors(folder / "source.npy", given.documents, given.dim)
    results: dict[str, dict[str, float]] = {}
    command = [sys.executable, "-m", "bench.studies.index_scale", "-o", str(folder), "--dim", str(given.dim)]
    for name in PHASES:
        done = subprocess.run([*command, "--phase", name], capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason"])[-1]
            sys.exit(f"{name}: ended with {done.returncode}: {last}")
        results[name] = json.loads(done.stdout)
    lines = [
        f"{given.documents:,} documents of {given.dim} numbers",
        "",
        "| | seconds | peak MB | own peak MB |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['seconds']} | {row['peak_mb']} | {row['own_peak_mb']} |" for name, row in results.items()
    ]
    write_json(folder / "results.json", {"documents": given.documents, "dim": given.dim, "phases": results})
    write_text(folder / "results.md", "\n".join(lines) + "\n")
    sys.stdout.write("\n".join(lines) + "\n" + json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
