"""Turns request bodies into dataclasses: checks every field, and has one sentence for each fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from edgeleaf.bundle.space import VectorSpace
from edgeleaf.errors import EdgeleafError, InputError
from edgeleaf.records import shown
from edgeleaf.search.filters import Filter, parse_filter
from edgeleaf.server.settings import Limits
from edgeleaf.vectors import is_whole

QUERY_ROLES = frozenset({"query", "search_query", "retrieval_query", "retrieval.query"})
DOCUMENT_ROLES = frozenset({"document", "search_document", "retrieval_document", "retrieval.passage", "passage"})


class BadRequest(EdgeleafError):
    """A request that the server refuses.

    Attributes:
        status: the HTTP status.
        param: the field at fault, if there is one.
        code: a word by which programs can recognise the fault.
    """

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


@dataclass(frozen=True)
class Asked:
    """A request for vectors.

    Args:
        texts: what to encode.
        model: the bundle's name, if one was given.
        dims: numbers of each vector; None for all.
        as_base64: whether vectors are returned as base64 of little-endian float32.
        truncate: whether a text that is longer than the encoder's window may be cut.
    """

    texts: Sequence[str]
    model: str | None
    dims: int | None
    as_base64: bool
    truncate: bool


@dataclass(frozen=True)
class Searched:
    """A search.

    Args:
        texts: what to search for.
        single: whether the request had one string, not a list.
        model: the bundle's name, if one was given.
        k: how many documents per text.
        where: a filter over the documents' metadata, or None.
        hybrid: whether to search for the texts' words too.
    """

    texts: Sequence[str]
    single: bool
    model: str | None
    k: int
    where: Filter | None = None
    hybrid: bool = False


def parsed(body: bytes) -> Mapping[str, Any]:
    """Return a body's JSON object."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"the body is not JSON in UTF-8 ({_reason(error)}); send an object", code="invalid_json"
        ) from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply; send an object of strings", code="invalid_json") from None
    if not isinstance(value, dict):
        raise BadRequest(f"the body is {_kind(value)}; an object is needed", code="invalid_json")
    return value


def embeddings(body: Mapping[str, Any], limits: Limits, roles: Mapping[str, VectorSpace]) -> Asked:
    """Read a request in OpenAI's form.

    Args:
        body: the parsed body.
        limits: what the server accepts.
        roles: the spaces that are served, by the bundles' names; an error names their teachers.
    """
    texts, _ = _texts(body, "input", limits)
    _no_documents(body, roles)
    form = body.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise BadRequest(f"encoding_format is {shown(form)}; float or base64 is needed", param="encoding_format")
    return Asked(texts, _string(body, "model"), _dims(body), form == "base64", _flag(body, "truncate", default=True))


def embed(body: Mapping[str, Any], limits: Limits, roles: Mapping[str, VectorSpace]) -> Asked:
    """Read a request in text-embeddings-inference's form; arguments as for :func:`embeddings`."""
    texts, _ = _texts(body, "inputs", limits)
    _no_documents(body, roles)
    name = _string(body, "prompt_name")
    if name is not None:
        _role(name, "prompt_name", roles)
    direction = body.get("truncation_direction")
    if direction not in (None, "Right", "right"):
        raise BadRequest(
            f"truncation_direction is {shown(direction)}; the file cuts on the right only", param="truncation_direction"
        )
    if not _flag(body, "normalize", default=True):
        raise BadRequest("normalize is false; vectors of this space have unit length", param="normalize")
    return Asked(texts, _string(body, "model"), _dims(body), False, _flag(body, "truncate", default=True))


def search(body: Mapping[str, Any], limits: Limits, roles: Mapping[str, VectorSpace]) -> Searched:
    """Read a search: ``query``, a string or a list of them, ``k``, ``where`` and ``hybrid``."""
    texts, single = _texts(body, "query", limits)
    _no_documents(body, roles)
    k = 10 if body.get("k") is None else _whole(body["k"])
    if k is None or not 1 <= k <= limits.hits:
        raise BadRequest(f"k is {shown(body['k'])}; a whole number from 1 to {limits.hits} is needed", param="k")
    if len(texts) * k > limits.hits:
        raise BadRequest(
            f"{len(texts)} queries with k {k} ask for {len(texts) * k} documents; {limits.hits} are given at most, "
            "ask for fewer or in parts",
            status=422,
            param="k",
            code="too_many_documents",
        )
    hybrid = _flag(body, "hybrid", default=False)
    return Searched(texts, single, _string(body, "model"), k, _filter(body), hybrid)


def _filter(body: Mapping[str, Any]) -> Filter | None:
    where = _string(body, "where")
    try:
        return None if where is None else parse_filter(where)
    except InputError as error:
        raise BadRequest(f"where is {error}", param="where", code="invalid_filter") from None


def _texts(body: Mapping[str, Any], name: str, limits: Limits) -> tuple[list[str], bool]:
    if name not in body:
        raise BadRequest(f"the body has no {name}; a string, or a list of strings, is needed", param=name)
    value = body[name]
    single = isinstance(value, str)
    texts = [value] if single else value
    if not isinstance(texts, list):
        raise BadRequest(f"{name} is {_kind(value)}; a string, or a list of strings, is needed", param=name)
    if not texts:
        raise BadRequest(f"{name} is an empty list; at least one string is needed", param=name)
    if len(texts) > limits.most_texts:
        raise BadRequest(
            f"{name} has {len(texts)} texts; {limits.most_texts} are taken at most, send them in parts",
            status=422,
            param=name,
            code="too_many_texts",
        )
    if is_whole(texts[0]) or (isinstance(texts[0], list) and texts[0] and all(map(is_whole, texts[0]))):
        raise BadRequest(
            f"{name} holds token ids, which are those of another tokenizer; send text (LangChain's OpenAIEmbeddings: "
            "check_embedding_ctx_length=False)",
            param=name,
            code="token_ids",
        )
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadRequest(f"{name}[{place}] is {_kind(text)}; a string is needed", param=name)
        if len(text) > limits.text:
            raise BadRequest(
                f"{name}{'' if single else f'[{place}]'} has {len(text)} characters; {limits.text} are taken at most",
                status=422,
                param=name,
                code="text_too_long",
            )
    return texts, single


def _no_documents(body: Mapping[str, Any], roles: Mapping[str, VectorSpace]) -> None:
    for name in ("input_type", "task"):
        role = _string(body, name)
        if role is not None:
            _role(role, name, roles)


def _role(role: str, name: str, roles: Mapping[str, VectorSpace]) -> None:
    if role.lower() in DOCUMENT_ROLES:
        teachers = ", ".join(dict.fromkeys(space.teacher for space in roles.values()))
        raise BadRequest(
            f"{name} is {shown(role)}; this server encodes queries only, documents are encoded with {teachers} "
            "(edgeleaf index)",
            param=name,
            code="document_role",
        )
    if role.lower() not in QUERY_ROLES:
        raise BadRequest(f"{name} is {shown(role)}; query is needed", param=name)


def _dims(body: Mapping[str, Any]) -> int | None:
    if body.get("dimensions") is None:
        return None
    dims = _whole(body["dimensions"])
    if dims is None or dims < 1:
        raise BadRequest(
            f"dimensions is {shown(body['dimensions'])}; a whole number from 1 is needed", param="dimensions"
        )
    return dims


def _whole(value: Any) -> int | None:
    """Return a whole number, which JSON may also write as 8.0; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if is_whole(value) else None


def _string(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} is {_kind(value)}; a string is needed", param=name)
    return value


def _flag(body: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadRequest(f"{name} is {_kind(value)}; true or false is needed", param=name)
    return value


_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}


def _kind(value: Any) -> str:
    return "null" if value is None else _KINDS[type(value)]


def _reason(error: orjson.JSONDecodeError) -> str:
    return str(error).split(": line ")[0]
