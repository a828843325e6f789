"""What to build: a TOML file to frozen dataclasses. An unknown key is an error that lists the known ones.

Everything that changes the result is here, seeds included: the same recipe gives the same bundle.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from edgeleaf.recipe.sources import Source


def _between(low: float, high: float, default: Any = dataclasses.MISSING) -> Any:
    """A field whose number lies in [low, high]."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class TeacherSpec:
    """The model whose vector space the documents live in."""

    model: str
    revision: str | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    kind: str = "sentence-transformers"
    """A name in :data:`edgeleaf.teachers.opening.KINDS`."""
    max_length: int = _between(8, 32768, 128)
    training_vectors: Literal["exact", "int8"] = "exact"
    """What encodes the training texts: the teacher itself, or on processors its int8 export, about twice as fast at
    cosine 0.998. Held-out texts are always the teacher's own."""
    trust_remote_code: bool = False
    """Run code that comes with the model; the manifest records it. A bundle's teacher is never loaded so afterwards."""


@dataclass(frozen=True)
class StudentSpec:
    """The small model that distillation starts from."""

    model: str
    revision: str | None = None
    max_length: int = _between(8, 512, 128)
    ridge: float = _between(1e-6, 1e6, 1.0)
    """Ridge term of the projection's least-squares start, on unit-norm inputs."""
    pooling: tuple[Literal["mean", "max", "cls"], ...] | None = None
    """What the projection reads, side by side; by default the mean, or what a start that is a student already has. One
    pooling of a narrow encoder spans no more than its width of a wider teacher's space."""


@dataclass(frozen=True)
class TextsSpec:
    """Where the texts come from, and how many are used."""

    sources: tuple[Source, ...]
    limit: int = _between(64, 10**9, 24_000)
    held_out_queries: int = _between(20, 10**6, 500)
    held_out_documents: int = _between(20, 10**7, 2_000)
    max_chars: int = _between(16, 10**6, 500)


@dataclass(frozen=True)
class ObjectiveSpec:
    """How the student is trained."""

    name: Literal["l2"] = "l2"
    epochs: float = _between(0, 1000, 1.0)
    """Passes over the texts; 0 keeps the ridge start."""
    batch_size: int = _between(1, 65536, 32)
    learning_rate: float = _between(1e-8, 1.0, 5e-4)
    warmup: float = _between(0, 0.9, 0.05)
    """Share of the steps with a rising learning rate."""
    weight_decay: float = _between(0, 1, 0.01)
    checkpoint_steps: int = _between(1, 10**9, 100)
    """Steps between two checkpoints; at each the loss is logged and the held-out texts are judged."""


@dataclass(frozen=True)
class ExportSpec:
    """What writes the student's graph."""

    exporter: Literal["torch", "optimum"] = "torch"
    """torch's own exporter, or optimum (``edgeleaf[optimum]``), which needs transformers 4."""


@dataclass(frozen=True)
class QuantizationSpec:
    """How the graph is made small."""

    preset: Literal["int8", "int4", "fp16", "fp32"] = "int8"
    """int8 and int4 for processors, the same on all of them; fp16 and fp32 for accelerators."""


@dataclass(frozen=True)
class Gates:
    """What a bundle must reach to ship. ``None`` leaves a gate to the preset, see :func:`gates_for`; ``False`` asks
    nothing. A gate without a measurement, such as one about retrieval where there are no qrels, is not judged.
    """

    cosine_mean: float | None = _between(-1, 1, None)
    """Mean cosine of the fused file's vectors to the teacher's, held-out queries, at least."""
    cosine_p01: float | None = _between(-1, 1, None)
    """The same, first percentile, at least."""
    overlap_at_10: float | None = _between(0, 1, None)
    """Share of the teacher's ten nearest documents that the fused file finds, at least."""
    quantization_cosine_mean: float | None = _between(-1, 1, None)
    """Mean cosine of the fused file to the torch student, at least."""
    quantization_cosine_min: float | None = _between(-1, 1, None)
    """The same for every query, at least."""
    quantization_loss: float | None = _between(-1, 1, None)
    """Mean cosine to the teacher that the fused file loses against the torch student, at most."""
    quantization_overlap_loss: float | None = _between(-1, 1, None)
    """Overlap of the first ten with the teacher's that the fused file loses against the torch student, at most."""
    quantization_ndcg_loss: float | None = _between(-1, 1, None)
    """Share of the torch student's nDCG@10 that the fused file loses, mean over collections with qrels, at most."""
    batch_invariance_cosine_min: float | None = _between(-1, 1, None)
    """Cosine of a text alone to itself in any batch, at least."""
    padding_invariance_cosine_min: float | None = _between(-1, 1, None)
    """Cosine of a text alone to itself padded to the whole window, at least."""
    processor_cosine_min: float | None = _between(-1, 1, None)
    """Cosine of a query's vector on another processor to the one here, at least."""
    token_mismatches: int | None = _between(0, 10**9, None)
    """Texts whose token ids differ from those of the reference tokenizer, at most."""
    file_mb: float | None = _between(0.01, 10**4, None)
    """Size of query_encoder.onnx in 10^6 bytes, at most."""


@dataclass(frozen=True)
class BenchmarkSpec:
    """How the latency is measured."""

    threads: tuple[int, ...] = (1, 2)
    lengths: tuple[Literal[4, 8, 16, 32, 64, 128], ...] = (4, 8, 16, 32, 64, 128)
    """Query lengths in tokens, special tokens included."""
    repeats: int = _between(1, 10**6, 100)


@dataclass(frozen=True)
class Recipe:
    """One bundle: what to build, from what, and what it must reach."""

    name: str
    teacher: TeacherSpec
    student: StudentSpec
    texts: TextsSpec
    description: str = ""
    seed: int = _between(0, 2**31 - 1, 0)
    objective: ObjectiveSpec = field(default_factory=ObjectiveSpec)
    export: ExportSpec = field(default_factory=ExportSpec)
    quantization: QuantizationSpec = field(default_factory=QuantizationSpec)
    gates: Gates = field(default_factory=Gates)
    benchmark: BenchmarkSpec = field(default_factory=BenchmarkSpec)


def shown(value: Any) -> str:
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (RecursionError, ValueError):
        text = "something too deep or too large to show"
    return text if len(text) <= 200 else f"{text[:199]}…"
