"""What to build: a TOML file to frozen dataclasses. An unknown key is an error that lists the known ones.

Everything that changes the result is here, seeds included: the same recipe gives the same bundle.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgeleaf.errors import RecipeError
from edgeleaf.texts import DatasetSource, FilesSource, MachineSource, Source


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
    max_length: int = _between(8, 32768, 128)
    training_vectors: Literal["exact", "int8"] = "exact"
    """What encodes the training texts: the teacher itself, or on processors its int8 export, about twice as fast at
    cosine 0.998. Held-out texts are always the teacher's own."""


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


PRESET_GATES: Mapping[str, Gates] = {
    "int8": Gates(
        quantization_cosine_mean=0.998,
        quantization_cosine_min=0.995,
        quantization_loss=0.0015,
        quantization_overlap_loss=0.01,
        quantization_ndcg_loss=0.005,
        batch_invariance_cosine_min=0.999999,
        padding_invariance_cosine_min=0.999999,
        processor_cosine_min=0.9999,
        token_mismatches=0,
        file_mb=24.0,
    ),
    "int4": Gates(
        quantization_loss=0.01,
        quantization_overlap_loss=0.02,
        quantization_ndcg_loss=0.015,
        batch_invariance_cosine_min=0.999999,
        padding_invariance_cosine_min=0.999999,
        processor_cosine_min=0.9999,
        token_mismatches=0,
        file_mb=14.5,
    ),
    "fp16": Gates(
        quantization_cosine_mean=0.9999,
        quantization_cosine_min=0.999,
        quantization_loss=0.0005,
        quantization_overlap_loss=0.005,
        quantization_ndcg_loss=0.002,
        batch_invariance_cosine_min=0.9999,
        padding_invariance_cosine_min=0.9999,
        token_mismatches=0,
    ),
    "fp32": Gates(
        quantization_cosine_mean=0.99999,
        quantization_cosine_min=0.9999,
        quantization_loss=0.0001,
        quantization_overlap_loss=0.002,
        quantization_ndcg_loss=0.001,
        batch_invariance_cosine_min=0.99999,
        padding_invariance_cosine_min=0.99999,
        processor_cosine_min=0.9999,
        token_mismatches=0,
    ),
}
"""What each quantisation may cost, where a recipe does not say otherwise. Sizes are those of a 23M student."""


TEXTS_DECIDE = ("cosine_mean", "cosine_p01", "overlap_at_10", "quantization_overlap_loss")
"""Gates that depend on the texts that are held out, and on how many: of no use on other texts."""


def gates_for(preset: str, gates: Gates) -> Gates:
    """Return ``gates`` with every ``None`` filled from the table of the preset; ``False`` stays: not asked.

    Raises:
        RecipeError: no such preset.

    Example:
        >>> gates_for("int8", Gates(file_mb=30.0)).file_mb
        30.0
    """
    if preset not in PRESET_GATES:
        raise RecipeError(f"quantization preset is {_show(preset)}; allowed: {', '.join(map(_show, PRESET_GATES))}")
    filled = PRESET_GATES[preset]
    given = {name: limit for name, limit in vars(gates).items() if limit is not None}
    return dataclasses.replace(filled, **given)


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
    quantization: QuantizationSpec = field(default_factory=QuantizationSpec)
    gates: Gates = field(default_factory=Gates)
    benchmark: BenchmarkSpec = field(default_factory=BenchmarkSpec)


def load(path: Path | str) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: no such file, not TOML (with the line), an unknown or missing key, a wrong type or a value out of
            range (with the key, and what is allowed).
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe; the ones that come with edgeleaf are in export/recipes/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from None
    try:
        recipe = typing.cast(Recipe, _build(Recipe, table, ""))
        if min(recipe.benchmark.lengths) > recipe.student.max_length:
            raise RecipeError(
                f"benchmark.lengths start at {min(recipe.benchmark.lengths)} tokens; "
                f"student.max_length is {recipe.student.max_length}"
            )
        return recipe
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None


def _build(cls: type, table: Any, key: str) -> Any:
    if not isinstance(table, dict):
        raise RecipeError(f"{key} is {_show(table)}; a table [{key}] is needed")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    prefix = f"{key}." if key else ""
    for name in table:
        if name not in fields:
            raise RecipeError(f"unknown key {prefix}{name}; known here: {', '.join(fields)}")
    hints = typing.get_type_hints(cls)
    values = {}
    for name, spec in fields.items():
        if name in table:
            values[name] = _value(hints[name], table[name], prefix + name, spec.metadata)
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise RecipeError(f"{prefix}{name} is missing")
    return cls(**values)


def _value(hint: Any, value: Any, key: str, limits: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if value is False and key.startswith("gates."):
        return False
    if key == "texts.sources":
        if not isinstance(value, list) or not value:
            raise RecipeError(f"{key} is {_show(value)}; at least one [[texts.sources]] is needed")
        return tuple(_source(entry, f"{key}[{i}]") for i, entry in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, key)
    if origin is Literal:
        if value not in arguments:
            raise RecipeError(f"{key} is {_show(value)}; allowed: {', '.join(map(_show, arguments))}")
        return value
    if origin is types.UnionType:
        kinds = [a for a in arguments if a is not type(None)]
        for kind in kinds[:-1]:
            if type(value) is kind:
                return value
        return _value(kinds[-1], value, key, limits)
    if origin is tuple:
        if not isinstance(value, list) or not value:
            kind = "numbers" if typing.get_origin(arguments[0]) else arguments[0].__name__
            raise RecipeError(f"{key} is {_show(value)}; a list of {kind} is needed")
        return tuple(_value(arguments[0], entry, f"{key}[{i}]", {"low": 1}) for i, entry in enumerate(value))
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise RecipeError(f"{key} is {_show(value)}; {_KINDS[hint]} is needed")
    if hint in (int, float):
        low, high = limits.get("low", 0), limits.get("high", 2**31)
        if not low <= value <= high:
            raise RecipeError(f"{key} is {value}; allowed: {low} to {high}")
    if hint is str and not value and key.endswith(("name", "model")):
        raise RecipeError(f"{key} is empty")
    return value


_KINDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
_SOURCES: dict[str, type] = {"files": FilesSource, "dataset": DatasetSource, "machine": MachineSource}


def _source(table: Any, key: str) -> Any:
    """A source is known by its first word: ``files = …``, ``dataset = …`` or ``machine = true``."""
    kinds = [kind for kind in _SOURCES if isinstance(table, dict) and kind in table]
    if len(kinds) != 1:
        raise RecipeError(f'{key} needs exactly one of: files = [...], dataset = "...", machine = true')
    if kinds == ["machine"]:
        if table["machine"] is not True:
            raise RecipeError(f"{key}.machine is {_show(table['machine'])}; allowed: true")
        table = {name: value for name, value in table.items() if name != "machine"}
    return _build(_SOURCES[kinds[0]], table, key)


def _show(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
