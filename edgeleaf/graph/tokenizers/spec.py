"""What a tokenizer.json asks for, around its model: added tokens, template, padding; and refusing what is not exact.

Shared by every tokenizer model (WordPiece today), so everything here is about token ids and text, not about words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeleaf.errors import ExportError, TokenizerNotSupported

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNLIMITED = 1 << 30  # a max_length for texts that are not to be cut
Json = dict[str, Any]


@dataclass(frozen=True)
class TokenizerSpec:
    """The parts of a tokenizer.json that do not depend on the kind of model.

    Attributes:
        settings: the parsed tokenizer.json, with padding and truncation cleared.
        vocab: token to id, of the model.
        added: content to id of the added tokens, longest first: they are cut out of the raw text.
        prefix, suffix: ids that the template puts around one text.
        pad_id: the id that fills up shorter rows.
    """

    settings: Json
    vocab: dict[str, int]
    added: dict[str, int]
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    pad_id: int


def parse(tokenizer_json: str | Json) -> Json:
    """Return the tokenizer.json (its text, or already parsed) as a fresh dict.

    Raises:
        ExportError: it is not a JSON object with a model.
    """
    if isinstance(tokenizer_json, str):
        try:
            tokenizer_json = json.loads(tokenizer_json)
        except json.JSONDecodeError as error:
            raise ExportError(
                f"tokenizer.json is not JSON ({error}); pass the file's text, or the parsed dict"
            ) from None
    if not isinstance(tokenizer_json, dict) or not isinstance(tokenizer_json.get("model"), dict):
        raise ExportError('tokenizer.json has no "model"; pass the text of a file that `tokenizers` saved')
    return dict(tokenizer_json)


def reference_tokenizer(tokenizer_json: str | dict[str, Any], max_length: int) -> Tokenizer:
    """Return the tokenizer that the graph is compared with: no padding, truncated on the right to ``max_length``.

    Raises:
        ExportError: not a tokenizer.json, or ``tokenizers`` cannot load it.
    """
    from tokenizers import Tokenizer

    settings = parse(tokenizer_json) | {"padding": None, "truncation": None}
    try:
        tokenizer = Tokenizer.from_str(json.dumps(settings))
    except Exception as error:  # tokenizers raises plain Exception
        raise ExportError(f"tokenizers cannot load this tokenizer.json: {error}") from None
    tokenizer.enable_truncation(max_length)
    return tokenizer


def read_spec(settings: Json) -> TokenizerSpec:
    """Read the model-independent parts of a parsed tokenizer.json.

    Raises:
        TokenizerNotSupported: naming the first setting that the graph cannot reproduce exactly.
    """
    for section in ("truncation", "padding"):
        direction = (settings.get(section) or {}).get("direction", "Right")
        if direction != "Right":
            raise TokenizerNotSupported(f"{section} on the {direction.lower()} is not supported: only on the right")
    vocab = settings["model"].get("vocab")
    if not isinstance(vocab, dict) or not vocab:
        raise TokenizerNotSupported("the tokenizer's vocabulary is empty or not a token-to-id table")
    prefix, suffix = _template(settings.get("post_processor"))
    added = _added_tokens(settings)
    return TokenizerSpec(
        settings=settings | {"truncation": None, "padding": None},
        vocab=vocab,
        added=added,
        prefix=prefix,
        suffix=suffix,
        pad_id=_pad_id(settings.get("padding"), added, vocab),
    )


def _added_tokens(settings: Json) -> dict[str, int]:
    """lstrip and rstrip only take whitespace into the token; a BERT pre-tokenizer drops that anyway: no difference.

    The ids are those that `tokenizers` really gives: it ignores ids in the file that are not the next free ones.
    """
    entries = [entry for entry in settings.get("added_tokens") or [] if entry["content"]]
    for entry in entries:
        for flag, why in (("single_word", "it needs Unicode word boundaries"), ("normalized", "it is matched late")):
            if entry.get(flag):
                raise TokenizerNotSupported(
                    f"added token {entry['content']!r} has {flag}: true ({why}); "
                    "supported: added tokens with single_word: false and normalized: false"
                )
    if not entries:
        return {}
    reference = reference_tokenizer(settings, UNLIMITED)
    found = {entry["content"]: int(reference.token_to_id(entry["content"])) for entry in entries}
    return dict(sorted(found.items(), key=lambda item: (-len(item[0]), item[0])))


def _template(processor: Json | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if processor is None:
        return (), ()
    kind = processor.get("type")
    if kind in ("BertProcessing", "RobertaProcessing"):
        return (int(processor["cls"][1]),), (int(processor["sep"][1]),)
    if kind != "TemplateProcessing":
        raise TokenizerNotSupported(
            f"post-processor {kind} is not supported: only TemplateProcessing, BertProcessing and RobertaProcessing"
        )
    sides: list[list[int]] = [[]]
    for piece in processor["single"]:
        if "Sequence" in piece:
            sides.append([])
        else:
            sides[-1] += map(int, processor["special_tokens"][piece["SpecialToken"]["id"]]["ids"])
    if len(sides) != 2:
        raise TokenizerNotSupported(f"the template holds the text {len(sides) - 1} times; supported: exactly once")
    return tuple(sides[0]), tuple(sides[1])


def _pad_id(padding: Json | None, added: dict[str, int], vocab: dict[str, int]) -> int:
    if padding is not None:
        return int(padding["pad_id"])
    known = vocab | added
    return next((known[token] for token in ("[PAD]", "<pad>") if token in known), 0)
