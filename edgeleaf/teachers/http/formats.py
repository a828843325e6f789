"""What is sent to an embeddings endpoint and what comes back, in each API; answers are checked number by number.

Sources: https://platform.openai.com/docs/api-reference/embeddings, https://docs.cohere.com/reference/embed (v2),
https://huggingface.github.io/text-embeddings-inference (/embed).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.recipe.sources import Kind

Json = dict[str, Any]


class AnswerFault(Exception):
    """An answer that is whole JSON and wrong all the same; the text says what came and what was needed."""


@dataclass(frozen=True)
class Answer:
    """What an endpoint gave.

    Args:
        rows: one list per text, in the order of the texts.
        tokens: the tokens that it counted; None if it does not say.
    """

    rows: Sequence[Any]
    tokens: int | None


@dataclass(frozen=True)
class Api:
    """One API.

    Args:
        body: makes a request's body of the model's name, the texts, their kind and the width that is asked for.
        read: reads an answer to a number of texts; raises AnswerFault.
        sends_dims: whether the endpoint shortens vectors itself; otherwise they are cut here.
    """

    body: Callable[[str, Sequence[str], Kind, int | None], Json]
    read: Callable[[Any, int], Answer]
    sends_dims: bool


def matrix(rows: Sequence[Any], *, texts: int, dim: int | None) -> npt.NDArray[np.float32]:
    """Return an answer's rows as unit vectors, float32 [texts, width].

    Args:
        rows: what came.
        texts: how many texts were sent.
        dim: the width that is needed; None for any, as long as all rows have it.

    Raises:
        AnswerFault: another number of rows, another width, something that is not a finite number, or a zero vector.
    """
    if len(rows) != texts:
        raise AnswerFault(f"{len(rows)} vectors for {texts} texts")
    width = dim if dim is not None else len(rows[0]) if isinstance(rows[0], list) else 0
    for n, row in enumerate(rows):
        if not isinstance(row, list) or not row:
            raise AnswerFault(f"vector {n} is not a list of numbers")
        if len(row) != width:
            raise AnswerFault(f"vector {n} has {len(row)} numbers, {width} are needed")
        if not all(type(value) in (float, int) for value in row):
            raise AnswerFault(f"vector {n} holds something that is not a number")
    found = np.array(rows, dtype=np.float64)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
    if len(wrong):
        raise AnswerFault(f"vector {wrong[0]} has length {lengths[wrong[0], 0]:.4g}")
    return np.asarray(found / lengths, dtype=np.float32)


def _openai_body(model: str, texts: Sequence[str], kind: Kind, dims: int | None) -> Json:
    body: Json = {"model": model, "input": list(texts), "encoding_format": "float"}
    return body if dims is None else {**body, "dimensions": dims}


def _openai_answer(answer: Any, texts: int) -> Answer:
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise AnswerFault(f"no list under 'data' ({_keys(answer)})")
    if len(data) != texts:
        raise AnswerFault(f"{len(data)} vectors for {texts} texts")
    places = [entry.get("index") for entry in data]
    if any(type(place) is not int for place in places) or sorted(places) != list(range(texts)):
        raise AnswerFault(f"the indices of {texts} vectors are not 0 to {texts - 1}, each once: {str(places)[:60]}")
    rows = [entry.get("embedding") for entry in sorted(data, key=lambda entry: int(entry["index"]))]
    return Answer(rows, _count(answer.get("usage"), "total_tokens", "prompt_tokens"))


def _cohere_body(model: str, texts: Sequence[str], kind: Kind, dims: int | None) -> Json:
    body: Json = {
        "model": model,
        "texts": list(texts),
        "input_type": f"search_{kind}",
        "embedding_types": ["float"],
        "truncate": "END",
    }
    return body if dims is None else {**body, "output_dimension": dims}


def _cohere_answer(answer: Any, texts: int) -> Answer:
    embeddings = answer.get("embeddings") if isinstance(answer, dict) else None
    rows = embeddings.get("float") if isinstance(embeddings, dict) else None
    if not isinstance(rows, list):
        raise AnswerFault(f"no list under 'embeddings.float' ({_keys(answer)})")
    meta = answer.get("meta")
    return Answer(rows, _count(meta.get("billed_units") if isinstance(meta, dict) else None, "input_tokens"))


def _tei_body(model: str, texts: Sequence[str], kind: Kind, dims: int | None) -> Json:
    return {"inputs": list(texts), "normalize": True, "truncate": True}


def _tei_answer(answer: Any, texts: int) -> Answer:
    if not isinstance(answer, list):
        raise AnswerFault(f"no list of vectors ({_keys(answer)})")
    return Answer(answer, None)


def _count(table: Any, *names: str) -> int | None:
    for name in names if isinstance(table, dict) else ():
        value = table.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
            return int(value)
    return None


def _keys(answer: Any) -> str:
    if not isinstance(answer, dict):
        return f"a {type(answer).__name__} came"
    return f"keys: {', '.join(map(str, answer))[:80] or 'none'}"


APIS: Mapping[str, Api] = {
    "openai": Api(_openai_body, _openai_answer, sends_dims=True),
    "cohere": Api(_cohere_body, _cohere_answer, sends_dims=True),
    "tei": Api(_tei_body, _tei_answer, sends_dims=False),
}
"""By ``teacher.http.api`` of a recipe."""
