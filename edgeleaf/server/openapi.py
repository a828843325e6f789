"""The OpenAPI document of a server: its endpoints, what they take, and the statuses that they answer with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeleaf.search.filters import MOST_CHARACTERS
from edgeleaf.server.models import Served
from edgeleaf.server.settings import Settings
from edgeleaf.version import __version__

_TEXTS = {
    400: "The request cannot be answered as it is; the message says why.",
    408: "The body was not whole in time.",
    413: "The body is too long, or a text is longer than the encoder's window and truncate is false.",
    415: "The body is compressed in an unknown way.",
    422: "There are too many texts, or a text is too long.",
    429: "Too many texts wait; Retry-After says after how many seconds to come again.",
    500: "A fault of the server; its log has the reason.",
}
_NO_STORE = "The store cannot be read now, or was replaced by one of another vector space."
_WHERE = {
    "type": ["string", "null"],
    "maxLength": MOST_CHARACTERS,
    "description": "Only documents whose metadata fulfil it are found. Columns with =, !=, <, <=, >, >=, in (...) and "
    "is null, joined by and, or, not and brackets; texts in single quotes. What is not in this grammar, and a column "
    "that no document has, is a 400.",
    "examples": ["lang = 'en' and year >= 2020", "lang in ('en', 'de') or not (open = true)", "author is null"],
}


def document(served: Mapping[str, Served], settings: Settings) -> dict[str, Any]:
    """Return the document."""
    limits = settings.limits
    text = {"type": "string", "maxLength": limits.text}
    texts = {"oneOf": [text, {"type": "array", "items": text, "minItems": 1, "maxItems": limits.most_texts}]}
    several = len(served) > 1
    names = {"type": "string", "enum": list(served)} if several else {"type": ["string", "null"]}
    dims = {"type": ["integer", "null"], "minimum": 1, "maximum": max(one.space.dim for one in served.values())}
    flag = {"type": ["boolean", "null"]}
    role = {"type": ["string", "null"], "enum": ["query", "search_query", "retrieval_query", "retrieval.query", None]}
    roles = {"input_type": role, "task": role}
    needed = ["model"] if several else []
    vector = {"type": "array", "items": {"type": "number"}}
    openai = _object(
        {
            "input": texts,
            "model": names,
            "dimensions": dims,
            "encoding_format": {"type": ["string", "null"], "enum": ["float", "base64", None]},
            "truncate": flag,
            **roles,
        },
        ["input", *needed],
    )
    embed = _object(
        {
            "inputs": texts,
            "model": names,
            "dimensions": dims,
            "truncate": flag,
            "truncation_direction": {"type": ["string", "null"], "enum": ["Right", "right", None]},
            "normalize": {"type": ["boolean", "null"], "enum": [True, None]},
            "prompt_name": role,
            **roles,
        },
        ["inputs", *needed],
    )
    search = _object(
        {
            "query": texts,
            "model": names,
            "k": {"type": ["integer", "null"], "minimum": 1, "maximum": limits.hits},
            "where": _WHERE,
            "hybrid": flag,
        },
        ["query", *needed],
    )
    model = _object({"id": {"type": "string"}, "object": {"const": "model"}, "dimensions": {"type": "integer"}}, ["id"])
    embedding = _object(
        {
            "object": {"const": "embedding"},
            "index": {"type": "integer"},
            "embedding": {"oneOf": [vector, {"type": "string", "contentEncoding": "base64"}]},
        },
        ["object", "index", "embedding"],
    )
    usage = {name: {"type": "integer"} for name in ("prompt_tokens", "total_tokens", "truncated_texts")}
    answer = _object(
        {
            "object": {"const": "list"},
            "data": {"type": "array", "items": embedding},
            "model": {"type": "string"},
            "usage": _object(usage, list(usage)),
        },
        ["object", "data", "model", "usage"],
    )
    hit = _object(
        {"id": {"type": "string"}, "score": {"type": "number"}, "text": {"type": "string"}}, ["id", "score", "text"]
    )
    hits = {"type": "array", "items": hit}
    status = _object({"status": {"type": "string"}}, ["status"])
    found = _object(
        {"model": {"type": "string"}, "hits": {"anyOf": [hits, {"type": "array", "items": hits}]}}, ["model", "hits"]
    )
    error, tei = {"$ref": "#/components/schemas/Error"}, {"$ref": "#/components/schemas/EmbedError"}
    listed = _object({"object": {"const": "list"}, "data": {"type": "array", "items": model}}, ["object", "data"])
    paths: dict[str, Any] = {
        "/v1/embeddings": {
            "post": _post("Vectors of queries, as OpenAI's clients ask for them", openai, answer, error)
        },
        "/embed": {
            "post": _post(
                "Vectors of queries, as clients of text-embeddings-inference ask for them",
                embed,
                {"type": "array", "items": vector},
                tei,
            )
        },
        "/v1/models": {"get": _get("The bundles that are served", listed, error)},
        "/v1/models/{name}": {
            "get": _get("One bundle", model, error, missing=True)
            | {"parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]}
        },
        "/health": {"get": _get("Whether the process answers", status, None)},
        "/ready": {"get": _get("Whether it takes requests: 503 when the queue is full or it stops", status, None)},
        "/metrics": {
            "get": {
                "summary": "Counters for Prometheus",
                "security": [],
                "responses": {"200": {"description": "Text."}},
            }
        },
    }
    if several:
        for place, shape in (("/v1/embeddings", error), ("/embed", tei)):
            paths[place]["post"]["responses"]["404"] = {
                "description": "There is no such bundle.",
                "content": _content(shape),
            }
    paths["/ready"]["get"]["responses"]["503"] = {"description": "Not now.", "content": _content(status)}
    if any(one.index is not None for one in served.values()):
        operation = _post("The documents nearest to a query", search, found, error)
        for code, why in (
            ("404", "This bundle has no index."),
            ("501", "Key words need a package that the server lacks."),
            ("503", _NO_STORE),
        ):
            operation["responses"][code] = {"description": why, "content": _content(error)}
        paths["/search"] = {"post": operation}
        for place in ("/v1/models", "/v1/models/{name}"):  # they say how many documents there are
            paths[place]["get"]["responses"]["503"] = {"description": _NO_STORE, "content": _content(error)}
    schemes: dict[str, Any] = {}
    if settings.api_key is not None:
        schemes = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
        for place, path in paths.items():
            for name, operation in path.items():
                if name in ("get", "post") and operation.get("security") is None:
                    answer_401 = _content(tei if place == "/embed" else error)
                    operation["responses"]["401"] = {"description": "No key, or a wrong one.", "content": answer_401}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgeleaf",
            "version": __version__,
            "description": "Vectors of queries in the spaces of large teachers: "
            + "; ".join(one.space.id for one in served.values()),
        },
        "paths": paths,
        **({"security": [{"key": []}]} if schemes else {}),
        "components": {
            **schemes,
            "schemas": {
                "Error": _object({"error": _object({"message": {"type": "string"}}, ["message"])}, ["error"]),
                "EmbedError": _object({"error": {"type": "string"}, "error_type": {"type": "string"}}, ["error"]),
            },
        },
    }


def _object(properties: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": required}


def _content(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _post(summary: str, takes: Any, gives: Any, error: Any) -> dict[str, Any]:
    failures = {str(status): {"description": text, "content": _content(error)} for status, text in _TEXTS.items()}
    header = {"description": "Texts of which the end was not read.", "schema": {"type": "integer"}}
    done = {"description": "Done.", "content": _content(gives), "headers": {"X-Edgeleaf-Truncated": header}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": _content(takes)},
        "responses": {"200": done, **failures},
    }


def _get(summary: str, gives: Any, error: Any, *, missing: bool = False) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "Done.", "content": _content(gives)}},
    }
    if missing:
        operation["responses"]["404"] = {"description": "There is no such bundle.", "content": _content(error)}
    if error is None:
        operation["security"] = []
    return operation
