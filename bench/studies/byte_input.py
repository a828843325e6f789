"""Compares string input and UTF-8 byte input of the tokenizer's graph: time, size, load. See docs/decisions/0004.

    python -m bench.studies.byte_input [--save FOLDER]

The byte graph decodes UTF-8 with plain integer operators, finds special tokens by hashes and classes by a two-level
table, so it needs neither string tensors nor the contrib operator Tokenizer; behind the symbols both are the same. It
is a measured alternative, not part of the library. ``--save`` keeps both models for ``byte_input.mjs``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from edgeleaf.bundle.session import session
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers import as_model, wordpiece
from edgeleaf.graph.tokenizers.characters import CODE_POINTS, became, census, code_points
from edgeleaf.graph.tokenizers.rows import append_rows
from edgeleaf.graph.tokenizers.spec import TokenizerSpec, parse, read_spec, reference_tokenizer
from edgeleaf.graph.tokenizers.vocabulary import (
    LENGTH_UNIT,
    ROW_START,
    SPACE_SYMBOL,
    Symbols,
    append_longest,
    offset_weights,
    read_symbols,
)
from edgeleaf.models.resolve import resolve

MAX_LENGTH = 128
PAD, ROW = 0xFF, 0xFE  # bytes that never occur in UTF-8: end and beginning of a row
PAGE = 128
SCATTER = np.int64(0x9E3779B97F4A7C15 - (1 << 64))  # a character's hash: its number times an odd number
REPEATS = 3000
TEXTS = {
    "4 tokens": "hello world",
    "12 tokens": "where is my parcel and who can tell me more ?",
    "12 tokens, accents": "où est mon colis café à Zürich ?",
    "35 tokens": "where is my parcel and who can tell how many people live in the unaffordable city of new york " * 2,
    "Japanese": "東京で寿司を食べたいのですがどこに行けばいいですか",
}


def byte_model(tokenizer_json: str) -> onnx.ModelProto:
    """Return the tokenizer with the input ``utf8``, uint8 [batch, bytes], short rows padded with 0xFF."""
    spec = read_spec(parse(tokenizer_json))
    graph = GraphBuilder("tokenizer")
    utf8 = graph.input("utf8", TensorProto.UINT8, ["batch", "bytes"])
    characters = census(spec.settings["normalizer"], spec.settings["pre_tokenizer"])
    symbols = read_symbols(spec.vocab, characters, [*(token.id for token in spec.added), *spec.prefix.ids])
    flat = _symbols(graph, utf8, spec, symbols, characters)
    flat = graph.Concat(flat, np.array([ROW_START, SPACE_SYMBOL], np.int32), axis=0)
    tokens = wordpiece.append_model(graph, flat, spec, symbols)
    for tensor, name in zip(
        append_rows(graph, tokens, spec, MAX_LENGTH, with_types=False), ("input_ids", "attention_mask"), strict=True
    ):
        graph.output(tensor, name, TensorProto.INT64, ["batch", "sequence"])
    return graph.model()


def _symbols(graph: GraphBuilder, utf8: str, spec: TokenizerSpec, symbols: Symbols, characters: Any) -> str:
    rows = graph.Concat(graph.Slice(graph.Shape(utf8), np.array([0]), np.array([1])), np.array([1], np.int64), axis=0)
    opened = graph.Concat(graph.Expand(np.uint8(ROW), rows), utf8, axis=1)
    raw = graph.Reshape(graph.Cast(opened, to=TensorProto.INT32), np.array([-1], np.int64))  # [bytes]
    padded = graph.Concat(raw, np.zeros(3, np.int32), axis=0)
    following = [graph.Slice(padded, np.array([i]), np.array([i - 3 if i < 3 else 1 << 62])) for i in (1, 2, 3)]
    low = [graph.Sub(byte, np.int32(0x80)) for byte in following]  # continuation bytes' six bits
    # The code point for every possible length; the lead byte decides which is right.
    two = graph.Add(graph.Mul(graph.Sub(raw, np.int32(0xC0)), np.int32(64)), low[0])
    three = graph.Add(graph.Mul(graph.Sub(two, np.int32(0x20 * 64)), np.int32(64)), low[1])
    four = graph.Add(graph.Mul(graph.Sub(three, np.int32(0x10 * 64 * 64)), np.int32(64)), low[2])
    code = graph.Where(graph.Less(raw, np.int32(0xF0)), three, four)
    code = graph.Where(graph.Less(raw, np.int32(0xE0)), two, code)
    code = graph.Where(graph.Less(raw, np.int32(0x80)), raw, code)
    code = graph.Where(graph.Equal(raw, np.int32(ROW)), np.int32(CODE_POINTS), code)
    tail = graph.And(graph.GreaterOrEqual(raw, np.int32(0x80)), graph.Less(raw, np.int32(0xC0)))
    lead = graph.Not(graph.Or(tail, graph.Equal(raw, np.int32(PAD))))
    code = graph.Compress(code, lead, axis=0)  # [C]
    code = graph.Concat(code, np.zeros(1, np.int32), axis=0)  # NUL, which is dropped, so something follows every token

    opening = [ROW_START, *map(symbols.of_token, spec.prefix.ids)]
    rows_of: dict[tuple[int, ...], int] = {(): 0}
    classes = np.zeros(CODE_POINTS + PAGE, np.int16)
    for character in code_points():
        row = tuple(map(symbols.of, became(characters, character)))
        classes[ord(character)] = rows_of.setdefault(row, len(rows_of))
    classes[CODE_POINTS] = rows_of.setdefault(tuple(opening), len(rows_of))
    specials = {token.content: rows_of.setdefault((symbols.of_token(token.id),), len(rows_of)) for token in spec.raw}
    pages, page_of = np.unique(classes.reshape(-1, PAGE), axis=0, return_inverse=True)
    page = graph.Gather(page_of.astype(np.int32).ravel(), graph.Div(code, np.int32(PAGE)), axis=0)
    place = graph.Add(graph.Mul(page, np.int32(PAGE)), graph.Mod(code, np.int32(PAGE)))
    class_ = graph.Cast(graph.Gather(pages.ravel(), place, axis=0), to=TensorProto.INT64)  # [C]

    # Special tokens in the raw text, longest at every place; theirs begin with [ or <, so they can't overlap.
    values = graph.Mul(graph.Cast(code, to=TensorProto.INT64), SCATTER)
    entries: dict[int, dict[int, int]] = {}
    for content, row_number in specials.items():
        with np.errstate(over="ignore"):
            own = np.array([ord(character) for character in content], np.int64) * SCATTER
            key = int((own * offset_weights(len(content))).sum())
        entries.setdefault(len(content), {})[key] = len(content) * LENGTH_UNIT + row_number
    places = graph.Range(np.int64(0), graph.Squeeze(graph.Shape(code)), np.int64(1))
    best = append_longest(graph, values, places, entries)  # [C]
    hit = graph.Greater(best, np.int64(0))
    one = graph.Cast(hit, to=TensorProto.INT64)
    inside = graph.ScatterElements(graph.Mul(one, np.int64(0)), graph.Add(places, one), one, axis=0, reduction="add")
    behind = graph.Add(places, graph.Div(best, np.int64(LENGTH_UNIT)))
    inside = graph.ScatterElements(inside, behind, graph.Neg(one), axis=0, reduction="add")
    class_ = graph.Where(hit, graph.Mod(best, np.int64(LENGTH_UNIT)), class_)
    class_ = graph.Compress(class_, graph.LessOrEqual(graph.CumSum(inside, np.int64(0)), np.int64(0)), axis=0)

    table = np.zeros((len(rows_of), max(map(len, rows_of))), np.int16)
    for row, number in rows_of.items():
        table[number, : len(row)] = row
    found = graph.Reshape(graph.Cast(graph.Gather(table, class_, axis=0), to=TensorProto.INT32), np.array([-1]))
    return graph.Compress(found, graph.Cast(found, to=TensorProto.BOOL), axis=0)


def utf8_rows(texts: list[str]) -> np.ndarray:
    """Encode texts, uint8 [batch, bytes]."""
    encoded = [text.encode() for text in texts]
    rows = np.full((len(texts), max(map(len, encoded))), PAD, np.uint8)
    for row, data in zip(rows, encoded, strict=True):
        row[: len(data)] = np.frombuffer(data, np.uint8)
    return rows


def main() -> int:
    """Print a table of times in microseconds, p50, both inputs taking turns; sizes, nodes, load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, help="also write string.onnx, bytes.onnx and texts.json")
    options = parser.parse_args()
    folder = resolve("sentence-transformers/all-MiniLM-L6-v2")
    tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
    made = {"string": as_model(tokenizer_json, max_length=MAX_LENGTH), "bytes": byte_model(tokenizer_json)}
    opened = {name: session(model.SerializeToString(), threads=1) for name, model in made.items()}
    calls = {
        "string": lambda text: opened["string"].run(None, {"text": np.array([text], dtype=object)}),
        "bytes": lambda text: opened["bytes"].run(None, {"utf8": utf8_rows([text])}),
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
