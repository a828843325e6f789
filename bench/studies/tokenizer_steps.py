"""The values along the way of a text, for the pictures in docs/fused-tokenizer.md; checks that the graph ends the same.

    EDGELEAF_DATA=... python -m bench.studies.tokenizer_steps

Words, rounds of merges and pieces are worked out here from the tokenizer.json, the rest by `tokenizers` and the graph.
"""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.studies.tokenizer_vocabularies import FAMILIES
from edgeleaf.bundle.session import session
from edgeleaf.errors import EdgeleafError
from edgeleaf.graph.tokenizers import as_model
from edgeleaf.graph.tokenizers.spec import reference_tokenizer

Json = dict[str, Any]
MAX_LENGTH = 128
EXAMPLES = {
    ("byte-level", "ModernBERT-like"): "It's 12 cafe\u0301s",
    ("sentencepiece-bpe", "Llama-2"): "an unaffable \U0001fae8",
    ("unigram", "XLM-R-like"): "\uff23afe\u0301 unaffable ①",
}


def rounds(model: Json, word: list[str]) -> list[str]:
    """Return a word's tokens after every round of merges: the pair of lowest rank, at every place."""
    ranks = {tuple(pair.split(" ") if isinstance(pair, str) else pair): n for n, pair in enumerate(model["merges"])}
    found = []
    while pairs := [pair for pair in pairwise(word) if pair in ranks]:
        best = min(pairs, key=ranks.__getitem__)
        merged: list[str] = []
        while word:
            size = 2 if tuple(word[:2]) == best else 1
            merged, word = [*merged, "".join(word[:size])], word[size:]
        word = merged
        found.append(f"{' '.join(word)}   (rank {ranks[best]})")
    return found


def pieces(model: Json, word: str) -> list[str]:
    """Return the pieces that begin at every character of a word, with their scores."""
    scores = dict(model["vocab"])
    ends = range(1, len(word) + 1)
    return [
        " ".join(f"{word[i:j]} {scores[word[i:j]]:.2f}" for j in ends if j > i and word[i:j] in scores)
        for i in range(len(word))
    ]


def steps(tokenizer: Json, text: str) -> tuple[list[str], bool]:
    """Return lines for every step, and whether the graph gives the ids of `tokenizers`."""
    reference = reference_tokenizer(tokenizer, MAX_LENGTH)
    normal = reference.normalizer.normalize_str(text)
    said = [f"text        {text!r}, {[f'U+{ord(c):04X}' for c in text]}", f"normalised  {normal!r}"]
    if reference.pre_tokenizer:
        words = [word for word, _ in reference.pre_tokenizer.pre_tokenize_str(normal)]
    else:
        words = ["▁" + word for word in normal.split("▁")[1:]]
    model = tokenizer["model"]
    for word in words:
        said.append(f"word        {word}   {[(token.value, token.id) for token in reference.model.tokenize(word)]}")
        several = len(reference.model.tokenize(word)) > 1
        if several and model["type"] == "BPE":
            said += [f"  round {n:2}  {line}" for n, line in enumerate(rounds(model, [*word]), start=1)]
        elif several:
            said += [f"  pieces    {line}" for line in pieces(model, word)]
    opened = session(as_model(tokenizer, max_length=MAX_LENGTH).SerializeToString(), threads=1)
    ids = opened.run(["input_ids"], {"text": np.array([text], dtype=object)})[0][0].tolist()
    wanted = reference.encode(text)
    said.append(f"input_ids   {list(zip(wanted.tokens, ids, strict=False))}")
    return said, ids == wanted.ids


def main() -> int:
    """Print the steps of every example; return 1 if the graph gives other ids."""
    data = os.environ.get("EDGELEAF_DATA")
    if not data:
        sys.stderr.write("EDGELEAF_DATA is not set: point it to the folder with texts/ and unicode/\n")
        return 2
    same = True
    try:
        for (family, wanted), text in EXAMPLES.items():
            found = FAMILIES[family](Path(data))
            tokenizer = next(made for name, made in found if name.split(",")[0] == wanted)
            said, equal = steps(tokenizer, text)
            same &= equal
            sys.stdout.write("\n".join([f"{wanted} ({family})", *said, f"equal       {equal}", "", ""]))
    except EdgeleafError as error:
        sys.stderr.write(f"tokenizer_steps: {error}\n")
        return 2
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
