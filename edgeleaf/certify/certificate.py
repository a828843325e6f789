"""The certificate: everything that was measured about one bundle, and a verdict per gate.

It is a plain record that can be written as JSON and read back. It has no timestamps, timings or paths, so the same
inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeleaf.bundle.feed import TEXT, Input
from edgeleaf.bundle.manifest import MOST_CERTIFICATE_BYTES
from edgeleaf.certify.alignment import DIGITS, Summary
from edgeleaf.certify.invariance import Invariance
from edgeleaf.certify.processors import ProcessorReport
from edgeleaf.certify.retrieval import Retrieval
from edgeleaf.certify.shortened import Shortened
from edgeleaf.certify.similarity import Similarity
from edgeleaf.certify.verdicts import GATES, Verdict, gates_verdicts
from edgeleaf.errors import BundleError
from edgeleaf.files import json_text
from edgeleaf.graph.parity import Parity
from edgeleaf.records import RecordError, parse_json, read_bytes, record, shown

CERTIFICATE_SCHEMA = 3


@dataclass(frozen=True)
class RungReport:
    """One rung of the ladder, measured on one set of queries and documents.

    Args:
        name, title, file: such as ``fused``, "fused file", and its path in the bundle.
        teacher_cosine, student_cosine: cosine of its vectors to the teacher's, and to the torch student's (None for the
            student itself).
        step_loss: mean cosine to the teacher lost since the previous rung; for the first rung, since the teacher.
        overlap_at_10: share of the teacher's first ten documents that it finds, mean over queries.
        recall_at_100: share of the teacher's first 100 among its own; None if there are at most 100 documents.
        retrieval: measured by qrels, with the teacher's documents; None without qrels.
    """

    name: str
    title: str
    file: str
    teacher_cosine: Summary
    student_cosine: Summary | None
    step_loss: float
    overlap_at_10: float
    recall_at_100: float | None
    retrieval: Retrieval | None


@dataclass(frozen=True)
class Symmetric:
    """Search without the teacher: the fused file's queries among documents that the student encoded.

    Args:
        documents: what encoded the documents: ``fused file`` or ``torch student``.
        retrieval: measured by qrels.
    """

    documents: str
    retrieval: Retrieval


@dataclass(frozen=True)
class CollectionReport:
    """The measurements on one collection.

    Args:
        name: the name of its folder.
        queries, documents: how many.
        rungs: the ladder, torch student first, fused file last.
        teacher: the teacher's own retrieval; None without qrels, like ``symmetric``.
        shortened: shorter and quantised vectors.
    """

    name: str
    queries: int
    documents: int
    rungs: tuple[RungReport, ...]
    teacher: Retrieval | None
    symmetric: Symmetric | None
    shortened: tuple[Shortened, ...]

    @property
    def ndcg_loss(self) -> float | None:
        """The share of the torch student's nDCG@10 that the fused file loses; None without qrels, or if it is zero."""
        student, fused = (self.rungs[place].retrieval for place in (0, -1))
        if student is None or fused is None or student.ndcg_at_10.mean <= 0:
            return None
        return 1 - fused.ndcg_at_10.mean / student.ndcg_at_10.mean


@dataclass(frozen=True)
class PerQuery:
    """One number per held-out query, in their order: the data of the plots."""

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
    """The measurements of one bundle, and the verdicts.

    Args:
        space: the teacher's vector space: teacher, revision, hash, pooling, prompts, dim.
        query_prompt: the text that the fused file puts before each query.
        max_length: its window in tokens.
        file_sha256: hash of the query_encoder.onnx that was measured.
        input: what that file takes: ``text`` (strings) or ``utf8`` (bytes).
        measured_on: architecture, processor features that select kernels, onnxruntime version.
        texts: the source of queries and documents.
        queries, documents: how many held-out queries and teacher-encoded documents.
        sizes_mb: size of each rung in 10^6 bytes, by its path in the bundle.
        rungs: the ladder, torch student first, fused file last.
        parity, batch_invariance, padding_invariance: of the fused file.
        shortened: shorter and quantised vectors of the held-out texts.
        collections: the same figures for the given collections.
        similarities: correlation with people's scores on the given files of pairs.
        processors: the fused file on other processors, if it was run there.
        per_query: figures of single queries.
        worst: the twenty queries farthest from the teacher, worst first.
        verdicts: one per gate that is set.
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
    batch_invariance: Invariance
    padding_invariance: Invariance
    shortened: tuple[Shortened, ...]
    collections: tuple[CollectionReport, ...]
    per_query: PerQuery
    worst: tuple[HardQuery, ...]
    verdicts: tuple[Verdict, ...]
    similarities: tuple[Similarity, ...] = ()
    processors: tuple[ProcessorReport, ...] = ()
    input: Input = TEXT
    schema_version: int = CERTIFICATE_SCHEMA

    @property
    def passed(self) -> bool:
        """Whether every gate that is set is met."""
        return all(verdict.ok for verdict in self.verdicts)

    @property
    def failures(self) -> list[str]:
        """One line per gate that failed: ``gate cosine_mean: 0.612 is below 0.650``."""
        return [verdict.line for verdict in self.verdicts if not verdict.ok]

    def rung(self, name: str) -> RungReport:
        """Return the rung called ``student``, ``onnx_fp32``, ``onnx_quantized`` (not for fp32) or ``fused``.

        Raises:
            KeyError: no such rung.
        """
        for rung in self.rungs:
            if rung.name == name:
                return rung
        raise KeyError(name)

    def to_json(self) -> str:
        """Return the certificate as JSON with lists of numbers on one line and a newline at the end."""
        return json_text({"schema_version": self.schema_version, "passed": self.passed, **asdict(self)})

    @staticmethod
    def from_json(text: str | bytes) -> Certificate:
        """Read a certificate.

        Raises:
            BundleError: not a certificate, or one of another schema version.
        """
        try:
            data = parse_json(text)
            version = data["schema_version"]
            data.pop("passed")
        except (RecordError, KeyError, TypeError, AttributeError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else error
            raise BundleError(f"not a certificate ({reason}); write one with: edgeleaf check BUNDLE -o DIR") from None
        if version != CERTIFICATE_SCHEMA or isinstance(version, bool):
            raise BundleError(
                f"certificate of schema version {shown(version)}, this edgeleaf reads {CERTIFICATE_SCHEMA}; "
                "check the bundle again"
            )
        try:
            certificate = record(Certificate, data)
            if "fused" not in {rung.name for rung in certificate.rungs}:
                raise RecordError("rungs names no fused file")
            if "id" not in certificate.space:
                raise RecordError("space has no id")
            return certificate
        except RecordError as error:
            raise BundleError(f"damaged certificate ({error}); write one with: edgeleaf check BUNDLE -o DIR") from None

    @staticmethod
    def read(file: Path) -> Certificate:
        """Read ``certificate.json``.

        Raises:
            BundleError: no such file, not a certificate, or one of another schema version.
        """
        try:
            return Certificate.from_json(read_bytes(file, most_bytes=MOST_CERTIFICATE_BYTES))
        except OSError as error:
            raise BundleError(f"{file}: cannot be read: {error.strerror or error}") from None
        except (RecordError, BundleError) as error:
            raise BundleError(f"{file}: {error}") from None


def rounded_summary(cosines: Summary) -> Summary:
    """Round a summary to the digits of a certificate."""
    return Summary(**{name: round(value, DIGITS) for name, value in asdict(cosines).items()})


def rounded(values: Sequence[float]) -> tuple[float, ...]:
    """Round numbers to the digits of a certificate."""
    return tuple(round(float(value), DIGITS) for value in values)


__all__ = [
    "GATES",
    "Certificate",
    "CollectionReport",
    "HardQuery",
    "PerQuery",
    "RungReport",
    "Symmetric",
    "Verdict",
    "gates_verdicts",
    "rounded",
    "rounded_summary",
]
