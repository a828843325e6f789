"""Measures the memory and time that a bundle's file needs for one text of 10 MB.

    python -m bench.studies.long_text BUNDLE

Each case runs in its own process. "plain" passes the text to the graph, as any program would; "encoder" uses
``QueryEncoder``, which first removes the parts that cannot affect the tokens (edgeleaf/bundle/long_texts.py). Linux
only.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from edgeleaf import QueryEncoder

SIZE = 10_000_000
PIECES = {
    "words": "where is my parcel ",
    "one endless word": "x",
    "ideographs": "中",
    "emoji": "😀",
    "spaces": " ",
    "U+200B, which is deleted": "\u200b",
    "mixed": "hello, Wörld 中 [SEP] 🎉 don't ",
}


def measure(bundle: Path, way: str, kind: str) -> None:
    """Print how much the peak resident set of this process grows in one call, in MB, and the call's time in seconds."""
    encoder = QueryEncoder.load(bundle)
    encoder.encode(["a short text"])
    if way == "plain":
        encoder._long_texts = None
    piece = PIECES[kind]
    text = piece * (SIZE // len(piece.encode()))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _kilobytes("VmRSS")
    start = time.perf_counter()
    encoder.encode([text])
    seconds = time.perf_counter() - start
    sys.stdout.write(f"{(_kilobytes('VmHWM') - before) / 1024:.0f} {seconds:.2f}\n")


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def main() -> int:
    """Print a table of texts, with MB and seconds for each way."""
    if len(sys.argv) == 4:
        measure(Path(sys.argv[1]), *sys.argv[2:])
        return 0
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m bench.studies.long_text BUNDLE\n")
        return 2
    sys.stdout.write("| 10 MB of | plain: MB, s | encoder: MB, s |\n|---|---|---|\n")
    for kind in PIECES:
        cells = []
        for way in ("plain", "encoder"):
            command = [sys.executable, "-m", "bench.studies.long_text", sys.argv[1], way, kind]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            cells.append(", ".join(ran.stdout.split()))
        sys.stdout.write(f"| {kind} | {cells[0]} | {cells[1]} |\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
