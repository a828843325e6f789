"""The certificate: everything that was measured about one bundle, and a verdict per gate.

A plain record that goes to JSON and back. No timestamps, timings or paths: the same inputs give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeleaf.bundle import json_text
from edgeleaf.certify.alignment import Summary
from edgeleaf.certify.invariance import Invariance
from edgeleaf.certify.parity import Mismatch, Parity
from edgeleaf.errors import BundleError

SCHEMA_VERSION = 1
DIGITS = 6

AT_LEAST, AT_MOST = "at least", "at most"

GATES: tuple[tuple[str, str, str], ...] = (
    ("cosine_mean", AT_LEAST, "mean cosine to the teacher"),
    ("cosine_p01", AT_LEAST, "1st percentile of the cosine to the teacher"),
    ("overlap_at_10", AT_LEAST, "share of the teacher's ten nearest documents found"),
    ("quantization_cosine_mean", AT_LEAST, "mean cosine to the torch student"),
    ("quantization_cosine_min", AT_LEAST, "lowest cosine to the torch student"),
    ("quantization_loss", AT_MOST, "mean cosine to the teacher lost since the torch student"),
    ("batch_invariance_cosine_min", AT_LEAST, "lowest cosine of a text alone to itself in a batch"),
    ("token_mismatches", AT_MOST, "texts whose token ids differ from the reference tokenizer's"),
    ("file_mb", AT_MOST, "size of query_encoder.onnx in 10^6 bytes"),
)
"""Name as in a recipe's [gates], direction, meaning. All are about the fused file."""


@dataclass(frozen=True)
class Verdict:
    """One gate's outcome; ``bound`` is "at least" or "at most"."""

    gate: str
    meaning: str
    value: float
    bound: str
    limit: float
    ok: bool

    @property
    def line(self) -> str:
        """The outcome in one line, with as many digits as tell value and limit apart."""
        value, limit = apart(self.value, self.limit)
        if self.ok:
            return f"gate {self.gate}: {value} is {self.bound} {limit}"
        return f"gate {self.gate}: {value} is {'below' if self.bound == AT_LEAST else 'above'} {limit}"


@dataclass(frozen=True)
class RungReport:
    """One rung of the ladder: cosine to the teacher, to the torch student (none for itself), overlap@10 (mean)."""

    name: str
    title: str
    file: str
    teacher_cosine: Summary
    student_cosine: Summary | None
    overlap_at_10: float


@dataclass(frozen=True)
class PerQuery:
    """One number per held-out query, in their order: what the plots show."""

    tokens: tuple[int, ...]
    student_cosine: tuple[float, ...]
    fused_cosine: tuple[float, ...]
    student_overlap_at_10: tuple[float, ...]
    fused_overlap_at_10: tuple[float, ...]


@dataclass(frozen=True)
class HardQuery:
    """A query far from its teacher, with the three nearest documents of both."""

    query: str
    cosine: float
    overlap_at_10: float
    teacher_top: tuple[str, ...]
    fused_top: tuple[str, ...]


@dataclass(frozen=True)
class Certificate:
    """What was measured about one bundle, and the verdicts.

    Args:
        space: the teacher's vector space: teacher, revision, hash, pooling, prompts, dim.
        query_prompt: what the fused file puts before each query.
        max_length: its window in tokens.
        file_sha256: of the query_encoder.onnx that was measured.
        measured_on: architecture, processor features that choose kernels, onnxruntime version.
        texts: where the queries and documents come from.
        queries, documents: how many held-out queries and teacher-encoded documents.
        sizes_mb: 10^6 bytes of each rung, by its place in the bundle.
        rungs: the ladder, torch student first, fused file last.
        parity: token parity of the fused file.
        invariance: batch invariance of the fused file.
        per_query: figures of single queries.
        worst: the ten queries furthest from the teacher, worst first.
        verdicts: one per gate that was asked.
    """

    space: Mapping[str, str | int | bool | None]
    query_prompt: str
    max_length: int
    file_sha256: str
    measured_on: Mapping[str, str]
    texts: str
    queries: int
    documents: int
    sizes_mb: Mapping[str, float]
    rungs: tuple[RungReport, ...]
    parity: Parity
    invariance: Invariance
    per_query: PerQuery
    worst: tuple[HardQuery, ...]
    verdicts: tuple[Verdict, ...]
    schema_version: int = SCHEMA_VERSION

    @property
    def passed(self) -> bool:
        """Whether every gate that was asked is met."""
        return all(verdict.ok for verdict in self.verdicts)

    @property
    def failures(self) -> list[str]:
        """One line per gate that failed: ``gate cosine_mean: 0.612 is below 0.650``."""
        return [verdict.line for verdict in self.verdicts if not verdict.ok]

    def rung(self, name: str) -> RungReport:
        """Return the rung called ``student``, ``onnx_fp32``, ``onnx_int8`` or ``fused``.

        Raises:
            KeyError: no such rung.
        """
        for rung in self.rungs:
            if rung.name == name:
                return rung
        raise KeyError(name)

    def to_json(self) -> str:
        """Return the certificate as JSON, lists of numbers on one line, ending in a newline."""
        return json_text({"schema_version": self.schema_version, "passed": self.passed, **asdict(self)})

    @staticmethod
    def from_json(text: str) -> Certificate:
        """Read a certificate.

        Raises:
            BundleError: not a certificate, or one of another schema version.
        """
        try:
            record: dict[str, Any] = json.loads(text)
            version = record["schema_version"]
            record.pop("passed")
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"not a certificate ({error}); write one with: edgeleaf check BUNDLE -o DIR") from None
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"certificate of schema version {version}, this edgeleaf reads {SCHEMA_VERSION}; check the bundle again"
            )
        try:
            return _certificate(record)
        except (KeyError, TypeError) as error:
            raise BundleError(f"damaged certificate ({error}); write one with: edgeleaf check BUNDLE -o DIR") from None

    @staticmethod
    def read(file: Path) -> Certificate:
        """Read ``certificate.json``.

        Raises:
            BundleError: no such file, not a certificate, or one of another schema version.
        """
        try:
            return Certificate.from_json(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, BundleError) as error:
            raise BundleError(f"{file}: {error}") from None


def gates_verdicts(measurements: Mapping[str, float], gates: object) -> list[Verdict]:
    """Judge measurements by gates.

    Args:
        measurements: a number for every name in :data:`GATES`.
        gates: an object with those names as attributes, such as ``edgeleaf.recipe.Gates``; ``None`` is not asked.

    Returns:
        One verdict per gate that is asked, in the order of :data:`GATES`. Not-a-number fails.
    """
    verdicts = []
    for name, bound, meaning in GATES:
        limit = getattr(gates, name, None)
        if limit is None:
            continue
        value = measurements[name]
        ok = value >= limit if bound == AT_LEAST else value <= limit
        verdicts.append(Verdict(gate=name, meaning=meaning, value=value, bound=bound, limit=limit, ok=bool(ok)))
    return verdicts


def apart(value: float, limit: float) -> tuple[str, str]:
    """Write two numbers with the same digits: three, or as many as tell them apart and the first from 1.

    Two whole numbers (``int``) are written without decimals.
    """
    if isinstance(value, int) and isinstance(limit, int):
        return str(value), str(limit)
    for digits in range(3, 9):
        pair = f"{value:.{digits}f}", f"{limit:.{digits}f}"
        told_apart = (pair[0] != pair[1]) == (value != limit)
        not_quite_one = value != 1 and float(pair[0]) == 1
        if told_apart and not not_quite_one and abs(float(pair[1]) - limit) < 1e-9:
            return pair
    return f"{value:.9g}", f"{limit:.9g}"


def rounded_summary(cosines: Summary) -> Summary:
    """Round a summary to the digits of a certificate."""
    return Summary(**{name: round(value, DIGITS) for name, value in asdict(cosines).items()})


def rounded(values: Sequence[float]) -> tuple[float, ...]:
    """Round numbers to the digits of a certificate."""
    return tuple(round(float(value), DIGITS) for value in values)


def _certificate(record: dict[str, Any]) -> Certificate:
    def rung(entry: dict[str, Any]) -> RungReport:
        student = entry.pop("student_cosine")
        return RungReport(
            **{**entry, "teacher_cosine": Summary(**entry["teacher_cosine"])},
            student_cosine=None if student is None else Summary(**student),
        )

    def tuples(entry: dict[str, Any]) -> dict[str, Any]:
        return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}

    parity = record.pop("parity")
    examples = tuple(Mismatch(**tuples(entry)) for entry in parity.pop("examples"))
    return Certificate(
        rungs=tuple(rung(entry) for entry in record.pop("rungs")),
        parity=Parity(**parity, examples=examples),
        invariance=Invariance(**record.pop("invariance")),
        per_query=PerQuery(**tuples(record.pop("per_query"))),
        worst=tuple(HardQuery(**tuples(entry)) for entry in record.pop("worst")),
        verdicts=tuple(Verdict(**entry) for entry in record.pop("verdicts")),
        **record,
    )
