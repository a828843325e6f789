"""What a tokenizer.json asks for, around its model: added tokens, template, padding; and refusing what is not exact.

Shared by every tokenizer model (WordPiece today), so everything here is about token ids and text, not about words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from edgeleaf.errors import ExportError, TokenizerNotSupported
from edgeleaf.records import RecordError, parse_json, shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

RESERVED = ("\ue000pad", "\ue000row")  # how the graph's own elements begin, among the characters of a text
UNLIMITED = 1 << 30  # a max_length for texts that are not to be cut
UNLISTED = "\ua66e\u16a0\U0001242b\U0001f9ff"
"""A letter that occurs once in one psalter, a rune, a cuneiform numeral and an amulet."""
Json = dict[str, Any]


@dataclass(frozen=True)
class AddedToken:
    """A token that is cut out of the text before the model sees it.

    Attributes:
        content: how it is written.
        id: the id that `tokenizers` really gives.
        normalized: it is looked for in the normalised text, in its own normalised form; otherwise in the raw text.
        single_word: it counts only where no letter, digit or the like is next to it.
        lstrip, rstrip: it takes in the whitespace before or behind it.
    """

    content: str
    id: int
    normalized: bool
    single_word: bool
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True)
class Specials:
    """Tokens that the template puts on one side of the text: ids and token types."""

    ids: tuple[int, ...] = ()
    types: tuple[int, ...] = ()


@dataclass(frozen=True)
class TokenizerSpec:
    """The parts of a tokenizer.json that do not depend on the kind of model.

    Attributes:
        settings: the parsed tokenizer.json, without padding.
        vocab: token to id, of the model.
        added: the added tokens; of several that match at a place, the longest counts.
        prefix, suffix: what the template puts around one text.
        text_type: the text's own token type.
        pad_id, pad_type: what fills up shorter rows.
        truncates_left: texts that are too long lose their beginning instead of their end.
        tokenizer: the real tokenizer, which neither pads nor truncates.
    """

    settings: Json
    vocab: dict[str, int]
    added: tuple[AddedToken, ...]
    prefix: Specials
    suffix: Specials
    text_type: int
    pad_id: int
    pad_type: int
    truncates_left: bool
    tokenizer: Tokenizer = field(compare=False, repr=False)

    @property
    def raw(self) -> tuple[AddedToken, ...]:
        """The added tokens that are looked for in the raw text, longest first."""
        return tuple(sorted((t for t in self.added if not t.normalized), key=lambda t: (-len(t.content), t.content)))

    @property
    def normalized(self) -> tuple[AddedToken, ...]:
        """The added tokens that are looked for in the normalised text, in order of precedence."""
        return tuple(token for token in self.added if token.normalized)


def parse(tokenizer_json: str | Json) -> Json:
    """Return the tokenizer.json (its text, or already parsed) as a fresh dict.

    Raises:
        ExportError: it is not a JSON object with a model.
    """
    if isinstance(tokenizer_json, str):
        try:
            tokenizer_json = parse_json(tokenizer_json)
        except RecordError as error:
            raise ExportError(f"tokenizer.json cannot be read ({error}); pass the file's text") from None
    if not isinstance(tokenizer_json, dict) or not isinstance(tokenizer_json.get("model"), dict):
        raise ExportError('tokenizer.json has no "model"; pass the text of a file that `tokenizers` saved')
    settings = dict(tokenizer_json)
    if "type" not in settings["model"]:  # as files from before tokenizers 0.9
        settings["model"] = {"type": _kind_of(settings), **settings["model"]}
    return settings


def _kind_of(settings: Json) -> str:
    """The kind of model that ``tokenizers`` takes a file for which names none."""
    from tokenizers import Tokenizer

    try:
        return type(Tokenizer.from_str(json.dumps(settings)).model).__name__
    except Exception as error:  # tokenizers raises plain Exception
        raise ExportError(f"tokenizers cannot load this tokenizer.json: {error}") from None


def reference_tokenizer(tokenizer_json: str | dict[str, Any], max_length: int) -> Tokenizer:
    """Return the tokenizer that the graph is compared with: no padding, truncated to ``max_length`` on its own side.

    Raises:
        ExportError: not a tokenizer.json, ``tokenizers`` cannot load it, or its model cannot encode an unknown word.
    """
    settings = parse(tokenizer_json)
    side = _direction(settings, "truncation").lower()
    settings |= {"padding": None, "truncation": None}
    tokenizer = _loaded(settings)
    try:
        tokenizer.model.tokenize(UNLISTED)
    except Exception as error:  # tokenizers raises plain Exception
        reason = " ".join(str(error).split())
        raise ExportError(f"this tokenizer.json cannot encode an unknown word: {reason[:200]}") from None
    tokenizer.enable_truncation(max_length, direction=side)
    return tokenizer


def check_loads(settings: Json) -> None:
    """Check a tokenizer.json by loading it as it is.

    Raises:
        ExportError: ``tokenizers`` cannot load it.
    """
    _loaded(settings)


def _loaded(settings: Json) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(json.dumps(settings))
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # tokenizers raises plain Exception, and a panic of Rust's as a BaseException
        reason = " ".join(str(error).split())
        raise ExportError(f"tokenizers cannot load this tokenizer.json: {reason[:200]}") from None


def _direction(settings: Json, section: str) -> str:
    """Where a tokenizer pads or truncates: Left or Right."""
    table = settings.get(section) or {}
    side = table.get("direction", "Right") if isinstance(table, dict) else table
    if side not in ("Left", "Right"):
        raise ExportError(f"tokenizer.json: {section}.direction is {shown(side)}; Left or Right is needed")
    return str(side)


def read_spec(settings: Json) -> TokenizerSpec:
    """Read the model-independent parts of a parsed tokenizer.json.

    Raises:
        TokenizerNotSupported: naming the first setting that the graph cannot reproduce exactly.
        ExportError: ``tokenizers`` cannot load it.
    """
    tokenizer = _loaded(settings)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if _direction(settings, "padding") != "Right":
        raise TokenizerNotSupported("padding on the left is not supported: only on the right")
    vocab = settings["model"].get("vocab")
    if settings["model"].get("type") == "Unigram" and isinstance(vocab, list):
        vocab = {piece: number for number, (piece, _) in enumerate(vocab)}
    if not isinstance(vocab, dict) or not vocab:
        raise TokenizerNotSupported("the tokenizer's vocabulary is empty or not a token-to-id table")
    prefix, text_type, suffix = read_template(settings)
    added = _added_tokens(settings, tokenizer)
    padding = settings.get("padding")
    return TokenizerSpec(
        settings=settings | {"padding": None},
        vocab=vocab,
        added=added,
        prefix=prefix,
        suffix=suffix,
        text_type=text_type,
        pad_id=_pad_id(padding, added, vocab),
        pad_type=int(padding["pad_type_id"]) if padding else 0,
        truncates_left=_direction(settings, "truncation") == "Left",
        tokenizer=tokenizer,
    )


def _added_tokens(settings: Json, tokenizer: Tokenizer) -> tuple[AddedToken, ...]:
    """Special ones first.

    lstrip and rstrip only take whitespace into the token; a BERT pre-tokenizer drops that anyway: no difference, but
    for tokens that are whitespace themselves, which a token before them can take in.
    The ids are those that `tokenizers` really gives: it ignores ids in the file that are not the next free ones.
    """
    entries = [entry for entry in settings.get("added_tokens") or [] if entry["content"]]
    contents = [entry["content"] for entry in entries]
    if twice := next((content for content in contents if contents.count(content) > 1), None):
        raise TokenizerNotSupported(f"added token {twice!r} is listed twice; supported: once each")
    taken = next((entry["content"] for entry in entries if entry["content"].isspace() and entry.get("lstrip")), None)
    if taken is not None and any(entry.get("rstrip") for entry in entries):
        raise TokenizerNotSupported(
            f"added token {taken!r} is whitespace with lstrip, which an added token with rstrip may take in; "
            "supported: lstrip: false for it"
        )
    reserved = next((content for content in contents if content.startswith(RESERVED)), None)
    if reserved is not None:
        raise TokenizerNotSupported(f"added token {reserved!r} begins like the graph's own marks; rename it")
    return tuple(
        AddedToken(
            content=entry["content"],
            id=int(cast(int, tokenizer.token_to_id(entry["content"]))),
            normalized=bool(entry.get("normalized")),
            single_word=bool(entry.get("single_word")),
            lstrip=bool(entry.get("lstrip")),
            rstrip=bool(entry.get("rstrip")),
        )
        for entry in sorted(entries, key=lambda entry: not entry.get("special"))
    )


def read_template(settings: Json) -> tuple[Specials, int, Specials]:
    """Return what a parsed tokenizer.json puts before one text, the text's own token type, and what comes after it.

    Raises:
        TokenizerNotSupported: it holds a post-processor that does anything else.
    """
    processor: Json | None = settings.get("post_processor")
    if processor is None:
        return Specials(), 0, Specials()
    if processor.get("type") == "Sequence":  # ByteLevel only changes offsets
        others = [step for step in processor.get("processors") or [] if step.get("type") != "ByteLevel"]
        if len(others) > 1:
            raise TokenizerNotSupported("several post-processors are not supported: only one, and ByteLevel")
        return read_template({"post_processor": others[0] if others else None})
    kind = processor.get("type")
    if kind == "ByteLevel":
        return Specials(), 0, Specials()
    if kind in ("BertProcessing", "RobertaProcessing"):
        return Specials((int(processor["cls"][1]),), (0,)), 0, Specials((int(processor["sep"][1]),), (0,))
    if kind != "TemplateProcessing":
        raise TokenizerNotSupported(
            f"post-processor {kind} is not supported: only TemplateProcessing, BertProcessing and RobertaProcessing"
        )
    sides: list[list[tuple[int, int]]] = [[]]
    text_type = 0
    for piece in processor["single"]:
        if "Sequence" in piece:
            if piece["Sequence"]["id"] != "A":
                raise TokenizerNotSupported("the template for one text holds the second one ($B); supported: $A")
            text_type = int(piece["Sequence"]["type_id"])
            sides.append([])
        else:
            special = piece["SpecialToken"]
            ids = processor["special_tokens"][special["id"]]["ids"]
            sides[-1] += [(int(token_id), int(special["type_id"])) for token_id in ids]
    if len(sides) != 2:
        raise TokenizerNotSupported(f"the template holds the text {len(sides) - 1} times; supported: exactly once")
    prefix, suffix = (Specials(tuple(i for i, _ in side), tuple(t for _, t in side)) for side in sides)
    return prefix, text_type, suffix


@dataclass(frozen=True)
class TokenTypes:
    """The types of a text's tokens, by a template that gives types other than 0.

    Attributes:
        prefix, suffix: types of the special tokens before and after the text.
        text: the type of the text's own tokens.
    """

    prefix: tuple[int, ...]
    text: int
    suffix: tuple[int, ...]


def template_types(settings: Json) -> TokenTypes | None:
    """Return the token types that a parsed tokenizer.json's template gives one text; None if all are 0.

    Raises:
        TokenizerNotSupported: see :func:`read_template`.
    """
    prefix, text, suffix = read_template(settings)
    types = TokenTypes(prefix.types, text, suffix.types)
    return types if any((*types.prefix, types.text, *types.suffix)) else None


def _pad_id(padding: Json | None, added: Sequence[AddedToken], vocab: dict[str, int]) -> int:
    if padding is not None:
        return int(padding["pad_id"])
    known = vocab | {token.content: token.id for token in added}
    return next((known[token] for token in ("[PAD]", "<pad>") if token in known), 0)
