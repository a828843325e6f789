"""What one very long text costs: memory and time of a bundle's file for 10 MB of text.

    python -m bench.studies.long_text BUNDLE

Each case runs in a process of its own. "plain" gives the text to the graph as any program would; "encoder" is
``QueryEncoder``, which first leaves out what cannot matter (edgeleaf/bundle/long_texts.py). Linux only.
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
    """Print how far the largest resident set of this process grows, in MB, and the seconds of one call."""
    encoder = QueryEncoder.load(bundle)
    encoder.encode(["a short text"])
    if way == "plain":
        encoder._long_texts = None
    piece = PIECES[kind]
    text = piece * (SIZE // len(piece.encode()))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _kilobytes("VmRSS")
    start = time.perf_counter()
    encoder.encode([text])
    seconds = time.perf_counter() - start
    sys.stdout.write(f"{(_kilobytes('VmHWM') - before) / 1024:.0f} {seconds:.2f}\n")


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def main() -> int:
    """Print a table: text, MB and seconds of both ways."""
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
