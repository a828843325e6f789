"""Measures time and memory of the stages that handle texts, at the size of the largest recipe: 3.2 million texts.

    EDGELEAF_DATA=DATA python -m bench.studies.texts_scale -o out/texts-scale [--recipe RECIPE]

The texts are those of export/recipes/mpnet-gpu.toml. The teacher is a placeholder that gives pseudo-random unit vectors
of 64 numbers, so that the work around it is measured. Every step runs in a process of its own. Peak memory is what the
process allocated itself (``anonymous``), and that plus the pages of files that it read (``resident``), which the system
takes back when it needs them. Prints a table and writes ``texts_scale.json`` and ``texts_scale.md``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.tables import markdown_table
from edgeleaf.bundle.machine import machine
from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.files import write_json, write_text
from edgeleaf.models.resolve import resolve
from edgeleaf.recipe.reading import read_recipe
from edgeleaf.recipe.sources import Kind
from edgeleaf.texts.corpus import read_corpus

RECIPE = Path(__file__).parents[2] / "export" / "recipes" / "mpnet-gpu.toml"
DIM = 64
STEPS = {
    "texts": "texts: collected from their sources",
    "count": "counted",
    "preflight": "looked at before the long work",
    "vectors": "vectors: written by a teacher that costs nothing",
    "vectors again": "vectors: all of them in the cache",
    "training": "read as training does, all of them once",
}
CHUNK = 65536
EVERY_S = 0.02


class Synthetic:
    """A teacher that costs nothing: a text's vector is pseudo-random, and the same text always gets the same vector."""

    max_length, precision, batch_size = 128, "", 32
    space = VectorSpace(
        teacher="synthetic",
        revision=None,
        weights_sha256="0" * 64,
        pooling="none",
        normalized=True,
        query_prompt="",
        document_prompt="",
        dim=DIM,
    )

    def encode(self, texts: Sequence[str], *, kind: Kind) -> npt.NDArray[np.float32]:
        """Return float32 [len(texts), 64], unit L2 norm."""
        seeds = [zlib.crc32(text.encode()) for text in texts]
        rows = [np.random.Generator(np.random.SFC64(seed)).standard_normal(DIM, dtype=np.float32) for seed in seeds]
        vectors = np.stack(rows)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    output, recipe = arguments.output.resolve(), arguments.recipe.resolve()
    if arguments.step:
        sys.stdout.write(json.dumps(measured(arguments.step, output, recipe)) + "\n")
        return
    output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for step in STEPS:
        command = [sys.executable, "-m", "bench.studies.texts_scale", "-o", str(output), "--recipe", str(recipe)]
        done = subprocess.run([*command, "--step", step], stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout))
        sys.stderr.write(done.stdout)
    write_json(output / "texts_scale.json", {"machine": machine(), "recipe": recipe.stem, "steps": rows})
    head = ["step", "seconds", "processor seconds", "anonymous MiB", "resident MiB"]
    numbers = {"seconds": 1, "processor_seconds": 1, "anonymous_mib": 0, "resident_mib": 0}
    body = [[STEPS[row["step"]], *(f"{row[name]:.{digits}f}" for name, digits in numbers.items())] for row in rows]
    table = f"{rows[1]['result']:,} training texts of `{recipe.stem}`.\n\n{markdown_table(head, body)}"
    write_text(output / "texts_scale.md", table.rstrip() + "\n")
    sys.stdout.write(table.rstrip() + "\n")


def measured(step: str, output: Path, recipe: Path) -> dict[str, Any]:
    """Run one step in this process; return its seconds and its peak memory."""
    peak = [0.0]

    def watch() -> None:
        while True:
            peak[0] = max(peak[0], anonymous_mib())
            time.sleep(EVERY_S)

    threading.Thread(target=watch, daemon=True).start()
    start = time.perf_counter()
    result = run_step(step, output, recipe)
    seconds = time.perf_counter() - start
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    used = resource.getrusage(resource.RUSAGE_SELF)
    resident = used.ru_maxrss / unit
    return {
        "step": step,
        "seconds": round(seconds, 2),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 2),
        "anonymous_mib": round(max(peak[0], anonymous_mib()), 1),
        "resident_mib": round(resident, 1),
        "result": result,
    }


def anonymous_mib() -> float:
    """Return the memory that belongs to this process alone; 0 if the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(fields.get("RssAnon", "0 kB").split()[0]) / 1024


def run_step(step: str, output: Path, recipe: Path) -> int:
    """Do the work of a stage; return a number that shows it was done."""
    spec = read_recipe(recipe)
    texts, vectors, cache = (output / name for name in ("texts", "vectors", "cache"))
    if step == "texts":
        from edgeleaf.stages.texts import collect_texts

        collect_texts(texts, spec.texts, spec.seed, recipe.parent)
    elif step == "preflight":
        from edgeleaf.pipeline.preflight import look_at_texts

        teacher: Any = SimpleNamespace(folder=resolve(spec.student.model))
        look_at_texts(texts, spec, teacher)
    elif step.startswith("vectors"):
        from edgeleaf.stages.vectors import write_vectors

        write_vectors(vectors, texts, Synthetic(), cache, names=("held_out", "train"))
    elif step == "training":
        from edgeleaf.stages.student import Prompted

        prompted = Prompted(read_corpus(texts, "train"), {"query": "", "document": ""})
        matrix = np.load(vectors / "train.npy", mmap_mode="r")
        starts = range(0, len(prompted), CHUNK)
        return sum(
            sum(map(len, prompted[start : start + CHUNK])) + len(matrix[start : start + CHUNK]) for start in starts
        )
    return len(read_corpus(texts, "train"))


if __name__ == "__main__":
    main()
