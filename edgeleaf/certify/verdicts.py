"""Gates and verdicts: the limits that a certificate is judged by, and each outcome in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

AT_LEAST, AT_MOST = "at least", "at most"

GATES: tuple[tuple[str, str, str], ...] = (
    ("cosine_mean", AT_LEAST, "mean cosine to the teacher"),
    ("cosine_p01", AT_LEAST, "1st percentile of the cosine to the teacher"),
    ("overlap_at_10", AT_LEAST, "share of the teacher's ten nearest documents found"),
    ("quantization_cosine_mean", AT_LEAST, "mean cosine to the torch student"),
    ("quantization_cosine_min", AT_LEAST, "lowest cosine to the torch student"),
    ("quantization_loss", AT_MOST, "mean cosine to the teacher lost since the torch student"),
    ("quantization_overlap_loss", AT_MOST, "overlap@10 with the teacher's ranking lost since the torch student"),
    ("quantization_ndcg_loss", AT_MOST, "share of the torch student's nDCG@10 lost, mean over collections"),
    ("batch_invariance_cosine_min", AT_LEAST, "lowest cosine of a text alone to itself in a batch"),
    ("padding_invariance_cosine_min", AT_LEAST, "lowest cosine of a text alone to itself padded to the window"),
    ("processor_cosine_min", AT_LEAST, "lowest cosine of a query on another processor to itself here"),
    ("token_mismatches", AT_MOST, "texts whose token ids differ from the reference tokenizer's"),
    ("file_mb", AT_MOST, "size of query_encoder.onnx in 10^6 bytes"),
)
"""Name as in a recipe's [gates], direction, meaning. All concern the fused file."""


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
        """The outcome in one line, with enough digits to distinguish value and limit."""
        value, limit = apart(self.value, self.limit)
        if self.ok:
            return f"gate {self.gate}: {value} is {self.bound} {limit}"
        return f"gate {self.gate}: {value} is {'below' if self.bound == AT_LEAST else 'above'} {limit}"


def gates_verdicts(measurements: Mapping[str, float], gates: object) -> list[Verdict]:
    """Judge measurements by gates.

    Args:
        measurements: numbers by names of :data:`GATES`; a missing name was not measured and is not judged.
        gates: an object with those names as attributes, such as ``edgeleaf.recipe.specs.Gates``; ``None`` and
            ``False`` mean no limit.

    Returns:
        One verdict per gate that is set and measured, in the order of :data:`GATES`. NaN fails.
    """
    verdicts = []
    for name, bound, meaning in GATES:
        limit = getattr(gates, name, None)
        if limit is None or limit is False or name not in measurements:
            continue
        value = measurements[name]
        ok = value >= limit if bound == AT_LEAST else value <= limit
        verdicts.append(Verdict(gate=name, meaning=meaning, value=value, bound=bound, limit=limit, ok=bool(ok)))
    return verdicts


def apart(value: float, limit: float) -> tuple[str, str]:
    """Write two numbers with the same digits: three, or as many as distinguish them, and the first from 1.

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
