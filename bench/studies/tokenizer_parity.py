"""Does the graph always give the token ids of `tokenizers`? Prints a table of all sets of texts and vocabularies.

    EDGELEAF_DATA=... python -m bench.studies.tokenizer_parity [-o FILE.json] [--every N]

The vocabularies are those of all-MiniLM-L6-v2 and all-mpnet-base-v2, and some trained here on real text of other
languages. The trained ones get every tenth English text, the others all. Ids and attention masks are
compared in batches of mixed lengths; a run with any difference ends with exit code 1.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgeleaf.graph.hard_texts import HARD_TEXTS
from edgeleaf.graph.tokenizers import as_model
from edgeleaf.graph.tokenizers.characters import code_points
from edgeleaf.graph.tokenizers.spec import reference_tokenizer
from edgeleaf.models.resolve import resolve

MAX_LENGTH = 128
BATCH = 512
RANDOM_TEXTS = 20_000

Sets = dict[str, Callable[[], Iterable[str]]]

LANGUAGES: dict[str, tuple[tuple[str, ...] | None, tuple[str, ...] | None, str, int, dict[str, Any]]] = {
    # name: tags of the Declaration and of the questions (None: all), wordfreq's language, number of entries, normaliser
    "Vietnamese": (("vie",), (), "vi", 5_000, {"strip_accents": False}),
    "Turkish, cased": (("tur",), (), "tr", 20_000, {"lowercase": False}),
    "Greek": (("ell_monotonic", "ell_polytonic"), (), "el", 20_000, {}),
    "Japanese": (("jpn",), ("ja",), "ja", 32_000, {"strip_accents": False}),
    "Japanese, ideographs in words": (("jpn",), ("ja",), "ja", 32_000, {"handle_chinese_chars": False}),
    "Arabic": (("arb",), ("ar",), "ar", 60_000, {}),
    "380 languages, cased": (None, None, "", 120_000, {"lowercase": False, "strip_accents": False}),
}


def lines(path: Path) -> Iterator[str]:
    """Return the lines of a gzipped file, cut only at newlines."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.rstrip("\n")


def tagged(path: Path, tags: tuple[str, ...] | None) -> Iterator[str]:
    """Return the texts with some tags, or all texts, of a gzipped table of tag and text."""
    for line in lines(path):
        tag, _, text = line.partition("\t")
        if tags is None or tag in tags:
            yield text


def vocabularies(data: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a name and a tokenizer.json for every vocabulary; those that no model has are trained."""
    for name in ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-mpnet-base-v2"):
        yield name.split("/")[1], json.loads((resolve(name) / "tokenizer.json").read_text(encoding="utf-8"))
    for name, (declaration, questions, words, entries, normalizer) in LANGUAGES.items():
        texts = [
            *tagged(data / "unicode" / "udhr.tsv.gz", declaration),
            *tagged(data / "unicode" / "multilingual-questions.tsv.gz", questions),
            *(word_list(words) if words else islice(tagged(data / "texts" / "queries.tsv.gz", None), 0, None, 4)),
        ]
        made = trained(texts, entries, **normalizer)
        yield f"{name}, {len(made['model']['vocab']):,}", made


def word_list(language: str) -> list[str]:
    """Return a language's words from the package wordfreq, if it is installed; they give larger vocabularies."""
    try:
        import wordfreq
    except ImportError:
        sys.stderr.write(f"wordfreq is not installed: the {language} vocabulary is small; pip install wordfreq\n")
        return []
    return list(wordfreq.get_frequency_dict(language, wordlist="best"))


def trained(texts: Iterable[str], entries: int, **normalizer: Any) -> dict[str, Any]:
    """Return the tokenizer.json of a WordPiece vocabulary trained on the texts, with DistilBERT's special tokens."""
    from tokenizers import BertWordPieceTokenizer
    from tokenizers.processors import TemplateProcessing

    tokenizer = BertWordPieceTokenizer(**normalizer)
    tokenizer.train_from_iterator(texts, vocab_size=entries, min_frequency=1, show_progress=False)
    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    made: dict[str, Any] = json.loads(tokenizer.to_str())
    return made


def text_sets(data: Path, every: int, every_english: int) -> Sets:
    """Return the sets of texts by name, with every ``every``-th text of each."""
    unicode, texts = data / "unicode", data / "texts"
    passages = sorted(path for path in texts.glob("*.txt.gz"))

    def thin(name: str, make: Callable[[], Iterable[str]]) -> Callable[[], Iterable[str]]:
        return lambda: islice(make(), 0, None, every * (every_english if name.startswith("English") else 1))

    sets: Sets = {
        "every code point": lambda: packed(code_points(), 8),
        "adversarial random": adversarial,
        "Unicode test strings": lambda: map(json.loads, lines(unicode / "unicode-test-strings.jsonl.gz")),
        "naughty strings": lambda: json.loads((unicode / "blns.json").read_text(encoding="utf-8")),
        "rights, 380 languages": lambda: tagged(unicode / "udhr.tsv.gz", None),
        "questions, 18 languages": lambda: tagged(unicode / "multilingual-questions.tsv.gz", None),
        "English queries": lambda: tagged(texts / "queries.tsv.gz", None),
        "English passages": lambda: (line for path in passages for line in lines(path)),
    }
    return {"hard texts": lambda: HARD_TEXTS} | {name: thin(name, make) for name, make in sets.items()}


def packed(characters: Iterable[str], size: int) -> Iterator[str]:
    """Yield texts of several characters, each alone and inside a word, so that an error shifts or changes an id."""
    rest = iter(characters)
    while group := list(islice(rest, size)):
        yield " ".join(f"{character} a{character}b" for character in group)


def adversarial() -> Iterator[str]:
    """Yield random strings of kinds that break tokenizers; they are always the same."""
    chance = np.random.default_rng(0)
    combining = [*"\u0300\u0301\u0316\u0323\u0327\u0345\u0591\u0f71\u3099\u302a\U0001d165\u20dd"]
    invisible = [*"\u200b\u200c\u200d\u2060\ufeff\u00ad\u061c\u202e\ufffd\x00\x01\x7f\x85\x9f\u2028\u3000\xa0\t\n"]
    mixed = [*"abcXYZéßİıſſΣςдЙѝ中国豈がギ한ᄀ각हिन्दीتالשלוםไทย😀👩🏳️🇩🇪𝔘①ﬁ", "\U000e0041", "\ue000", "\uffff"]
    words = ["[SEP]", "[CLS]", "[UNK]", "<s>", "</s>", "<mask>", "##ing", "un", "able", "parcel", " ", " ", ",", "-"]
    alphabets = [combining, invisible, mixed, words, [*"abcdefgh"]]
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for i in range(RANDOM_TEXTS):
        parts: list[str] = []
        for _ in range(int(chance.integers(1, 7))):
            kind = int(chance.integers(0, len(alphabets) + 3))
            count = int(chance.integers(1, 9))
            if kind < len(alphabets):
                parts += list(chance.choice(alphabets[kind], count))
            elif kind == len(alphabets):
                parts += [every[k] for k in chance.integers(0, len(every), count)]
            elif kind == len(alphabets) + 1:
                parts.append(str(chance.choice(["a", "é", "e\u0301", "한", "x\u200b", "中", "ing"])) * (98 + count % 4))
            else:
                parts.append("[SEP]" * count)
        if i % 997 == 0:
            parts.append(str(chance.choice(["x", "é", "한", "ab\u0301"])) * 10_000)
        yield "".join(parts)


def mismatches(tokenizer: dict[str, Any], sets: Sets) -> dict[str, dict[str, Any]]:
    """Compare the graph of a tokenizer with it on every set; return the texts tried, and the first that differ."""
    import onnxruntime as ort

    pad = tokenizer.get("padding") or {}
    session = ort.InferenceSession(as_model(tokenizer, max_length=MAX_LENGTH).SerializeToString())
    reference = reference_tokenizer(tokenizer, MAX_LENGTH)
    found = {}
    for name, make in sets.items():
        tried, wrong, first, texts = 0, 0, [], iter(make())
        while batch := list(islice(texts, BATCH)):
            ids, mask = session.run(["input_ids", "attention_mask"], {"text": np.array(batch, dtype=object)})
            expected = [encoding.ids for encoding in reference.encode_batch_fast(batch)]
            same_width = ids.shape == mask.shape == (len(batch), max(map(len, expected)))
            for text, row, ones, want in zip(batch, ids, mask, expected, strict=True):
                padded = [*want, *[pad.get("pad_id", 0)] * (len(row) - len(want))]
                if (
                    not same_width
                    or row.tolist() != padded
                    or ones.tolist() != [1] * len(want) + [0] * (len(row) - len(want))
                ):
                    wrong += 1
                    first += [text][: 3 - len(first)]
            tried += len(batch)
        found[name] = {"texts": tried, "mismatches": wrong, "examples": first}
    return found


def main() -> int:
    """Print the table; return 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="also write the counts as JSON")
    parser.add_argument("--every", type=int, default=1, help="only every N-th text of each set")
    options = parser.parse_args()
    data = os.environ.get("EDGELEAF_DATA")
    if not data:
        sys.stderr.write("EDGELEAF_DATA is not set: point it to the folder with texts/ and unicode/\n")
        return 2
    results: dict[str, Any] = {}
    columns = ["vocabulary", "file, MB", *text_sets(Path(data), 1, 1)]
    sys.stdout.write(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n")
    for name, tokenizer in vocabularies(Path(data)):
        started = time.monotonic()
        real = name.startswith("all-")
        found = mismatches(tokenizer, text_sets(Path(data), options.every, 1 if real else 10))
        size = as_model(tokenizer, max_length=MAX_LENGTH).ByteSize() / 1e6
        results[name] = {"mb": round(size, 3), "sets": found}
        cells = [f"{entry['mismatches']} of {entry['texts']:,}" for entry in found.values()]
        sys.stdout.write(f"| {name} | {size:.2f} | {' | '.join(cells)} |\n")
        sys.stdout.flush()
        sys.stderr.write(f"{name}: {time.monotonic() - started:.0f} s\n")
        for entry in found.values():
            for text in entry["examples"]:
                sys.stderr.write(f"  differs: {text[:200]!r}\n")
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return int(any(entry["mismatches"] for result in results.values() for entry in result["sets"].values()))


if __name__ == "__main__":
    sys.exit(main())
