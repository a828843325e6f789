"""Measures the memory of `edgeleaf index` and of training at millions of vectors, and reckons larger jobs.

    python -m bench.studies.scale -o DIR [--documents 2000000] [--keep bench/scale]
    python -m bench.studies.scale --reckon bench/scale.json

The documents are short texts. Everything is the product's own code: `edgeleaf index` with the repository's bundle makes
a folder of vectors of 768 numbers, is run again with the same documents, and again with a hundredth of them changed;
ten queries are asked; and a student (all-MiniLM-L6-v2) is trained on the index's vectors for its first steps. Only the
teacher is a stand-in that costs nothing: it gives one of 4,096 random unit vectors per text, and calls no text too
long. Each step runs in a process of its own, at a quarter, a half and all of the documents. *Own* memory is what a
process allocated itself (RssAnon); pages of files that it mapped come on top, and the system takes those back when it
needs them. Times are the processor's. DIR needs 11 GB for 2,000,000 documents; what is written there is removed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.studies.index_scale import TEXT, status_mb
from bench.tables import markdown_table
from edgeleaf.bundle.machine import machine
from edgeleaf.bundle.manifest import Manifest, VectorSpace
from edgeleaf.files import write_json, write_text
from edgeleaf.recipe.sources import Kind

BUNDLE = Path(__file__).parents[2] / "export" / "models" / "mpnet"
"""Its vector space is that of the index; nothing else of it is used."""
STEPS = {
    "new": "`edgeleaf index`, a new store",
    "again": "the same documents again",
    "changed": "a hundredth of them changed",
    "search": "index opened, ten queries",
    "training": "training, its first 40 steps",
}
CHANGED = 100
"""Every document whose number is divisible by this changes."""
PARTS = (4, 2, 1)
"""Measured at all documents divided by these."""
EVERY_S = 0.05
POOL = 4096
TRAINING_STEPS, TRAINING_BATCH = 40, 16
STUDENT = "sentence-transformers/all-MiniLM-L6-v2"
H100_TOKENS_PER_S = 1.2e6
"""all-mpnet-base-v2 on an H100 (docs/log/training.md, 26 November)."""
H100_TRAINING_TOKENS_PER_S = 1.0e6
"""LEAF from all-MiniLM-L6-v2 on the same card (the same entry)."""
DOLLARS = {"H100 hour": 3.0, "processor hour": 0.05, "GB month": 0.023}
"""Assumptions, not measurements: what clouds ask for on demand in 2026, rounded. Put your own in."""
TOKENS_PER_DOCUMENT, CHARACTERS_PER_TOKEN = 128, 4
JOBS = (1_000_000, 100_000_000, 10_000_000_000)


class Free:
    """A teacher that costs nothing: the same text always gets the same of a few vectors.

    Args:
        space: the space that its vectors pretend to be in.
    """

    max_length, precision, batch_size, device, folder = 128, "", 32, "none", None

    def __init__(self, space: VectorSpace) -> None:
        self.space = space
        rows = np.random.default_rng(0).standard_normal((POOL, space.dim), dtype=np.float32)
        self._rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode(self, texts: Sequence[str], *, kind: Kind) -> npt.NDArray[np.float32]:
        """Return float32 [len(texts), dim], unit L2 norm."""
        return self._rows[[zlib.crc32(text.encode()) % POOL for text in texts]]

    def widened(self, *, at_least: int) -> Wide:
        return Wide()


class Wide:
    """A window that nothing is longer than: a real one counts tokens, which takes time and no memory."""

    tokens = 1 << 20

    def longer(self, texts: Sequence[str]) -> list[int]:
        return []


def indexed(corpus: Path, target: Path) -> dict[str, int]:
    """Run `edgeleaf index` with the stand-in, and return how many passages were encoded, unchanged and deleted."""
    from edgeleaf.pipeline import index

    index.teacher_of = lambda manifest: Free(manifest.space)  # type: ignore[assignment,return-value]
    made = index.make_index(BUNDLE, corpus, output=target)
    made.index.close()
    return {name: getattr(made.counts, name) for name in ("encoded", "unchanged", "deleted")}


class Numbered(Sequence[str]):
    """The documents' texts, made when they are needed."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [f"{one}: {TEXT}" for one in range(*row.indices(self._count))]
        return f"{row}: {TEXT}"


class Curve:
    """Samples this process's own memory from a thread."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []
        self._start, self._end = time.perf_counter(), threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._end.wait(EVERY_S):
            self.points.append((round(time.perf_counter() - self._start, 2), status_mb("RssAnon")))

    def stop(self) -> list[tuple[float, float]]:
        """Return (seconds, MB), thinned to two hundred points that keep each stretch's peak."""
        self._end.set()
        self.points.append((round(time.perf_counter() - self._start, 2), status_mb("RssAnon")))
        piece = max(1, len(self.points) // 200)
        return [max(self.points[i : i + piece], key=lambda point: point[1]) for i in range(0, len(self.points), piece)]


def run_step(name: str, folder: Path, count: int) -> float:
    """Do a step in this process and return the seconds of its work alone."""
    from edgeleaf.search import open_store

    corpus, target = folder / "corpus.jsonl", folder / "index"
    start = time.perf_counter()
    if name == "search":
        space = Manifest.read(BUNDLE).space
        queries = Free(space).encode([str(n) for n in range(10)], kind="query")
        store = open_store(target)
        assert len(store) == count and len(store.search(queries, space=space, k=10)[0]) == 10
    elif name == "training":
        return train_a_little(folder / "training", np.load(target / "vectors.npy", mmap_mode="r"))
    else:
        encoded = {"new": count, "again": 0, "changed": -(-count // CHANGED)}[name]
        assert indexed(corpus, target) == {"encoded": encoded, "unchanged": count - encoded, "deleted": 0}
    return time.perf_counter() - start


def train_a_little(folder: Path, vectors: npt.NDArray[Any]) -> float:
    """Train for a few steps on all texts; return the seconds."""
    from edgeleaf.models.resolve import resolve
    from edgeleaf.recipe.specs import ObjectiveSpec
    from edgeleaf.training.student import build_student
    from edgeleaf.training.trainer import Examples, train

    model, texts = build_student(resolve(STUDENT), dim=vectors.shape[1], max_length=32), Numbered(len(vectors))
    epochs = TRAINING_STEPS / -(-len(texts) // TRAINING_BATCH)
    spec = ObjectiveSpec(epochs=epochs, batch_size=TRAINING_BATCH, learning_rate=1e-5, checkpoint_steps=10**6)
    held_out = Examples(texts[:32], vectors[:32])
    start = time.perf_counter()
    train(model, Examples(texts, vectors), held_out, objective=spec, seed=0, checkpoints=folder)
    return time.perf_counter() - start


def write_corpus(path: Path, count: int, *, changed: bool = False) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for row in range(count):
            more = " and more" if changed and row % CHANGED == 0 else ""
            stream.write(f'{{"_id": "d{row}", "text": "{row}: {TEXT}{more}"}}\n')


def measure(folder: Path, documents: int) -> dict[str, Any]:
    """Run every step at every size, each in a process of its own."""
    rows, run = [], folder / "run"
    for part in PARTS:
        count = documents // part
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True)
        for name in STEPS:
            if name in ("new", "changed"):
                write_corpus(run / "corpus.jsonl", count, changed=name == "changed")
            command = [sys.executable, "-m", "bench.studies.scale", "-o", str(run), "--documents", str(count)]
            done = subprocess.run([*command, "--step", name], stdout=subprocess.PIPE, text=True, check=True)
            row = json.loads(done.stdout)
            if count < documents:
                del row["curve"]  # only that of the full size is drawn
            rows.append({"documents": count, "step": name, **row})
            sys.stderr.write(
                f"{count:,} {name}: {row['processor_seconds']} s of a processor, own {row['own_peak_mb']} MB\n"
            )
        shutil.rmtree(run, ignore_errors=True)
    dim = Manifest.read(BUNDLE).space.dim
    return {"machine": machine(), "documents": documents, "dim": dim, "steps": rows}


def table_of(results: dict[str, Any]) -> str:
    """Return a row per step: own memory at each size, and its growth from the smallest to the largest."""
    sizes = [results["documents"] // part for part in PARTS]
    found = {(row["step"], row["documents"]): row for row in results["steps"]}
    body = []
    for name, label in STEPS.items():
        peaks = [found[name, size]["own_peak_mb"] for size in sizes]
        grown = (peaks[-1] - peaks[0]) * 1e6 / (sizes[-1] - sizes[0])
        body.append([label, *(f"{peak:,.0f}" for peak in peaks), f"{grown:.0f}"])
    vectors = [f"{size * results['dim'] * 2 / 1e6:,.0f}" for size in sizes]
    body.append(["the vectors, on disk", *vectors, str(results["dim"] * 2)])
    return markdown_table(["step", *(f"{size:,}" for size in sizes), "bytes per further document"], body)


def plot(results: dict[str, Any], path: Path) -> None:
    from edgeleaf import quiet

    quiet.matplotlib_files()
    from matplotlib.figure import Figure

    sizes = [results["documents"] // part for part in PARTS]
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in STEPS:
        points = {row["documents"]: row for row in results["steps"] if row["step"] == name}
        left.plot(
            [size / 1e6 for size in sizes], [points[size]["own_peak_mb"] for size in sizes], marker=".", label=name
        )
        curve = points[sizes[-1]]["curve"]
        whole = curve[-1][0] or 1
        right.plot([100 * x / whole for x, _ in curve], [y for _, y in curve], label=name)
    left.plot(
        [size / 1e6 for size in sizes], [size * results["dim"] * 2 / 1e6 for size in sizes], "k--", label="vectors"
    )
    left.set(xlabel="documents, millions", ylabel="own memory, peak, MB", ylim=(0, None))
    right.set(xlabel="share of a step's time, %", ylabel="own memory, MB", ylim=(0, None))
    right.set_title(f"{sizes[-1]:,} documents of {results['dim']} numbers", fontsize="medium")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def reckon(results: dict[str, Any]) -> str:
    """Return tables of time, disk and money for larger jobs, from the measured rates."""
    full = {row["step"]: row for row in results["steps"] if row["documents"] == results["documents"]}
    around = full["new"]["processor_seconds"] / results["documents"]
    vector = results["dim"] * 2
    text = TOKENS_PER_DOCUMENT * CHARACTERS_PER_TOKEN
    body = []
    for count in JOBS:
        card_hours = count * TOKENS_PER_DOCUMENT / H100_TOKENS_PER_S / 3600
        driver_hours = count * around / 3600
        index, work = count * (vector + text), count * (2 * vector + 2 * text)
        money = card_hours * DOLLARS["H100 hour"] + driver_hours * DOLLARS["processor hour"]
        body.append(
            [
                f"{count:,}",
                amount(card_hours),
                amount(card_hours / 64),
                amount(driver_hours),
                size(index),
                size(work),
                f"{money:,.0f}",
                f"{index / 1e9 * DOLLARS['GB month']:,.2f}",
            ]
        )
    head = ["documents", "one H100", "64 of them", "driver", "index", "temporary files", "$ once", "$ per month"]
    steps = TRAINING_TOKENS / H100_TRAINING_TOKENS_PER_S
    return (
        f"{markdown_table(head, body)}\n"
        f"Training does not grow with the index: a student sees {TRAINING_TOKENS:.0e} tokens, "
        f"{amount(steps / 3600)} on an H100, ${steps / 3600 * DOLLARS['H100 hour']:.2f}.\n"
    )


TRAINING_TOKENS = 2.6e8
"""Five epochs of the 51 million tokens of export/recipes/mpnet-gpu.toml."""


def amount(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:,.1f} h" if hours < 48 else f"{hours / 24:,.0f} days"


def size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count < 1e12 else f"{count / 1e12:,.1f} TB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="folder to work in")
    parser.add_argument("--documents", type=int, default=2_000_000)
    parser.add_argument("--keep", type=Path, help="write NAME.json and NAME.png")
    parser.add_argument("--reckon", type=Path, help="print the tables of larger jobs from a results file")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.reckon:
        sys.stdout.write(reckon(json.loads(given.reckon.read_text(encoding="utf-8"))))
        return
    if given.output is None:
        parser.error("-o DIR is needed")
    if given.step:
        curve = Curve()
        before = time.process_time()
        seconds = run_step(given.step, given.output, given.documents)
        used = time.process_time() - before
        points = curve.stop()
        row = {
            "seconds": round(seconds, 2),
            "processor_seconds": round(used, 2),
            "own_peak_mb": round(max(y for _, y in points)),
            "peak_mb": round(status_mb("VmHWM")),
            "curve": [[x, round(y)] for x, y in points],
        }
        sys.stdout.write(json.dumps(row) + "\n")
        return
    results = measure(given.output, given.documents)
    table = table_of(results)
    keep = given.keep or given.output / "scale"
    write_json(keep.with_suffix(".json"), results)
    plot(results, keep.with_suffix(".png"))
    write_text(given.output / "scale.md", table)
    sys.stdout.write(table)


if __name__ == "__main__":
    main()
