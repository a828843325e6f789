"""Does the graph always give the token ids of `tokenizers`? Prints a table of all sets of texts and vocabularies.

    EDGELEAF_DATA=... python -m bench.studies.tokenizer_parity [--family NAME ...] [-o FILE.json] [--every N]

The families and their vocabularies are those of tokenizer_vocabularies.py, the texts those of tokenizer_texts.py. Ids
and attention masks are compared in batches of mixed lengths; a run with any difference ends with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from bench.studies.tokenizer_texts import Sets, text_sets
from bench.studies.tokenizer_vocabularies import FAMILIES, special_tokens
from edgeleaf.errors import EdgeleafError
from edgeleaf.graph.tokenizers import as_model
from edgeleaf.graph.tokenizers.spec import parse, read_spec, reference_tokenizer

MAX_LENGTH = 128
BATCH = 512
CHARACTERS = 200_000
"""A batch is full with so many texts, or so many characters, padding included."""
EXAMPLES = 3


def every_english(family: str, name: str) -> int:
    """How many times fewer English texts a vocabulary gets: BERT's own get all of them."""
    if family == "wordpiece":
        return 1 if name.startswith("all-") else 10
    return 10 if family == "byte-level" else 4


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield the texts in batches, none of them empty."""
    batch: list[str] = []
    longest = 0
    for text in texts:
        if len(batch) == BATCH or (batch and (len(batch) + 1) * max(longest, len(text)) > CHARACTERS):
            yield batch
            batch, longest = [], 0
        batch.append(text)
        longest = max(longest, len(text))
    if batch:
        yield batch


def mismatches(tokenizer: dict[str, Any], graph: bytes, sets: Sets) -> dict[str, dict[str, Any]]:
    """Compare a tokenizer with its graph on every set; return the texts tried, and the first that differ."""
    import onnxruntime as ort

    pad = read_spec(parse(tokenizer)).pad_id
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph, options)
    reference = reference_tokenizer(tokenizer, MAX_LENGTH)
    found = {}
    for name, make in sets.items():
        tried, wrong = 0, []
        for batch in batches(make()):
            ids, mask = session.run(["input_ids", "attention_mask"], {"text": np.array(batch, dtype=object)})
            wanted = [encoding.ids for encoding in reference.encode_batch_fast(batch)]
            wrong += [batch[i] for i in different(ids, mask, wanted, pad)]
            tried += len(batch)
        found[name] = {"texts": tried, "mismatches": len(wrong), "examples": wrong[:EXAMPLES]}
        sys.stderr.write(f"  {name}: {len(wrong)} / {tried:,}\n")
    return found


def different(ids: np.ndarray, mask: np.ndarray, wanted: list[list[int]], pad: int) -> list[int]:
    """Return which rows, int64 [batch, sequence], are not the wanted ids, padded to the longest; all, if misshapen."""
    lengths = np.array([len(row) for row in wanted])
    width = int(lengths.max())
    if not ids.shape == mask.shape == (len(wanted), width):
        return list(range(len(wanted)))
    ones = np.arange(width) < lengths[:, None]
    expected = np.full(ids.shape, pad, np.int64)
    expected[ones] = np.fromiter(chain.from_iterable(wanted), np.int64, int(lengths.sum()))
    rows: list[int] = np.flatnonzero(((ids != expected) | (mask != ones)).any(axis=1)).tolist()
    return rows


def main() -> int:
    """Print a table for every family; return 1 if anything differs, 2 if something is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="also write the counts as JSON")
    parser.add_argument("--every", type=int, default=1, help="only every N-th text of each set")
    parser.add_argument("--family", action="append", choices=FAMILIES, help="only this one; may be repeated")
    options = parser.parse_args()
    data = os.environ.get("EDGELEAF_DATA")
    if not data:
        sys.stderr.write("EDGELEAF_DATA is not set: point it to the folder with texts/ and unicode/\n")
        return 2
    results: dict[str, Any] = {}
    try:
        for family in options.family or FAMILIES:
            compare(family, Path(data), options.every, results)
    except EdgeleafError as error:
        sys.stderr.write(f"tokenizer_parity: {error}\n")
        return 2
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return int(any(entry["mismatches"] for result in results.values() for entry in result["sets"].values()))


def compare(family: str, data: Path, every: int, results: dict[str, Any]) -> None:
    """Print a family's table, and add the counts of its vocabularies to ``results``."""
    columns = [family, "file, MB", *text_sets(data, 1, 1), "total"]
    sys.stdout.write(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n")
    totals = {"mismatches": 0, "texts": 0}
    for name, tokenizer in FAMILIES[family](data):
        started = time.monotonic()
        tokens = special_tokens(tokenizer)
        graph = as_model(tokenizer, max_length=MAX_LENGTH).SerializeToString()
        sys.stderr.write(f"{name}\n")
        found = mismatches(tokenizer, graph, text_sets(data, every, every_english(family, name), tokens))
        size = len(graph) / 1e6
        results[name] = {"family": family, "mb": round(size, 3), "sets": found}
        all_sets = {count: sum(entry[count] for entry in found.values()) for count in totals}
        cells = [f"{entry['mismatches']} / {entry['texts']:,}" for entry in (*found.values(), all_sets)]
        sys.stdout.write(f"| {name} | {size:.2f} | {' | '.join(cells)} |\n")
        sys.stdout.flush()
        sys.stderr.write(f"{name}: {time.monotonic() - started:.0f} s\n")
        for text in chain.from_iterable(entry["examples"] for entry in found.values()):
            sys.stderr.write(f"  differs: {text[:200]!r}\n")
        totals = {count: totals[count] + all_sets[count] for count in totals}
    sys.stdout.write(f"\n{family}: {totals['mismatches']} of {totals['texts']:,} texts differ\n\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
