"""Byte-level BPE as an ONNX graph, exact on every input. docs/fused-tokenizer.md draws the method.

    text ─▶ units ─▶ NFC ─▶ added tokens ─▶ word starts ─▶ bytes ─▶ merges ─▶ ids

Shapes beside the calls: N units, M places of the line of bytes, T tokens of the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from edgeleaf.bundle.feed import TEXT, Input
from edgeleaf.bundle.long_texts import METADATA_LONG_TEXTS
from edgeleaf.errors import TokenizerNotSupported
from edgeleaf.graph.builder import GraphBuilder
from edgeleaf.graph.tokenizers import nfc, opening, sentencepiece_bpe
from edgeleaf.graph.tokenizers.long_texts import read_host_words
from edgeleaf.graph.tokenizers.merges import Merges, read_pairs
from edgeleaf.graph.tokenizers.slots import append_slots
from edgeleaf.graph.tokenizers.spec import Json, TokenizerSpec
from edgeleaf.graph.tokenizers.splits import append_word_starts, read_rules
from edgeleaf.graph.tokenizers.units import (
    append_limited,
    append_prefix,
    append_stripped,
    append_tokens,
    append_units,
    read_units,
)


def append(
    graph: GraphBuilder, text: str, spec: TokenizerSpec, *, max_length: int, prompt: str, takes: Input = TEXT
) -> str:
    """Add a BPE model to ``graph``: text, string [B], to the tokens of the whole batch as ``append_rows`` wants.

    Where ``takes`` is ``utf8``, text is UTF-8 instead, uint8 [B, bytes].

    See ``append_tokenizer`` for arguments and errors.
    """
    model: Json = spec.settings["model"]
    check_model(model)
    if model.get("byte_fallback"):
        return sentencepiece_bpe.append(graph, text, spec, max_length=max_length, prompt=prompt, takes=takes)
    composes = _check_normalizer(spec.settings.get("normalizer"))
    rules, adds_space = read_rules(spec.settings.get("pre_tokenizer"))
    of_bytes = _byte_tokens(spec.vocab)
    merges = _read_merges(spec, of_bytes)
    patterns = opening.read_patterns(spec)
    if long_texts := read_host_words(spec, patterns, max_length):
        graph.metadata[METADATA_LONG_TEXTS] = str(long_texts)
    begins = opening.split_prompt(prompt, spec, max_length)
    units = read_units([*opening.needed(spec, begins)])
    line = append_units(
        graph,
        text,
        units,
        raw=spec.raw,
        opening=opening.of_units(units, spec, begins),
        listed=_characters(spec.vocab, of_bytes),
        takes=takes,
    )
    if composes:
        line = nfc.append(graph, line, units)
    if patterns:
        line = append_tokens(graph, line, units, patterns)
        if any(token.lstrip or token.rstrip for token in spec.normalized):
            line = append_stripped(graph, line, units, spec.normalized)
    if adds_space:
        line = append_prefix(graph, line, units, " ", always=False)
    starts = append_word_starts(graph, line, units, rules)  # bool [N]
    line, starts = append_limited(graph, line, starts, max_length=max_length, truncates_left=spec.truncates_left)
    return append_slots(graph, line, starts, units, of_bytes, merges)


def check_model(model: Json) -> None:
    """Refuse what no BPE graph reproduces."""
    if model.get("dropout"):
        raise TokenizerNotSupported("BPE with dropout gives random ids: not supported; set it to null")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise TokenizerNotSupported(f"BPE with {name} {model[name]!r} is not supported: only without it")


def _check_normalizer(normalizer: Json | None) -> bool:
    """Return whether texts are brought to NFC, or refuse."""
    steps = [normalizer] if normalizer else []
    if normalizer and normalizer.get("type") == "Sequence":
        steps = list(normalizer.get("normalizers") or [])
    if wrong := next((step for step in steps if step.get("type") != "NFC"), None):
        raise TokenizerNotSupported(f"normalizer {wrong.get('type')} is not supported with byte-level BPE: only NFC")
    return bool(steps)


@lru_cache(maxsize=1)
def byte_alphabet() -> dict[str, int]:
    """The characters that stand for the bytes 0 to 255 in byte-level BPE, in that order."""
    kept = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return {chr(byte if byte in kept else next(others)): byte for byte in range(0x100)}


def _byte_tokens(vocab: dict[str, int]) -> list[int]:
    """The token of every byte."""
    missing = [byte for character, byte in byte_alphabet().items() if character not in vocab]
    if missing:
        raise TokenizerNotSupported(
            f"the vocabulary has no token for {len(missing)} of 256 bytes, the first is 0x{missing[0]:02X}: add them"
        )
    return [vocab[character] for character in byte_alphabet()]


def _read_merges(spec: TokenizerSpec, of_bytes: Sequence[int]) -> Merges:
    """The merges, and the words that the model gives back as one token."""
    model = spec.tokenizer.model
    numbers = {character: of_bytes[byte] for character, byte in byte_alphabet().items()}
    words: dict[tuple[int, ...], int] = {}
    for token, token_id in spec.vocab.items():
        if not all(character in numbers for character in token) or not _is_text(token):
            continue
        if [found.id for found in model.tokenize(token)] == [token_id]:
            words[tuple(numbers[character] for character in token)] = token_id
    return Merges.of(read_pairs(spec.settings["model"], spec.vocab), words)


def _raw(token: str) -> bytes:
    table = byte_alphabet()
    return bytes(table[character] for character in token)


def _is_text(token: str) -> bool:
    """Whether a token's bytes are whole characters: no others can be a word."""
    try:
        _raw(token).decode()
    except UnicodeDecodeError:
        return False
    return bool(token)


def _characters(vocab: dict[str, int], of_bytes: Sequence[int]) -> set[str]:
    """The characters that tokens hold."""
    alphabet = set(byte_alphabet())
    found: set[str] = set()
    for token in vocab:
        if alphabet.issuperset(token):
            found.update(_raw(token).decode(errors="ignore"))
    return found
