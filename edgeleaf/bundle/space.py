"""The identity of a vector space, and whether two spaces are the same."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgeleaf.errors import SpaceWarning
from edgeleaf.records import RecordError, number, parse_json, record, shown

MOST_DIM = 65_536
_NAMES = frozenset({"teacher", "revision"})
_LATER: dict[str, str] = {"tokenizer_sha256": "tokenizer", "attention": "attention direction"}
"""Fields that records of edgeleaf 0.1 do not have, and their names in messages."""
AROUND = frozenset({"query_context", "query_suffix", "document_suffix", "bos_token", "eos_token"})
"""Fields that are left out if nothing is put there."""


@dataclass(frozen=True)
class VectorSpace:
    """The space that a vector lives in. Vectors of two spaces must never be compared, see :func:`same_space`.

    Args:
        teacher: the name that it was loaded by, such as ``sentence-transformers/all-mpnet-base-v2``.
        revision: the hub revision, if one was pinned.
        weights_sha256: hash of the teacher's weights.
        pooling: ``mean``, ``cls``, ``lasttoken``, ...
        normalized: whether vectors have unit L2 norm.
        query_prompt, document_prompt: the text that is put before a query, or a document.
        dim: the width of a vector.
        tokenizer_sha256: hash of the teacher's tokenizer, see ``edgeleaf.models.weights.tokenizer_sha256``; None if
            it is not known, as in files of edgeleaf 0.1.
        attention: whether a token sees those after it (``bidirectional``) or not (``causal``); None as above.
        query_context: in-context examples that the teacher reads before the prompt of a query. Like the fields below,
            the teacher alone reads them, a student does not; None if there are none.
        query_suffix, document_suffix: the text after a query, or a document.
        bos_token, eos_token: the tokens that are first and last, if the teacher's kind puts them there itself.
    """

    teacher: str
    revision: str | None
    weights_sha256: str
    pooling: str
    normalized: bool
    query_prompt: str
    document_prompt: str
    dim: int
    tokenizer_sha256: str | None = None
    attention: Literal["bidirectional", "causal"] | None = None
    query_context: str | None = None
    query_suffix: str | None = None
    document_suffix: str | None = None
    bos_token: str | None = None
    eos_token: str | None = None

    @property
    def id(self) -> str:
        """A short name that two equal spaces share: ``all-mpnet-base-v2/768/5f0c2a9b41d7``."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()
        return f"{self.teacher.rsplit('/', 1)[-1]}/{self.dim}/{digest[:12]}"

    def identity(self) -> dict[str, Any]:
        """Return what identifies the space: every field except the name under which the teacher was found.

        A field that only later records have is left out if it is None, so that an old record keeps its id.
        """
        return {
            key: value
            for key, value in asdict(self).items()
            if key not in _NAMES and not (key in _LATER.keys() | AROUND and value is None)
        }

    def record(self) -> dict[str, Any]:
        """Return the space as JSON has it: a field of what lies around a text is left out if nothing lies there.

        So the space of a teacher without such fields is written as it always was, and older readers read it.
        """
        return {key: value for key, value in asdict(self).items() if not (key in AROUND and value is None)}

    @staticmethod
    def read(value: Any, *, where: str = "") -> VectorSpace:
        """Make a space from parsed JSON, or from the text of its JSON.

        Raises:
            RecordError: it is not a space; the message names the key.
        """
        space = record(VectorSpace, parse_json(value) if isinstance(value, (str, bytes)) else value, where=where)
        space.check(where=where)
        return space

    def check(self, *, where: str = "") -> None:
        """Raise RecordError if a value makes no sense."""
        number(self.dim, f"{where}.dim".removeprefix("."), low=1, high=MOST_DIM)
        for name in ("teacher", "pooling"):
            text = getattr(self, name)
            if not text or any(ord(character) < 32 for character in text):
                raise RecordError(f"{where}.{name} is {shown(text)}; a name is needed".removeprefix("."))


def same_space(one: VectorSpace, other: VectorSpace) -> bool:
    """Return whether vectors of two spaces may be compared: whether everything that both record is equal.

    A tokenizer or a direction that one of them lacks, because an older edgeleaf wrote it, is not compared; a
    SpaceWarning names it.
    """
    a, b = one.identity(), other.identity()
    if any(a.get(key) != b.get(key) for key in AROUND):
        return False
    if any(a[key] != b[key] for key in a.keys() & b.keys()):
        return False
    if unsaid := [_LATER[key] for key in _LATER if (key in a) != (key in b)]:
        older = one if len(a) < len(b) else other
        warnings.warn(
            f"the space {older.id} was recorded by an older edgeleaf, which did not record its {' and '.join(unsaid)}: "
            f"not compared with {(other if older is one else one).id}",
            SpaceWarning,
            stacklevel=3,
        )
    return True
