"""Times the Kotlin library on this machine's JVM beside Python: from a text to its vector, and to ten hits.

    python android_demo/tools/benchmark.py [--calls N] [--json FILE]

Needs what ``android_demo/tools/fixtures.py`` and ``mvn -f android_demo/edgeleaf test-compile`` write. Prints a table.
Each case runs in a process of its own, with one thread, Python and the JVM taking turns; the first fifth of the calls
is not counted. Documents are random unit vectors, so this says nothing about their ranking.

    p50, p95     milliseconds a call
    first        milliseconds from the start of the process to the first result, imports and opening included
    peak         megabytes of memory at most (VmHWM): it counts the pages of the mapped index that were read
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "android_demo" / "out" / "fixtures"
LIBRARY = ROOT / "android_demo" / "edgeleaf"
CASES = (
    ("encode alone", 0, 0),
    ("10,000 documents of 768 numbers", 10_000, 768),
    ("100,000 documents of 256", 100_000, 256),
)
LONGEST_TEXT = 100


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the Kotlin library beside Python.")
    parser.add_argument("--calls", type=int, default=1_000, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--python", nargs="+", help=argparse.SUPPRESS, metavar="ARGUMENT")
    options = parser.parse_args()
    if options.python:
        sys.stdout.write(json.dumps(time_python(*options.python)) + "\n")
        return
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder, "texts.txt")
        texts.write_text("\n".join(texts_of_pack()), encoding="utf-8")
        for name, documents, width in CASES:
            index = write_index(Path(folder, f"index-{documents}"), documents, width) if documents else ""
            arguments = [str(FIXTURES / "pack" / "query_encoder.onnx"), str(texts), str(options.calls), str(index)]
            figures[name] = {
                "jvm": last_line(["java", "-Xmx128m", "-cp", classpath(), "io.github.edgeleaf.Benchmark", *arguments]),
                "python": last_line([sys.executable, __file__, "--python", *arguments]),
            }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write("| | runtime | p50 ms | p95 ms | first ms | peak MB |\n|---|---|---|---|---|---|\n")
    for name, runtimes in figures.items():
        for runtime, found in runtimes.items():
            numbers = (found["p50_ms"], found["p95_ms"], found["first_ms"], found["peak_mb"])
            sys.stdout.write(
                f"| {name} | {runtime} | {numbers[0]:.2f} | {numbers[1]:.2f} | {numbers[2]:.0f} | {numbers[3]:.0f} |\n"
            )


def texts_of_pack() -> list[str]:
    lines = (FIXTURES / "pack" / "golden.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line).get("text", "") for line in lines]
    return [text for text in texts if text.strip() and text.isprintable() and len(text) < LONGEST_TEXT]


def write_index(folder: Path, documents: int, width: int) -> Path:
    sys.path.insert(0, str(ROOT))
    import numpy as np

    from edgeleaf.bundle.space import VectorSpace
    from edgeleaf.search import Index

    line = (FIXTURES / "spaces.jsonl").read_text(encoding="utf-8").splitlines()[0]
    space = VectorSpace.read(json.loads(line)["space"])
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(documents, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pca = None
    if width != space.dim:
        pca = np.linalg.qr(chance.normal(size=(space.dim, width)))[0].astype(np.float32)
    pairs = [(f"d{row}", f"Document {row}, which is about a parcel. " * 4) for row in range(documents)]
    Index(space=space, documents=pairs, vectors=vectors.astype(np.float16), pca=pca).save(folder)
    return folder


def classpath() -> str:
    file = LIBRARY / "target" / "classpath.txt"
    if not file.is_file():
        command = ["mvn", "-q", "-B", "-f", str(LIBRARY), "dependency:build-classpath", "-DincludeScope=test"]
        subprocess.run([*command, f"-Dmdep.outputFile={file}"], check=True)
    parts = [str(LIBRARY / "target" / "test-classes"), str(LIBRARY / "target" / "classes")]
    return os.pathsep.join([*parts, file.read_text(encoding="utf-8").strip()])


def last_line(command: list[str]) -> dict[str, Any]:
    output = subprocess.run([part for part in command if part], check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def time_python(encoder_file: str, texts_file: str, calls: str, index_folder: str = "") -> dict[str, float]:
    sys.path.insert(0, str(ROOT))
    from edgeleaf.bundle.encoder import QueryEncoder

    texts = Path(texts_file).read_text(encoding="utf-8").splitlines()
    encoder = QueryEncoder.load(encoder_file)
    opening = time.perf_counter()
    index = None
    if index_folder:
        from edgeleaf.search.index import Index

        index = Index.load(index_folder)
    open_index_ms = 1e3 * (time.perf_counter() - opening)

    def call(text: str) -> None:
        vectors = encoder.encode([text])
        if index is not None:
            index.search(vectors, space=encoder.space)

    call(texts[0])
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rsplit(") ", 1)[1].split()[19])
    up = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    first_ms = 1e3 * (up - ticks / os.sysconf("SC_CLK_TCK"))
    count = int(calls)
    for number in range(count // 5):
        call(texts[number % len(texts)])
    times = []
    for number in range(count):
        start = time.perf_counter()
        call(texts[number % len(texts)])
        times.append(1e3 * (time.perf_counter() - start))
    times.sort()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return {
        "p50_ms": times[count // 2],
        "p95_ms": times[count * 95 // 100],
        "first_ms": first_ms,
        "open_index_ms": open_index_ms,
        "peak_mb": int(status.split("VmHWM:")[1].split()[0]) / 1024,
    }


if __name__ == "__main__":
    main()
