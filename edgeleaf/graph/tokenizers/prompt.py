"""The query prompt, baked in: what of it can be tokenised at export, and what has to run through the graph."""

from __future__ import annotations

import re

from edgeleaf.errors import ExportError, TokenizerNotSupported
from edgeleaf.graph.tokenizers.characters import Census, Symbol, became, word_characters
from edgeleaf.graph.tokenizers.spec import AddedToken, TokenizerSpec


def split_prompt(prompt: str, spec: TokenizerSpec, characters: Census, max_length: int) -> tuple[list[int], str]:
    """Cut the prompt after its last space, punctuation or added token: ids of what lies before, and the rest.

    Whole words are tokenised now; the rest may go on in the text, so that it has to run through the graph.

    Raises:
        TokenizerNotSupported: what text comes behind the prompt decides whether it holds an added token.
        ExportError: the prompt leaves no room for text.
    """
    if unsure := _undecided(prompt, len(prompt), spec, characters):
        raise TokenizerNotSupported(
            f"the prompt ends in {unsure[1]!r}, with which the added token {unsure[0].content!r} begins; "
            "supported: a prompt whose added tokens don't depend on the text behind it"
        )
    spans = _raw_matches(prompt, spec)
    cut = max((at for at in range(1, len(prompt) + 1) if _is_boundary(prompt, at, spec, characters, spans)), default=0)
    if spans and max(spans) >= cut:
        raise TokenizerNotSupported(
            f"the prompt's last word holds the added token {spans[max(spans)].content!r}, which text behind it may "
            "change; supported: a prompt that ends in a space or in that token"
        )
    head, tail = prompt[:cut], prompt[cut:]
    head_ids: list[int] = spec.tokenizer.encode(head, add_special_tokens=False).ids
    if len(spec.prefix.ids) + len(head_ids) + len(spec.suffix.ids) >= max_length and not spec.truncates_left:
        raise ExportError(
            f"the prompt takes {len(head_ids)} of max_length {max_length} tokens; pass a larger max_length"
        )
    return head_ids, tail


def _raw_matches(prompt: str, spec: TokenizerSpec) -> dict[int, AddedToken]:
    """Where the raw text's added tokens begin: leftmost, longest, not overlapping."""
    tokens = {token.content: token for token in spec.raw}
    literals = "|".join(map(re.escape, tokens)) or "(?!)"
    return {match.start(): tokens[match[0]] for match in re.finditer(literals, prompt)}


def _is_boundary(prompt: str, at: int, spec: TokenizerSpec, characters: Census, spans: dict[int, AddedToken]) -> bool:
    """Whether what stands before this place is tokenised alike, whatever stands behind it."""
    for start, token in spans.items():
        end = start + len(token.content)
        if end > at:
            return False  # the rest runs through the graph as symbols, behind the point where those are found
        if end == at and not token.single_word:
            return True
    if _undecided(prompt, at, spec, characters):
        return False
    last = characters.get(prompt[at - 1], (Symbol(prompt[at - 1], "word"),))
    if not any(symbol.kind != "word" for symbol in last):
        return False
    # A single_word token behind it must see that it is no word character; a token's symbol never is one.
    single_word = any(token.single_word for token in spec.normalized)
    return not (single_word and last[-1].kind == "isolated" and last[-1].character in word_characters())


def _undecided(prompt: str, at: int, spec: TokenizerSpec, characters: Census) -> tuple[AddedToken, str] | None:
    """An added token that may lie across this place, or that ends here and must not be followed by a letter."""
    for token in spec.added:
        parts = (prompt[:at], prompt[at:], token.content)
        seen: list[tuple[object, ...]] = [became(characters, p) if token.normalized else tuple(p) for p in parts]
        before, after, content = seen
        for length in range(1, len(content) + token.single_word):
            rest = content[length:]
            if before[-length:] == content[:length] and (after[: len(rest)] == rest or rest[: len(after)] == after):
                return token, prompt[:at][-length:]
    return None
