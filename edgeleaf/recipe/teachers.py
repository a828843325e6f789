"""What a recipe's ``[teacher]`` table says: the model in whose vector space the documents are, by kind."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

Attention = Literal["bidirectional", "causal"]


def between(low: float, high: float, default: Any = dataclasses.MISSING) -> Any:
    """Return a field whose number must be in [low, high]."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class Example:
    """An in-context example: a query, and what answers it. A decoder reads examples before each query."""

    query: str
    response: str


@dataclass(frozen=True)
class HttpSpec:
    """An endpoint that gives vectors for texts, and what may be asked of it."""

    url: str
    """The whole address of the endpoint, such as ``https://api.openai.com/v1/embeddings``."""
    api: Literal["openai", "cohere", "tei"]
    """Whose requests and answers it speaks: OpenAI's, Cohere's (v2), or text-embeddings-inference's ``/embed``."""
    key: str | None = None
    """Name of the environment variable with the key; without one, no key is sent."""
    batch_size: int = between(1, 4096, 64)
    """Texts per request."""
    concurrency: int = between(1, 256, 4)
    """Requests under way at the same time."""
    timeout_s: float = between(0.01, 3600, 60.0)
    """Seconds without a byte after which a request counts as failed."""
    tries: int = between(1, 100, 6)
    """How often a request is sent before the run stops, if it fails in a way that may pass."""
    requests_per_minute: float | None = between(0.01, 10**7, None)
    tokens_per_minute: float | None = between(1, 10**10, None)
    price: float | None = between(0, 10**6, None)
    """Price of a million tokens, in whatever money the bill is to be estimated and counted."""
    drift: float = between(1e-6, 1, 1e-3)
    """The run stops if a probe text's vectors before and after differ by a cosine lower than 1 minus this."""


@dataclass(frozen=True)
class TeacherSpec:
    """The model in whose vector space the documents are.

    Which keys a kind takes besides model, revision, prompts and window is said in
    :data:`edgeleaf.teachers.opening.KINDS`.
    """

    model: str
    revision: str | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    kind: str = "sentence-transformers"
    """A name in :data:`edgeleaf.teachers.opening.KINDS`."""
    max_length: int = between(8, 32768, 128)
    """Window in tokens. That of a decoder counts the text alone, not what is put around it."""
    training_vectors: Literal["exact", "int8"] = "exact"
    """What encodes the training texts: the teacher itself, or its int8 export, which is about twice as fast on
    processors and has a cosine of 0.998 to it. Held-out texts are always encoded by the teacher itself."""
    trust_remote_code: bool = False
    """Run code that comes with the model; the manifest records it. A bundle's teacher later never runs its own code."""
    attention: Attention | None = None
    """decoder: whether a token sees those after it. Must be said, because a checkpoint does not say it reliably."""
    pooling: Literal["mean", "last", "cls"] | None = None
    """decoder: ``mean`` or ``last``; onnx: also ``cls``; None for a graph that gives one vector per text."""
    query_template: str | None = None
    """decoder, instead of query_prompt: what a query is put into, with ``{text}`` in its place and, if there is an
    instruction, ``{instruction}``. What comes before the text is the prompt that student and teacher share."""
    document_template: str | None = None
    """decoder, instead of document_prompt: the same for documents, which are bare otherwise."""
    instruction: str | None = None
    """decoder: the text for ``{instruction}``."""
    examples: tuple[Example, ...] | None = None
    """decoder: in-context examples, which the teacher reads before each query; by default none."""
    bos_token: str | None = None
    """decoder: the token that every text begins with, written as in tokenizer.json; by default none."""
    eos_token: str | None = None
    """decoder: the token that every text ends with."""
    dims: int | None = between(1, 65536, None)
    """decoder, onnx, http: keep the first numbers of each vector (Matryoshka), made unit vectors again."""
    file: str | None = None
    """onnx: the graph's path in the model's folder."""
    http: HttpSpec | None = None
    """http: the endpoint."""
