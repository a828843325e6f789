"""Sends requests to an embeddings endpoint: again if it failed in a way that may pass, never with the key in a message.

What may pass: no connection, a timeout, half a body, a body that is not JSON, and the statuses of :data:`PASSING`.
Anything else stops the run at once, with one line.
"""

from __future__ import annotations

import email.utils
import os
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from edgeleaf import progress
from edgeleaf.errors import MissingExtra, ModelError, RecipeError, reason_of
from edgeleaf.recipe.sources import Kind
from edgeleaf.recipe.teachers import HttpSpec
from edgeleaf.records import RecordError, parse_json, shown
from edgeleaf.teachers.http.bill import Bill, Pace, tokens_of
from edgeleaf.teachers.http.formats import APIS, AnswerFault, matrix

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
LONGEST_RETRY_AFTER_S = 900.0
"""If an endpoint asks to wait longer, the run stops and says so; it continues at the shard where it stopped."""
MOST_ANSWER_BYTES = 512 << 20
_sleep = time.sleep
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class Client:
    """One endpoint.

    Args:
        spec: the endpoint, and what may be asked of it.
        model: the model's name there.
        dims: the width that is asked for; None for the model's own.

    Raises:
        RecipeError: the address is none, or holds a password; or the key's variable is not set.
        MissingExtra: httpx2 is not installed.
    """

    def __init__(self, spec: HttpSpec, *, model: str, dims: int | None) -> None:
        try:
            import httpx2
        except ImportError:
            raise MissingExtra(
                "a teacher of kind http needs httpx2, not installed: pip install 'edgeleaf[http]'"
            ) from None
        self._spec, self._model, self._dims, self._api = spec, model, dims, APIS[spec.api]
        self._key = _key(spec)
        self.host = _host(spec, self._key)
        self.bill = Bill(spec.price)
        self._pace = Pace(spec.requests_per_minute, spec.tokens_per_minute, sleep=lambda seconds: _sleep(seconds))
        self._dice = random.Random()
        self._errors = httpx2.HTTPError, httpx2.InvalidURL
        headers = {"User-Agent": "edgeleaf", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._client = httpx2.Client(
            headers=headers,
            timeout=spec.timeout_s,
            follow_redirects=False,  # a key goes where the recipe says, and nowhere else
            limits=httpx2.Limits(max_connections=spec.concurrency, max_keepalive_connections=spec.concurrency),
        )

    def vectors(self, texts: Sequence[str], *, kind: Kind, dim: int | None) -> npt.NDArray[np.float32]:
        """Send one request, again if need be; return unit vectors, float32 [len(texts), dim].

        Raises:
            ModelError: the endpoint cannot be reached, refuses, or gives something else than vectors of these texts.
        """
        body = self._api.body(self._model, texts, kind, self._dims if self._api.sends_dims else None)
        characters = sum(map(len, texts))
        for attempt in range(1, self._spec.tries + 1):
            self._pace.wait(tokens_of(characters))
            self.bill.sent()
            fault, asked = "", None
            try:
                status, header, data = self._post(body)
                if status == 200:
                    parsed = parse_json(data)
                    return self._read(parsed, len(texts), dim, characters)
                fault, asked = f"status {status}{_said(data)}", _retry_after(header)
                if status not in PASSING or "insufficient_quota" in fault:
                    raise ModelError(self._refusal(status, fault))
            except RecordError as error:
                fault = f"a body that cannot be read: {error}"
            except self._errors as error:
                fault = f"{type(error).__name__}: {reason_of(error)}".removesuffix(": ")
            except ModelError:
                self.bill.failure()
                raise
            self.bill.failure()
            if asked is not None and asked > LONGEST_RETRY_AFTER_S:
                raise ModelError(
                    self._clean(f"{self.host} asks to wait {asked:.0f} s ({fault}); run again then: it continues")
                )
            if attempt == self._spec.tries:
                break
            wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1)) * self._dice.uniform(0.5, 1.0)
            if asked is not None:
                wait = max(wait, asked)
                self._pace.hold(asked)
            progress.say(
                self._clean(f"{self.host}: {fault}; try {attempt} of {self._spec.tries}, again in {wait:.1f} s")
            )
            _sleep(wait)
        raise ModelError(
            self._clean(
                f"{self.host} failed {self._spec.tries} times, last with {fault}; "
                "run again when it answers: finished shards are kept"
            )
        )

    def _post(self, body: dict[str, Any]) -> tuple[int, str | None, bytes]:
        """Return status, Retry-After and body."""
        with self._client.stream("POST", self._spec.url, json=body) as response:
            data = bytearray()
            for piece in response.iter_bytes():
                data += piece
                if len(data) > MOST_ANSWER_BYTES:
                    raise ModelError(f"{self.host}: an answer of more than {MOST_ANSWER_BYTES >> 20} MiB")
            return response.status_code, response.headers.get("retry-after"), bytes(data)

    def _read(self, parsed: Any, texts: int, dim: int | None, characters: int) -> npt.NDArray[np.float32]:
        try:
            answer = self._api.read(parsed, texts)
            whole = dim if self._api.sends_dims or self._dims is None else None
            found = matrix(answer.rows, texts=texts, dim=whole)
        except AnswerFault as error:
            raise ModelError(self._clean(f"{self.host}: wrong answer: {error}; is teacher.http.api right?")) from None
        self.bill.answered(answer.tokens, characters)
        if self._dims is None or found.shape[1] == self._dims:
            return found
        if found.shape[1] < self._dims:
            raise ModelError(f"{self.host}: wrong answer: {found.shape[1]} numbers, teacher.dims is {self._dims}")
        if self._api.sends_dims:
            raise ModelError(
                f"{self.host}: wrong answer: {found.shape[1]} numbers, {self._dims} were asked for; "
                "leave teacher.dims out if the model cannot shorten"
            )
        short = found[:, : self._dims]
        return np.asarray(short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12), dtype=np.float32)

    def _refusal(self, status: int, fault: str) -> str:
        advice = "see its documentation"
        if status in (401, 403):
            name = self._spec.key
            advice = (
                f"is the key in ${name} right?" if name else 'name the variable with the key: teacher.http.key = "…"'
            )
        elif status in (301, 302, 303, 307, 308):
            advice = "it has moved: give the new address as teacher.http.url"
        elif status == 404:
            advice = "is teacher.http.url the whole address of the endpoint, and teacher.model its name there?"
        elif status == 413:
            advice = "lower teacher.http.batch_size"
        return self._clean(f"{self.host} refuses: {fault}; {advice}")

    def _clean(self, message: str) -> str:
        return message.replace(self._key, "…") if self._key else message


def _key(spec: HttpSpec) -> str:
    if spec.key is None:
        return ""
    key = os.environ.get(spec.key, "").strip()
    if not key:
        raise RecipeError(
            f"teacher.http.key names the environment variable {spec.key}, which is not set: put the key there"
        )
    if not key.isascii() or not key.isprintable():
        raise RecipeError(f"the key in ${spec.key} holds characters that no key has")
    return key


def _host(spec: HttpSpec, key: str) -> str:
    try:
        parts = urlsplit(spec.url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RecipeError(f"teacher.http.url is {shown(spec.url)}: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise RecipeError(
            f"teacher.http.url is {shown(spec.url)}; an address is needed, such as https://HOST/v1/embeddings"
        )
    if parts.username or parts.password or (key and key in spec.url):
        raise RecipeError(
            "teacher.http.url holds a secret, which a bundle would record; put it into an environment variable"
        )
    if key and parts.scheme == "http" and host not in _LOCAL:
        progress.warn(f"the key goes to {host} without encryption; https is safer")
    return host if port is None else f"{host}:{port}"


def _said(data: bytes) -> str:
    """Return what an endpoint says about its refusal, as ``: text``."""
    text = reason_of(data[:4000].decode("utf-8", "replace"), limit=160)
    return f": {text}" if text else ""


def _retry_after(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which has seconds or a date; None for neither."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
