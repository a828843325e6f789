"""Answers: JSON, errors in the shapes of two APIs, and the log's lines."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.responses import Response

from edgeleaf.bundle.encoder import Counted
from edgeleaf.server.requests import BadRequest

CUT = "x-edgeleaf-truncated"
"""Header of an answer: how many texts were longer than the encoder's window and were cut."""
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def openai_error(error: BadRequest) -> Any:
    """Return an error's body in OpenAI's shape."""
    kind = {401: "authentication_error", 429: "rate_limit_error"} | dict.fromkeys((500, 501, 503), "server_error")
    return {
        "error": {
            "message": str(error),
            "type": kind.get(error.status, "invalid_request_error"),
            "param": error.param,
            "code": error.code,
        }
    }


def tei_error(error: BadRequest) -> Any:
    """Return an error's body in text-embeddings-inference's shape."""
    kind = {429: "overloaded", 500: "backend", 401: "unauthorized"}
    return {"error": str(error), "error_type": kind.get(error.status, "validation")}


def json_response(value: Any, *, status: int = 200, cut: Counted | None = None) -> Response:
    """Return an answer; ``cut`` are the texts that it is about, some of which may have been cut."""
    response = Response(orjson.dumps(value, option=_NUMPY), status_code=status, media_type="application/json")
    if cut is not None and (texts := sum(cut.cut.tolist())):
        response.headers[CUT] = str(texts)
    return response


def log(entry: Mapping[str, Any]) -> None:
    """Write a line of JSON to standard error; it never holds a text."""
    line = orjson.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **entry}).decode()
    with contextlib.suppress(OSError):  # a log that cannot be written is no reason not to answer
        sys.stderr.write(line + "\n")
