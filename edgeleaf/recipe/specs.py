"""The frozen dataclasses that a recipe's TOML file is read into.

Everything that changes the result is here, seeds included, so the same recipe gives the same bundle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from edgeleaf.recipe.sources import Source
from edgeleaf.recipe.teachers import TeacherSpec as TeacherSpec
from edgeleaf.recipe.teachers import between


@dataclass(frozen=True)
class StudentSpec:
    """The small model that distillation starts from."""

    model: str
    revision: str | None = None
    max_length: int = between(8, 512, 128)
    layers: tuple[int, ...] | None = field(default=None, metadata={"low": 0, "high": 10**4, "empty": True})
    """The start's layers that the student keeps, in this order, 0 the first; None: all. An empty list keeps none, and
    leaves a mean of token vectors."""
    trim_vocabulary: bool = False
    """Whether the student keeps only the tokens that the training texts use (:mod:`edgeleaf.models.vocabulary`)."""
    ridge: float = between(1e-6, 1e6, 1.0)
    """Ridge term of the projection's least-squares start, on unit-norm inputs."""
    pooling: tuple[Literal["mean", "max", "cls"], ...] | None = None
    """The poolings that the projection reads, side by side; by default the mean, or those of a start that is already a
    student. One pooling of a narrow encoder spans only as many dimensions of a wider teacher's space as it is wide."""


@dataclass(frozen=True)
class TextsSpec:
    """The sources of texts, and how many are used."""

    sources: tuple[Source, ...]
    limit: int = between(64, 10**9, 24_000)
    held_out_queries: int = between(20, 10**6, 500)
    held_out_documents: int = between(20, 10**7, 2_000)
    max_chars: int = between(16, 10**6, 500)


@dataclass(frozen=True)
class ObjectiveSpec:
    """How the student is trained."""

    name: Literal["l2"] = "l2"
    epochs: float = between(0, 1000, 1.0)
    """Passes over the texts; 0 keeps the ridge start."""
    batch_size: int = between(1, 65536, 32)
    learning_rate: float = between(1e-8, 1.0, 5e-4)
    warmup: float = between(0, 0.9, 0.05)
    """Share of the steps with a rising learning rate."""
    weight_decay: float = between(0, 1, 0.01)
    axes: int | None = between(1, 65536, None)
    """Train on the teacher's vectors projected onto this many principal axes of the training documents' vectors, and
    made unit vectors again; None: on the vectors themselves. A student spans at most as many directions as its poolings
    are wide together, and of a wider space only those in which documents differ decide a ranking."""
    checkpoint_steps: int = between(1, 10**9, 100)
    """Steps between two checkpoints; at each one the loss is logged and the held-out texts are evaluated."""


@dataclass(frozen=True)
class ExportSpec:
    """What exports the student's graph."""

    exporter: Literal["torch", "optimum"] = "torch"
    """torch's own exporter, or optimum (``edgeleaf[optimum]``), which needs transformers 4."""


@dataclass(frozen=True)
class QuantizationSpec:
    """How the graph is quantised."""

    preset: Literal["int8", "int4", "int8-weights", "int4-weights", "fp16", "fp32"] = "int8"
    """int8 and int4 for processors, with equal vectors on all of them; int8-weights and int4-weights for encoders that
    these refuse; fp16 and fp32 for accelerators."""


@dataclass(frozen=True)
class Gates:
    """The limits that a bundle must meet to ship. ``None`` leaves a gate to the preset (:func:`gates_for`), ``False``
    means no limit. A gate without a measurement, such as one about retrieval without qrels, is not judged.
    """

    cosine_mean: float | None = between(-1, 1, None)
    """Lowest allowed mean cosine of the fused file's vectors to the teacher's, held-out queries."""
    cosine_p01: float | None = between(-1, 1, None)
    """Lowest allowed first percentile of the same cosine."""
    overlap_at_10: float | None = between(0, 1, None)
    """Lowest allowed share of the teacher's ten nearest documents that the fused file finds."""
    quantization_cosine_mean: float | None = between(-1, 1, None)
    """Lowest allowed mean cosine of the fused file to the torch student."""
    quantization_cosine_min: float | None = between(-1, 1, None)
    """Lowest allowed cosine of the fused file to the torch student for any query."""
    quantization_loss: float | None = between(-1, 1, None)
    """Highest allowed loss of mean cosine to the teacher, fused file compared with torch student."""
    quantization_overlap_loss: float | None = between(-1, 1, None)
    """Highest allowed loss of overlap@10 with the teacher, fused file compared with torch student."""
    quantization_ndcg_loss: float | None = between(-1, 1, None)
    """Highest allowed share of the torch student's nDCG@10 that the file loses, mean over collections with qrels."""
    batch_invariance_cosine_min: float | None = between(-1, 1, None)
    """Lowest allowed cosine of a text alone to the same text in any batch."""
    padding_invariance_cosine_min: float | None = between(-1, 1, None)
    """Lowest allowed cosine of a text alone to the same text padded to the whole window."""
    processor_cosine_min: float | None = between(-1, 1, None)
    """Lowest allowed cosine of a query's vector on another processor to the one here."""
    token_mismatches: int | None = between(0, 10**9, None)
    """Highest allowed number of texts whose token ids differ from those of the reference tokenizer."""
    file_mb: float | None = between(0.01, 10**4, None)
    """Highest allowed size of query_encoder.onnx in 10^6 bytes."""


@dataclass(frozen=True)
class BenchmarkSpec:
    """How the latency is measured."""

    threads: tuple[int, ...] = (1, 2)
    lengths: tuple[Literal[4, 8, 16, 32, 64, 128], ...] = (4, 8, 16, 32, 64, 128)
    """Query lengths in tokens, special tokens included."""
    repeats: int = between(1, 10**6, 100)


@dataclass(frozen=True)
class Recipe:
    """One bundle: what to build, from what, and the limits that it must meet."""

    name: str
    teacher: TeacherSpec
    student: StudentSpec
    texts: TextsSpec
    description: str = ""
    seed: int = between(0, 2**31 - 1, 0)
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
