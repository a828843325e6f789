"""What every runtime must reproduce, in a folder: ``python -m tests.ports BUNDLE FOLDER``.

    query_encoder.onnx   the bundle's file, unchanged
    golden.jsonl         the bundle's: texts, token ids, vectors
    tokenizer.onnx       the same file, cut off behind its token ids: text in, input_ids and attention_mask out
    parity/NAME.jsonl    {"text", "input_ids"} a line: more texts, with the ids of ``tokenizers``

A port's runner takes the folder and prints one JSON object: ``{"passed", "runtime", "golden": {"texts",
"id_mismatches", "cosine_mismatches", "cosine_min", "cosine_mean", "empty_batch"}, "parity": {NAME: {"texts",
"mismatches"}}}``, and exits with 1 if it did not pass. It runs texts in batches of mixed lengths.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from bench.studies.tokenizer_texts import packed
from edgeleaf.bundle.golden import TOKENIZER
from edgeleaf.bundle.manifest import GOLDEN, QUERY_ENCODER, STUDENT, Manifest


def write_pack(bundle: Path, folder: Path, sets: Mapping[str, Iterable[str]]) -> Path:
    """Write the folder for ``bundle``, with the token ids that `tokenizers` gives to every set of texts."""
    import onnx

    from edgeleaf.graph.fuse import tokenizer_of
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "parity", ignore_errors=True)  # ids of another bundle
    for name in (QUERY_ENCODER, GOLDEN):
        shutil.copyfile(bundle / name, folder / name)
    onnx.save(tokenizer_of(onnx.load(str(bundle / QUERY_ENCODER))), str(folder / TOKENIZER))
    manifest = Manifest.read(bundle)
    tokenizer = reference_tokenizer(
        (bundle / STUDENT / "tokenizer.json").read_text(encoding="utf-8"), manifest.tokenizer["max_length"]
    )
    (folder / "parity").mkdir(exist_ok=True)
    for name, texts in sets.items():
        with (folder / "parity" / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for text in texts:
                ids = tokenizer.encode(manifest.space.query_prompt + text).ids
                file.write(json.dumps({"text": text, "input_ids": ids}) + "\n")
    return folder


def hard_sets() -> dict[str, Iterable[str]]:
    """Sets that need no data: hard texts, and every assigned plane's code points, alone and inside words."""
    from edgeleaf.graph.hard_texts import HARD_TEXTS
    from edgeleaf.graph.tokenizers.characters import code_points

    characters = (character for character in code_points() if ord(character) < 0x30000 or ord(character) >= 0xE0000)
    return {"hard texts": HARD_TEXTS, "code points": packed(characters, 12)}


def data_sets(data: Path, every: Callable[[Iterator[str]], Iterator[str]]) -> dict[str, Iterable[str]]:
    """Real texts from the folder that ``EDGELEAF_DATA`` names; ``every`` thins them out."""
    unicode = data / "unicode"
    sets = {
        "human rights in 380 languages": _column(unicode / "udhr.tsv.gz", 1),
        "questions in 18 languages": _column(unicode / "multilingual-questions.tsv.gz", 1),
        "unicode test strings": _json_lines(unicode / "unicode-test-strings.jsonl.gz"),
        "naughty strings": iter(json.loads((unicode / "blns.json").read_text(encoding="utf-8"))),
        "queries": _column(data / "texts" / "queries.tsv.gz", 1),
    }
    return {name: every(texts) for name, texts in sets.items()}


def _column(file: Path, column: int) -> Iterator[str]:
    with gzip.open(file, "rt", encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield line.rstrip("\n").split("\t", column)[-1]


def _json_lines(file: Path) -> Iterator[str]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            value: Any = json.loads(line)
            yield value if isinstance(value, str) else value["text"]


if __name__ == "__main__":
    found = hard_sets()
    if data := os.environ.get("EDGELEAF_DATA"):
        step = int(sys.argv[3]) if len(sys.argv) > 3 else 1
        found |= data_sets(Path(data), lambda texts: islice(texts, 0, None, step))
    write_pack(Path(sys.argv[1]), Path(sys.argv[2]), found)
