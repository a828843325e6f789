"""Trims a model to the tokens that given texts use: fewer rows in its token table, a smaller tokenizer.

Most tokens of a multilingual model belong to languages that one user does not have. A text in which no token was
removed keeps its tokens, under new numbers, and its vector: what is removed never competes with what is kept. (There
is one exception: a word that WordPiece gave up as unknown may become known.) Another text is cut into smaller tokens,
down to characters or bytes, or gets the unknown token.
"""

from __future__ import annotations

import json
import string
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice, tee
from typing import Any

import numpy as np

from edgeleaf import progress
from edgeleaf.errors import ModelError

Json = dict[str, Any]
BATCH = 1000
FIRST = 100
"""A token with a smaller number is one of a vocabulary's first, where special tokens often are."""
TRIED = 64
"""Texts without a removed token whose vectors are compared before and after."""
MAX_DIFFERENCE = 1e-5
"""The largest difference of these vectors in any number; the sums are the same, but a library may order them anew."""


def used_tokens(tokenizer: Any, texts: Iterable[str]) -> set[int]:
    """Return the ids of the tokens, also added ones, into which a `tokenizers` tokenizer cuts texts."""
    used: set[int] = set()
    for ids in _ids(tokenizer, texts):
        used.update(ids)
    return used


def trim(model: Any, texts: Iterable[str], held_out: Iterable[str], *, name: str) -> dict[str, int]:
    """Remove, from a sentence-transformers model, the tokens that texts do not use.

    Kept are also special tokens, tokens without letters and their marks, bytes, the letters A to Z, single characters
    that occur in a kept token, and with BPE everything that a kept token is merged from.

    Args:
        model: a model whose first module is a Transformer with a fast tokenizer; it is changed in place.
        texts: texts as the model gets them, with their prompts.
        held_out: other texts, to count those that get other tokens.
        name: for messages.

    Returns:
        ``whole_vocabulary``, the number of tokens before, and ``held_out_with_other_tokens``, a number of texts.

    Raises:
        ModelError: the vocabulary cannot be changed without changing texts that do not concern it.
    """
    import torch

    encoder, backend = model[0].auto_model, model.tokenizer.backend_tokenizer
    table = encoder.get_input_embeddings()
    wanted = used_tokens(backend, texts)
    roles = {key: value for key, value in encoder.config.to_dict().items() if key.endswith("_token_id")}
    wanted.update(value for value in roles.values() if isinstance(value, int) and backend.id_to_token(value))
    padding = table.padding_idx if table.padding_idx is not None else -1
    wanted.update(range(padding + 1 if padding < FIRST else 0))  # RoBERTa's positions begin at the padding's number
    settings, old = trimmed_settings(json.loads(backend.to_str()), wanted, backend, name=name)
    from tokenizers import Tokenizer

    smaller = Tokenizer.from_str(json.dumps(settings))
    _check_numbers(backend, smaller, old, name=name)
    new = {before: after for after, before in enumerate(old)}
    sample = _untouched(backend, new, islice(_strings(backend, old), 50 * TRIED))
    before = _vectors(model, sample)
    with torch.no_grad():
        table.weight = torch.nn.Parameter(table.weight[torch.tensor(old)].clone())
    size, table.num_embeddings = backend.get_vocab_size(), len(old)
    if table.padding_idx is not None:
        table.padding_idx = new.get(table.padding_idx)
    encoder.config.vocab_size = len(old)
    for key, value in roles.items():
        if isinstance(value, int):
            setattr(encoder.config, key, new.get(value))
    model[0].processor = _like(model.tokenizer, smaller)
    if sample and np.abs(_vectors(model, sample) - before).max() > MAX_DIFFERENCE:
        raise ModelError(f"{name} gives other vectors once tokens are removed that a text does not have; leave them in")
    whole, trimmed = (_ids(each, texts) for each, texts in zip((backend, smaller), tee(held_out), strict=True))
    changed = sum([new.get(number) for number in ids] != after for ids, after in zip(whole, trimmed, strict=True))
    kept = f"{len(old):,} of {size:,} tokens are kept"
    progress.say(f"vocabulary of {name}: {kept}; {changed:,} held-out texts have other tokens now")
    return {"whole_vocabulary": size, "held_out_with_other_tokens": changed}


def trimmed_settings(settings: Json, used: Collection[int], tokenizer: Any, *, name: str) -> tuple[Json, list[int]]:
    """Return a tokenizer.json without the tokens that are not needed, and the old id of each of its ids.

    Args:
        settings: a parsed tokenizer.json as `tokenizers` writes it today.
        used: ids to keep.
        tokenizer: the tokenizer of ``settings``.
        name: for messages.

    Raises:
        ModelError: the kind of tokenizer is not known.
    """
    model = dict(settings["model"])
    kind = model["type"]
    if kind not in ("WordPiece", "BPE", "Unigram"):
        raise ModelError(f"{name} has a {kind} tokenizer, whose tokens cannot be removed; leave them all in")
    listed = model["vocab"]
    vocab = dict(listed) if isinstance(listed, dict) else {piece: at for at, (piece, _) in enumerate(listed)}
    added = [
        token
        for token in settings["added_tokens"]
        if token["special"] or tokenizer.token_to_id(token["content"]) in used or not _has_letters(token["content"])
    ]
    kept = {token for token, number in vocab.items() if number in used}
    kept.update(token["content"] for token in added if token["content"] in vocab)
    kept.update(_always(model))
    surface = _surfaces(settings, model)
    if _is_byte_level(settings):
        from tokenizers.pre_tokenizers import ByteLevel

        kept.update(set(ByteLevel.alphabet()) & vocab.keys())
    kept |= {token for token in vocab if _is_byte(token) or not _has_letters(surface(token))}
    characters = {character for token in kept for character in surface(token)} | {*string.ascii_letters}
    kept |= {token for token in vocab if len(text := surface(token)) == 1 and text in characters}
    if kind == "BPE":
        model["merges"] = _with_parts(model["merges"], kept)
    order = sorted(kept, key=vocab.__getitem__)
    new = {token: at for at, token in enumerate(order)}
    old = [vocab[token] for token in order]
    for token in added:
        if token["content"] not in new:
            old.append(tokenizer.token_to_id(token["content"]))
            new[token["content"]] = len(old) - 1
    model["vocab"] = (
        {token: new[token] for token in order} if isinstance(listed, dict) else [listed[at] for at in old[: len(order)]]
    )
    if kind == "Unigram" and model.get("unk_id") is not None:
        model["unk_id"] = new[listed[model["unk_id"]][0]]
    numbers = {before: after for after, before in enumerate(old)}
    return (
        settings
        | {
            "model": model,
            "added_tokens": [token | {"id": new[token["content"]]} for token in added],
            "post_processor": _renumbered(settings["post_processor"], numbers),
            "padding": None,
        },
        old,
    )


def _always(model: Json) -> set[str]:
    """Return tokens that decide how others are found: the unknown one, and Unigram's least likely one."""
    if model["type"] != "Unigram":
        return {model["unk_token"]} & set(model["vocab"]) if model.get("unk_token") else set()
    pieces = model["vocab"]
    least = min(pieces, key=lambda piece: piece[1])[0]  # an unknown character's score is reckoned from it
    return {least} if model.get("unk_id") is None else {least, pieces[model["unk_id"]][0]}


def _with_parts(merges: Sequence[Any], kept: set[str]) -> list[Any]:
    """Add to ``kept`` what its tokens are merged from; return the merges whose results are kept."""
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
    makers: dict[str, list[tuple[str, ...]]] = {}
    for pair in pairs:
        makers.setdefault("".join(pair), []).append(pair)
    todo = list(kept)
    while todo:
        parts = {part for pair in makers.get(todo.pop(), ()) for part in pair} - kept
        kept |= parts
        todo += parts
    return [merge for merge, pair in zip(merges, pairs, strict=True) if "".join(pair) in kept]


def _surfaces(settings: Json, model: Json) -> Any:
    """Return a function from a token to the text that it stands for, without marks of a word's beginning or middle."""
    if _is_byte_level(settings):
        from tokenizers.decoders import ByteLevel

        decode = ByteLevel().decode
        return lambda token: decode([token]).strip(" ")
    prefix = model.get("continuing_subword_prefix") or "▁"
    return lambda token: token.removeprefix(prefix).strip("▁")


def _is_byte_level(settings: Json) -> bool:
    return '"ByteLevel"' in json.dumps(settings["pre_tokenizer"])


def _has_letters(text: str) -> bool:
    return any(unicodedata.category(character)[0] in "LM" for character in text)


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _renumbered(processor: Any, numbers: Mapping[int, int]) -> Any:
    """Return a post-processor with new ids."""
    if processor is None:
        return None
    if processor["type"] == "Sequence":
        return processor | {"processors": [_renumbered(part, numbers) for part in processor["processors"]]}
    if processor["type"] == "TemplateProcessing":
        tokens = processor["special_tokens"].items()
        return processor | {
            "special_tokens": {key: token | {"ids": [numbers[at] for at in token["ids"]]} for key, token in tokens}
        }
    ends = {key: [processor[key][0], numbers[processor[key][1]]] for key in ("sep", "cls") if key in processor}
    return processor | ends


def _check_numbers(before: Any, after: Any, old: Sequence[int], *, name: str) -> None:
    """Check that the new tokenizer gives its tokens the numbers that the table's rows will have."""
    if after.get_vocab_size() != len(old) or any(
        after.id_to_token(new) != before.id_to_token(number) for new, number in enumerate(old)
    ):
        raise ModelError(f"{name}: `tokenizers` numbers the tokens that are left otherwise; leave them all in")


def _strings(tokenizer: Any, ids: Iterable[int]) -> Iterator[str]:
    """Return words to try, made of tokens."""
    return (tokenizer.decode([number], skip_special_tokens=False) for number in ids)


def _untouched(tokenizer: Any, new: Mapping[int, int], texts: Iterable[str]) -> list[str]:
    """Return some texts all of whose tokens are kept."""
    every = list(texts)
    whole = (text for text, ids in zip(every, _ids(tokenizer, every), strict=True) if new.keys() >= set(ids))
    return list(islice(whole, TRIED))


def _ids(tokenizer: Any, texts: Iterable[str]) -> Iterator[list[int]]:
    tokenizer.no_padding()  # transformers may have set both, for texts that it encoded
    tokenizer.no_truncation()
    rest = iter(texts)
    while batch := list(islice(rest, BATCH)):
        yield from (encoding.ids for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False))


def _vectors(model: Any, texts: Sequence[str]) -> Any:
    return model.encode(list(texts), batch_size=8, show_progress_bar=False)


def _like(tokenizer: Any, backend: Any) -> Any:
    """Return a transformers tokenizer with another backend and the same special tokens and settings."""
    from transformers import PreTrainedTokenizerFast

    special = {key: str(token) for key, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        model_input_names=tokenizer.model_input_names,
        clean_up_tokenization_spaces=False,
        **special,
    )
