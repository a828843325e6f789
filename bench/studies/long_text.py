"""Measures the memory and time that a file needs for one text of 10 MB.

    python -m bench.studies.long_text BUNDLE
    EDGELEAF_DATA=... python -m bench.studies.long_text --family NAME [--family NAME ...] [--kind TEXT ...]

Each case runs in its own process. With a bundle, "plain" passes the text to the graph, as any program would; "encoder"
uses ``QueryEncoder``, which first removes the parts that cannot affect the tokens (edgeleaf/bundle/long_texts.py). With
families of tokenizers (tokenizer_vocabularies.py), each one's first vocabulary is measured, as a graph without an
encoder, with the same two ways. Linux only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.studies.tokenizer_vocabularies import FAMILIES
from edgeleaf import QueryEncoder
from edgeleaf.bundle.feed import text_feed
from edgeleaf.bundle.long_texts import LongTexts
from edgeleaf.bundle.session import session
from edgeleaf.errors import EdgeleafError
from edgeleaf.graph.tokenizers import as_model

SIZE = 10_000_000
MAX_LENGTH = 128
PIECES = {
    "words": "where is my parcel ",
    "Russian words": "где моя посылка ",
    "Chinese sentences": "我的包裹在哪里？我不知道。",
    "one endless word": "x",
    "ideographs": "中",
    "emoji": "😀",
    "spaces": " ",
    "U+200B, which is deleted": "\u200b",
    "mixed": "hello, Wörld 中 [SEP] 🎉 don't ",
}
WAYS = ("plain", "encoder")
LONGEST_S = 120
"""A case that takes longer is given up."""


def measure(file: Path, way: str, kind: str) -> None:
    """Print how much the peak resident set of this process grows in one call, in MB, and the call's time in seconds."""
    call = _call(file, way)
    call("a short text")
    piece = PIECES[kind]
    text = piece * (SIZE // len(piece.encode()))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _kilobytes("VmRSS")
    start = time.perf_counter()
    call(text)
    seconds = time.perf_counter() - start
    sys.stdout.write(f"{(_kilobytes('VmHWM') - before) / 1024:.0f} {seconds:.2f}\n")


def _call(file: Path, way: str) -> Callable[[str], object]:
    if file.is_dir():
        encoder = QueryEncoder.load(file)
        if way == "plain":
            encoder._long_texts = None
        return lambda text: encoder.encode([text])
    opened = session(file, threads=0)
    long_texts = LongTexts.read(opened.get_modelmeta().custom_metadata_map)
    if way == "plain" or long_texts is None:
        return lambda text: opened.run(None, text_feed([text]))
    return lambda text: opened.run(None, text_feed([long_texts.shortened(text)]))


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def _cell(file: Path, way: str, kind: str) -> str:
    command = [sys.executable, "-m", "bench.studies.long_text", str(file), "--case", way, kind]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        return f"over {LONGEST_S} s"
    return f"ended with {ran.returncode}" if ran.returncode else ", ".join(ran.stdout.split())


def main() -> int:
    """Print a table of texts, with MB and seconds for each way or vocabulary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="the folder of a bundle")
    parser.add_argument("--family", action="append", choices=FAMILIES, help="a family's first tokenizer")
    parser.add_argument("--kind", action="append", choices=PIECES, help="only this kind of text; may be repeated")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if (options.bundle is None) == (options.family is None):
        parser.error("pass a bundle or --family")
    if options.case:
        measure(options.bundle, *options.case)
        return 0
    if options.bundle:
        _print(options.kind or PIECES, {f"{way}: MB, s": (options.bundle, way) for way in WAYS})
        return 0
    data = os.environ.get("EDGELEAF_DATA")
    if not data:
        sys.stderr.write("EDGELEAF_DATA is not set: point it to the folder with texts/ and unicode/\n")
        return 2
    try:
        with tempfile.TemporaryDirectory() as folder:
            columns = {}
            for family in options.family:
                name, tokenizer = next(iter(FAMILIES[family](Path(data))))
                file = Path(folder) / f"{family}.onnx"
                file.write_bytes(as_model(tokenizer, max_length=MAX_LENGTH).SerializeToString())
                columns |= {f"{name}, {way}: MB, s": (file, way) for way in WAYS}
            _print(options.kind or PIECES, columns)
    except EdgeleafError as error:
        sys.stderr.write(f"long_text: {error}\n")
        return 2
    return 0


def _print(kinds: Iterable[str], columns: dict[str, tuple[Path, str]]) -> None:
    sys.stdout.write(f"| 10 MB of | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}\n")
    for kind in kinds:
        sys.stdout.write(f"| {kind} | {' | '.join(_cell(file, way, kind) for file, way in columns.values())} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
