"""Compares string input and UTF-8 byte input of the tokenizer's graph: time, size, load. See docs/decisions/0004.

    python -m bench.studies.byte_input [--save FOLDER]

Both are the library's own tokenizer graphs, as ``edgeleaf ship`` makes them with ``--input text`` and ``--input utf8``.
Behind the symbols they are the same. ``--save`` keeps both models for ``byte_input.mjs``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import onnx

from edgeleaf.bundle.feed import TEXT, UTF8, text_feed, utf8_feed
from edgeleaf.bundle.session import session
from edgeleaf.graph.tokenizers import as_model
from edgeleaf.graph.tokenizers.characters import code_points
from edgeleaf.graph.tokenizers.spec import reference_tokenizer
from edgeleaf.models.resolve import resolve

MAX_LENGTH = 128
REPEATS = 3000
TEXTS = {
    "4 tokens": "hello world",
    "12 tokens": "where is my parcel and who can tell me more ?",
    "12 tokens, accents": "où est mon colis café à Zürich ?",
    "35 tokens": "where is my parcel and who can tell how many people live in the unaffordable city of new york " * 2,
    "Japanese": "東京で寿司を食べたいのですがどこに行けばいいですか",
}


def main() -> int:
    """Print a table of times in microseconds, p50, both inputs taking turns; sizes, nodes, load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, help="also write string.onnx, bytes.onnx and texts.json")
    options = parser.parse_args()
    folder = resolve("sentence-transformers/all-MiniLM-L6-v2")
    tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
    inputs = {"string": TEXT, "bytes": UTF8}
    made = {name: as_model(tokenizer_json, max_length=MAX_LENGTH, takes=takes) for name, takes in inputs.items()}
    opened = {name: session(model.SerializeToString(), threads=1) for name, model in made.items()}
    calls = {
        "string": lambda text: opened["string"].run(None, text_feed([text])),
        "bytes": lambda text: opened["bytes"].run(None, utf8_feed([text])),
    }
    reference = reference_tokenizer(tokenizer_json, MAX_LENGTH)
    hard = [
        *TEXTS.values(),
        "[SEP] x[CLS]",
        "é\u0301 한국 👍🏽",
        *(f"a{c}b {c}" for c in code_points() if ord(c) % 61 == 7),
    ]
    wrong = sum(call(text)[0][0].tolist() != reference.encode(text).ids for call in calls.values() for text in hard)
    loads = {name: [] for name in made}
    for _ in range(15):
        for name, model in made.items():
            data, begin = model.SerializeToString(), time.perf_counter()
            session(data, threads=1)
            loads[name].append(1000 * (time.perf_counter() - begin))
    sys.stdout.write(f"both against tokenizers: {wrong} of {2 * len(hard):,} differ\n\n")
    sys.stdout.write("| input | nodes | kB | load, ms |\n|---|---|---|---|\n")
    for name, model in made.items():
        load = float(np.median(loads[name]))
        sys.stdout.write(f"| {name} | {len(model.graph.node)} | {model.ByteSize() / 1000:.0f} | {load:.1f} |\n")
    sys.stdout.write("\n| text | string, us | bytes, us | bytes / string |\n|---|---|---|---|\n")
    dice = random.Random(0)
    for name, text in TEXTS.items():
        times: dict[str, list[float]] = {kind: [] for kind in calls}
        order = list(calls)
        for _ in range(REPEATS):
            dice.shuffle(order)
            for kind in order:
                begin = time.perf_counter()
                calls[kind](text)
                times[kind].append(1e6 * (time.perf_counter() - begin))
        string, raw = (float(np.median(times[kind])) for kind in ("string", "bytes"))
        sys.stdout.write(f"| {name} | {string:.0f} | {raw:.0f} | {raw / string:.2f} |\n")
    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
        for name, model in made.items():
            onnx.save(model, str(options.save / f"{name}.onnx"))
        (options.save / "texts.json").write_text(json.dumps(TEXTS, ensure_ascii=False), encoding="utf-8")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
