"""The tokenizers of every family in other runtimes: writes graphs, texts and the ids of `tokenizers`, and checks them.

    EDGELEAF_DATA=... python -m bench.studies.tokenizer_runtimes FOLDER [--family NAME ...] [--texts N]
    python -m bench.studies.tokenizer_runtimes FOLDER --check [--every N]
    python -m edgeleaf.emulation armv8.2-dotprod -- -m bench.studies.tokenizer_runtimes FOLDER --check --every 10
    cd web_demo && node ../bench/studies/tokenizer_runtimes.mjs FOLDER

The first writes NAME.onnx and NAME.jsonl for every vocabulary: as many texts of every set of the parity study. The
others compare ids and attention masks: in this Python, on an emulated processor (``--check`` needs only numpy and
onnxruntime), in onnxruntime-node and in onnxruntime-web. U+0000 is replaced, as onnxruntime-node cuts strings there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

BATCH = 32
LONGEST = 2_000
"""Characters; longer texts are left out."""


def write(folder: Path, data: Path, families: list[str], texts: int) -> None:
    """Write graphs, texts and ids."""
    from bench.studies.tokenizer_parity import MAX_LENGTH
    from bench.studies.tokenizer_texts import text_sets
    from bench.studies.tokenizer_vocabularies import FAMILIES, special_tokens
    from edgeleaf.graph.tokenizers import as_model
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    for family in families:
        for name, tokenizer in FAMILIES[family](data):
            file = folder / f"{family}-{re.sub('[^a-z0-9]+', '-', name.lower())}"
            file.with_suffix(".onnx").write_bytes(as_model(tokenizer, max_length=MAX_LENGTH).SerializeToString())
            reference = reference_tokenizer(tokenizer, MAX_LENGTH)
            with file.with_suffix(".jsonl").open("w", encoding="utf-8") as lines:
                for make in text_sets(data, 37, 1, special_tokens(tokenizer)).values():
                    short = (text.replace("\0", "\ufffd") for text in make() if len(text) <= LONGEST)
                    for text in islice(short, texts):
                        entry = {"text": text, "input_ids": reference.encode(text).ids}
                        lines.write(json.dumps(entry) + "\n")


def check(folder: Path, every: int) -> dict[str, dict[str, int]]:
    """Return by vocabulary how many of every N-th texts were tried, and how many differ."""
    found = {}
    for file in sorted(folder.glob("*.onnx")):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
        with file.with_suffix(".jsonl").open(encoding="utf-8") as lines:
            entries = [json.loads(line) for line in islice(lines, 0, None, every)]
        wrong = 0
        for start in range(0, len(entries), BATCH):
            wrong += _different(session, entries[start : start + BATCH])
        found[file.stem] = {"texts": len(entries), "mismatches": wrong}
    return found


def _different(session: Any, entries: list[dict[str, Any]]) -> int:
    texts = np.array([entry["text"] for entry in entries], dtype=object)
    ids, mask = session.run(["input_ids", "attention_mask"], {"text": texts})
    wanted = [entry["input_ids"] for entry in entries]
    return sum(row[ones == 1].tolist() != right for row, ones, right in zip(ids, mask, wanted, strict=True))


def main() -> int:
    """Write a folder, or check one and print JSON; return 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", action="append", help="only this one; may be repeated")
    parser.add_argument("--texts", type=int, default=200, help="texts of every set")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--every", type=int, default=1, help="compare only every N-th text")
    options = parser.parse_args()
    if options.check:
        found = check(options.folder, options.every)
        sys.stdout.write(json.dumps({"runtime": f"onnxruntime {ort.__version__}", "vocabularies": found}) + "\n")
        return int(not found or any(counts["mismatches"] for counts in found.values()))
    from bench.studies.tokenizer_vocabularies import FAMILIES
    from edgeleaf.errors import EdgeleafError

    data = os.environ.get("EDGELEAF_DATA")
    if not data:
        sys.stderr.write("EDGELEAF_DATA is not set: point it to the folder with texts/ and unicode/\n")
        return 2
    if unknown := [family for family in options.family or () if family not in FAMILIES]:
        parser.error(f"--family {unknown[0]}: one of {', '.join(FAMILIES)}")
    try:
        write(options.folder, Path(data), options.family or list(FAMILIES), options.texts)
    except EdgeleafError as error:
        sys.stderr.write(f"tokenizer_runtimes: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
