"""SentencePiece's BPE with byte fallback as an ONNX graph, exact on every input: Gemma, Llama-2, Mistral.

    text ─▶ units ─▶ ▁ for spaces ─▶ added tokens ─▶ cuts before ▁ ─▶ tokens of characters, or bytes ─▶ merges ─▶ ids

A text is one word here, so every merge could reach across all of it. But where no token holds a character with a ▁
behind it, nothing can be merged there, and the line is cut.

Shapes beside the calls: N units.
"""

from __future__ import annotations

import numpy as np

from edgeleaf.bundle.feed import Input
from edgeleaf.bundle.long_texts import METADATA_LONG_TEXTS
from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers import opening
from edgeleaf.graph.tokenizers.characters import CODE_POINTS
from edgeleaf.graph.tokenizers.long_texts import read_host_words
from edgeleaf.graph.tokenizers.merges import Merges, read_pairs
from edgeleaf.graph.tokenizers.pages import append_entry
from edgeleaf.graph.tokenizers.slots import append_slots
from edgeleaf.graph.tokenizers.spec import Json, TokenizerSpec
from edgeleaf.graph.tokenizers.units import (
    NOTHING,
    Units,
    append_limited,
    append_prefix,
    append_stripped,
    append_tokens,
    append_units,
    read_units,
)

SPACE = "\u2581"
_BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))


def append(graph: GraphBuilder, text: str, spec: TokenizerSpec, *, max_length: int, prompt: str, takes: Input) -> str:
    """Add a BPE model with byte fallback to ``graph``; see ``bpe.append``."""
    prepends = _check_normalizer(spec.settings.get("normalizer"))
    _check_pre_tokenizer(spec.settings.get("pre_tokenizer"))
    if missing := [token for token in _BYTE_TOKENS if token not in spec.vocab]:
        raise TokenizerNotSupported(f"the vocabulary has no token {missing[0]} for byte_fallback: add all 256")
    of_bytes = [spec.vocab[token] for token in _BYTE_TOKENS]
    merges = _read_merges(spec, only_words=prepends)
    if merges.uses(of_bytes):
        raise TokenizerNotSupported("merges of byte tokens such as <0x0A> are not supported: only of characters")
    glued = {token[i - 1] for token in spec.vocab for i in range(1, len(token)) if token[i] == SPACE} | {SPACE}
    patterns = opening.read_patterns(spec)
    if long_texts := read_host_words(spec, patterns, max_length, pieces=spec.vocab.keys()):
        graph.metadata[METADATA_LONG_TEXTS] = str(long_texts)
    begins = opening.split_prompt(prompt, spec, max_length, cuts=lambda head: head[-1] not in glued)
    units = read_units(opening.needed(spec, begins))
    characters = sorted(token for token in spec.vocab if len(token) == 1)
    line = append_units(
        graph,
        text,
        units,
        raw=spec.raw,
        opening=opening.of_units(units, spec, begins),
        listed=characters,
        takes=takes,
    )
    space = np.int64(units.first + ord(SPACE))
    if prepends:
        line = append_prefix(graph, line, units, SPACE, always=True)
    line = graph.Where(graph.Equal(line, np.int64(units.first + ord(" "))), space, line)
    if patterns:
        line = append_tokens(graph, line, units, patterns)
        if any(token.lstrip or token.rstrip for token in spec.normalized):
            line = append_stripped(graph, line, units, spec.normalized)
    tables = _tables(units, characters, glued)
    joined = append_entry(graph, line, tables[1])
    # Words begin at and behind what is no character, and at a ▁ that nothing can be merged across with what is before.
    apart = graph.And(graph.Equal(line, space), graph.Equal(_before(graph, joined), np.int64(0)))
    no_character = graph.Less(line, np.int64(units.first))
    behind = graph.Less(_before(graph, line), np.int64(units.first))
    starts = graph.Or(graph.Or(no_character, behind), apart)
    line, starts = append_limited(graph, line, starts, max_length=max_length, truncates_left=spec.truncates_left)
    single = append_entry(graph, line, tables[0])
    return append_slots(
        graph,
        line,
        starts,
        units,
        of_bytes,
        merges,
        single=graph.Sub(single, np.int64(1)),
        of_single=[spec.vocab[character] for character in characters],
    )


def _before(graph: GraphBuilder, line: str) -> str:
    return graph.Pad(line, np.array([1, -1]), np.int64(NOTHING))


def _tables(units: Units, characters: list[str], glued: set[str]) -> list[np.ndarray]:
    """By unit: 1 + what ``append_slots`` wants of what is one token, else 0; whether a merge can join it with a ▁."""
    single = np.zeros(CODE_POINTS, np.int64)
    joined = np.zeros(CODE_POINTS, np.int64)
    for number, character in enumerate(characters):
        single[ord(character)] = 1 + units.first + number
    joined[[ord(character) for character in glued]] = 1
    tables = [units.by_character(single), units.by_character(joined)]
    tables[0][: units.first] = 1 + np.arange(units.first)
    return tables


def _check_normalizer(normalizer: Json | None) -> bool:
    """Return whether a ▁ is put before every text, or refuse."""
    steps = [normalizer] if normalizer else []
    if normalizer and normalizer.get("type") == "Sequence":
        steps = list(normalizer.get("normalizers") or [])
    prepend = {"type": "Prepend", "prepend": SPACE}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    if steps not in ([replace], [prepend, replace]):
        kinds = ", ".join(str(step.get("type")) for step in steps) or "none"
        raise TokenizerNotSupported(
            f"normalizer {kinds} is not supported with byte_fallback: only Replace of a space by ▁, and Prepend of ▁"
        )
    return len(steps) == 2


def _check_pre_tokenizer(pre_tokenizer: Json | None) -> None:
    """Refuse what cuts; a Split at spaces finds none, as the normaliser left none."""
    split = {"type": "Split", "pattern": {"String": " "}}
    if pre_tokenizer and {name: pre_tokenizer.get(name) for name in split} != split:
        raise TokenizerNotSupported(
            f"pre_tokenizer {pre_tokenizer.get('type')} is not supported with byte_fallback: only a Split at a space"
        )


def _read_merges(spec: TokenizerSpec, *, only_words: bool) -> Merges:
    """The merges, and the words that the model gives back as one token: several characters, known one by one."""
    model = spec.tokenizer.model
    vocab = spec.vocab
    words: dict[tuple[int, ...], int] = {}
    for token, token_id in vocab.items():
        if len(token) < 2 or (only_words and token[0] != SPACE) or not all(character in vocab for character in token):
            continue
        if [found.id for found in model.tokenize(token)] == [token_id]:
            words[tuple(vocab[character] for character in token)] = token_id
    return Merges.of(read_pairs(spec.settings["model"], vocab), words)
