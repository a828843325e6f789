"""Writes what the tests of the Kotlin library compare with, computed by Python on this machine.

    python android_demo/tools/fixtures.py [BUNDLE]

BUNDLE takes bytes (``edgeleaf ship export/models/mpnet --input utf8 -o BUNDLE``); default: ``android_demo/out/bundle``.
Everything goes to ``android_demo/out/fixtures``, which is written completely or not at all:

    pack/               what ``python -m tests.ports`` writes: the encoder, golden.jsonl, tokenizer.onnx, parity/*.jsonl
    golden.npy          float32 [texts, dim]: the vectors of pack/golden.jsonl
    texts.jsonl         {"text"} a line: hard texts; texts.npy: their vectors
    long.jsonl          {"text", "shortened", "words", "scripts"} a line: what Python leaves of a long text by the
                        rules "7 5", "7 0" and "7 0  。，"
    spaces.jsonl        {"space", "id"} a line
    planes.jsonl        {"input_ids"} a line: every code point above U+FFFF, 64 a line, by ``tokenizers``
    documents.jsonl     the documents of the indexes
    index/, index-pca/  what ``edgeleaf index`` writes; queries.npy: float32 [1000, dim]
    hits.jsonl, hits-pca.jsonl   {"ids", "scores"} a line: ten hits for each query
    strings.onnx        the encoder that takes strings
    schema.onnx         the encoder, but of another schema version
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import onnx

from bench.studies.tokenizer_texts import packed
from edgeleaf import QueryEncoder
from edgeleaf.bundle.long_texts import LongTexts
from edgeleaf.bundle.manifest import QUERY_ENCODER, STUDENT, Manifest
from edgeleaf.bundle.session import METADATA_SCHEMA
from edgeleaf.bundle.space import VectorSpace
from edgeleaf.graph.hard_texts import HARD_TEXTS
from edgeleaf.graph.tokenizers.spec import reference_tokenizer
from edgeleaf.search import Index
from edgeleaf.search.index import Hit

DOCUMENTS, QUERIES, PCA_DIMS = 9_000, 1_000, 256
CODE_POINTS_A_TEXT = 12
PARITY_STEP = 20
TEXTS = (
    "where is my parcel?",
    "",
    "\0",
    "lost\0parcel",
    "wo ist mein Paket 😀?",
    "𠮷野家で食べる",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "أين طردي؟ היכן החבילה שלי?",
    "\u202eright to left\u202c",
    "Zürich e\u0301 naïve",
    "parcel " * 1_429,  # 10,003 characters
    "x" * 10_000,
    "😀" * 10_000,
    "a, " * 10_000,
    "word\t \n" * 4_000,
    "é" * 30_000,
)


def main(bundle: Path) -> None:
    target = ROOT / "android_demo" / "out" / "fixtures"
    folder = target.with_name("fixtures.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_pack(bundle, folder)
    encoder = QueryEncoder.load(bundle)
    write_texts(encoder, folder)
    write_spaces(encoder.space, folder)
    write_planes(bundle, folder)
    write_indexes(encoder, folder)
    write_models(bundle, folder)
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)


def write_pack(bundle: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "tests.ports", str(bundle.resolve()), str(folder / "pack"), str(PARITY_STEP)]
    subprocess.run(command, cwd=ROOT, check=True)


def write_texts(encoder: QueryEncoder, folder: Path) -> None:
    golden = [json.loads(line) for line in (folder / "pack" / "golden.jsonl").read_text(encoding="utf-8").splitlines()]
    np.save(folder / "golden.npy", encoder.encode([entry["text"] for entry in golden if "text" in entry]))
    texts = [*TEXTS, *HARD_TEXTS]
    write_lines(folder / "texts.jsonl", ({"text": text} for text in texts))
    np.save(folder / "texts.npy", encoder.encode(texts))
    rules = {"shortened": LongTexts(7, 5), "words": LongTexts(7, 0), "scripts": LongTexts(7, 0, " 。，")}
    write_lines(
        folder / "long.jsonl",
        ({"text": text} | {name: rule.shortened(text) for name, rule in rules.items()} for text in longs()),
    )


def longs() -> Iterator[str]:
    """Texts around the length from which they are shortened, of pieces on which the rules depend."""
    chance = np.random.default_rng(0)
    pieces = [
        "a",
        "word",
        "longerword",
        "one two 3 four five 6 seven eight nine ",
        "один два три где 四。五，六 é я 한 ş Ω ",
        "7",
        " ",
        "  ",
        "\t",
        "\n\r",
        ".",
        "!?",
        "é",
        "中",
        "😀",
        "\0",
        "\u00a0",
        "x\u0301y",
    ]
    for filler in ("é", "😀", "\u00a0"):
        for length in (19_999, 20_000, 20_001):
            yield (filler * length)[: length - 1] + "a"
        for _ in range(12):
            text = "".join(chance.choice(pieces, int(chance.integers(1, 40))))
            rest = "".join(chance.choice(pieces, int(chance.integers(1, 40))))
            yield text + filler * 20_000 + rest


def write_spaces(space: VectorSpace, folder: Path) -> None:
    hard = 'a"b\\c/\b\f\n\r\t\x01\x7f é中😀\u2028'
    spaces = [
        space,
        replace(space, teacher="plain", revision="main"),
        replace(space, query_prompt=hard, document_prompt=hard),
        replace(space, normalized=False, tokenizer_sha256="0f", attention="causal"),
        replace(space, attention="bidirectional", dim=65_536, weights_sha256=""),
        replace(
            space,
            query_context=hard,
            query_suffix="\n<response>",
            document_suffix=" ",
            bos_token="<s>",
            eos_token="</s>",
        ),
    ]
    write_lines(folder / "spaces.jsonl", ({"space": one.record(), "id": one.id} for one in spaces))


def write_planes(bundle: Path, folder: Path) -> None:
    tokenizer = reference_tokenizer(
        (bundle / STUDENT / "tokenizer.json").read_text(encoding="utf-8"), Manifest.read(bundle).tokenizer["max_length"]
    )
    prompt = Manifest.read(bundle).space.query_prompt
    texts = packed(map(chr, range(0x10000, 0x110000)), CODE_POINTS_A_TEXT)
    write_lines(folder / "planes.jsonl", ({"input_ids": tokenizer.encode(prompt + text).ids} for text in texts))


def write_indexes(encoder: QueryEncoder, folder: Path) -> None:
    """Documents on a random sphere, some of them equal or nearly so, and queries near to some of them."""
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(DOCUMENTS, encoder.space.dim)) * np.linspace(2, 0.2, encoder.space.dim)
    vectors[::40] = vectors[1::40]
    vectors[::100] = vectors[7]
    vectors[3::40] = vectors[4::40] + 1e-4 * chance.normal(size=vectors[3::40].shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[chance.integers(0, DOCUMENTS, QUERIES)] + 0.02 * chance.normal(size=(QUERIES, encoder.space.dim))
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    np.save(folder / "queries.npy", queries)
    documents = [(f"d{row}", f'document {row}: é中😀 "quoted"\n{"long " * (row % 50)}') for row in range(DOCUMENTS)]
    whole = Index(space=encoder.space, documents=documents, vectors=vectors.astype(np.float16))
    whole.save(folder / "index")
    whole.shortened(PCA_DIMS).save(folder / "index-pca")
    index, short = Index.load(folder / "index"), Index.load(folder / "index-pca")
    write_hits(folder / "hits.jsonl", index.search(queries, space=index.space))
    write_hits(folder / "hits-pca.jsonl", short.search(queries, space=short.space))


def write_hits(file: Path, hits: Iterable[list[Hit]]) -> None:
    write_lines(file, ({"ids": [hit.id for hit in row], "scores": [hit.score for hit in row]} for row in hits))


def write_models(bundle: Path, folder: Path) -> None:
    shutil.copyfile(ROOT / "export" / "models" / "mpnet" / QUERY_ENCODER, folder / "strings.onnx")
    model = onnx.load(str(bundle / QUERY_ENCODER))
    for entry in model.metadata_props:
        if entry.key == METADATA_SCHEMA:
            entry.value = "99"
    onnx.save(model, str(folder / "schema.onnx"))


def write_lines(file: Path, values: Iterable[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(value) + "\n" for value in values)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "android_demo" / "out" / "bundle")
