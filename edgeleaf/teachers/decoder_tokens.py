"""The ids that a decoder reads: the text cut at the window, then all that lies around it, then first and last token.

The tokenizer is tokenizer.json itself without its post-processor. Which special tokens a version of transformers adds
does not matter here: the recipe says them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeleaf.errors import ModelError, RecipeError, reason_of
from edgeleaf.models.weights import MOST_TOKENIZER_BYTES
from edgeleaf.recipe.sources import KINDS, Kind
from edgeleaf.records import RecordError, parse_json, read_bytes, shown
from edgeleaf.teachers.around import Around
from edgeleaf.teachers.base import Rendered

PROBE = "a short text whose last word is changed"


class DecoderTokens:
    """Makes ids.

    Args:
        folder: a model with a tokenizer.json.
        around: what is put around the texts of each kind.
        window: how many tokens of a text are read; what is around it does not count.
        bos_token, eos_token: the first and the last token, as the vocabulary writes them; None for none.

    Raises:
        ModelError: no tokenizer.json, or a damaged one.
        RecipeError: a token that is not in the vocabulary.
    """

    def __init__(
        self,
        folder: Path,
        around: Mapping[Kind, Around],
        *,
        window: int,
        bos_token: str | None,
        eos_token: str | None,
    ) -> None:
        self.alone = bare_tokenizer(folder)
        self.window = window
        self._around = around
        self._name = folder.name
        self._first, self._last = self._special("bos_token", bos_token), self._special("eos_token", eos_token)

    def _special(self, key: str, token: str | None) -> list[int]:
        if token is None:
            return []
        found = self.alone.token_to_id(token)
        if found is None:
            added = self.alone.get_added_tokens_decoder().values()
            known = [str(added_token) for added_token in added][:8]
            raise RecipeError(
                f"teacher.{key} is {shown(token)}, which is no token of {self._name}; "
                f"its special tokens: {', '.join(map(shown, known)) or 'none'}"
            )
        return [int(found)]

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Return the texts, each cut after as many of its own tokens as the window has."""
        found = []
        for text, encoding in zip(texts, self._encoded(texts), strict=True):
            offsets = encoding.offsets
            found.append(text if len(offsets) <= self.window else text[: offsets[self.window - 1][1]])
        return found

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text alone."""
        return [len(encoding.ids) for encoding in self._encoded(texts)]

    def ids(self, texts: Sequence[str], *, kind: Kind) -> list[list[int]]:
        """Return the ids of each text, with all that lies around it.

        Raises:
            ModelError: an empty text of which no token remains.
        """
        around = self._around[kind]
        whole = [f"{around.before}{text}{around.suffix}" for text in self.cut(texts)]
        rows = [[*self._first, *encoding.ids, *self._last] for encoding in self._encoded(whole)]
        for text, row in zip(texts, rows, strict=True):
            if not row:
                raise ModelError(
                    f"{self._name} has no token for the {kind} {text[:60]!r}: leave empty texts out, or give "
                    "teacher.eos_token if the model was trained with one"
                )
        return rows

    def rendered(self, text: str, *, kind: Kind) -> Rendered:
        """Return a text with all that is put around it, and its tokens."""
        around, (ids,) = self._around[kind], self.ids([text], kind=kind)
        tokens = tuple(str(self.alone.id_to_token(token)) for token in ids)
        return Rendered(f"{around.before}{self.cut([text])[0]}{around.suffix}", tokens, tuple(ids))

    def most_around(self) -> int:
        """Return how many tokens are put around a text at most."""
        specials = len(self._first) + len(self._last)
        return specials + max(sum(self.lengths([self._around[k].before, self._around[k].suffix])) for k in KINDS)

    def probe(self) -> tuple[list[int], list[int]]:
        """Return two rows of ids that differ in their last token alone.

        Raises:
            ModelError: the tokenizer makes fewer than two different tokens of a sentence.
        """
        (encoding,) = self._encoded([PROBE])
        ids = [*self._first, *encoding.ids]
        other = next((token for token in ids if token != ids[-1]), None) if ids else None
        if other is None:
            raise ModelError(f"{self._name}: its tokenizer makes {len(ids)} token of {PROBE!r}; it may be damaged")
        return ids, [*ids[:-1], other]

    def _encoded(self, texts: Sequence[str]) -> list[Any]:
        return list(self.alone.encode_batch(list(texts), add_special_tokens=False))


def bare_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a folder's tokenizer.json, without template, padding and truncation.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no tokenizer.json; save the model's fast tokenizer there")
    try:
        settings = parse_json(read_bytes(path, most_bytes=MOST_TOKENIZER_BYTES))
        if not isinstance(settings, dict):
            raise RecordError("not a table")
        settings |= {"post_processor": None, "padding": None, "truncation": None}
        return Tokenizer.from_str(json.dumps(settings))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelError(f"{path}: damaged ({reason_of(error)}); fetch or copy the model again") from None
