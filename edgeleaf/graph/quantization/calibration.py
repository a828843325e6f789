"""Measure the inputs of an encoder's layers while it reads real texts: shapes, peaks and second moments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgeleaf import progress
from edgeleaf.bundle.session import session
from edgeleaf.graph.cores import in_order

TOKENS_A_STEP = 2048
"""Rows of an input that are collected before their moments are added up."""
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass
class Moments:
    """Statistics of one tensor over all tokens of the calibration texts.

    Args:
        low, high: smallest and largest number of each channel, float32 [width].
        total: sum of each channel, float64 [width].
        products: sum of ``x.T @ x``, float64 [width, width]; empty for what an attention reads.
        tokens: number of rows counted.
    """

    low: npt.NDArray[np.floating]
    high: npt.NDArray[np.floating]
    total: npt.NDArray[np.float64]
    products: npt.NDArray[np.float64]
    tokens: int = 0
    _waiting: list[npt.NDArray[np.float32]] = field(default_factory=list)

    @staticmethod
    def of_width(width: int, *, with_products: bool = True) -> Moments:
        """Return empty statistics, before any row is counted."""
        zeros, side = np.zeros(width), width if with_products else 0
        return Moments(zeros + np.inf, zeros - np.inf, zeros, np.zeros((side, side)))

    @staticmethod
    def of(rows: npt.NDArray[np.floating]) -> Moments:
        """Return the moments of rows, [tokens, width]."""
        seen = Moments.of_width(rows.shape[1])
        seen.add(rows.astype(np.float32))
        seen.finish()
        return seen

    @property
    def peak(self) -> npt.NDArray[np.float32]:
        """Largest magnitude of each channel, [width]."""
        return np.asarray(np.maximum(-self.low, self.high), dtype=np.float32)

    @property
    def root_mean_square(self) -> npt.NDArray[np.float32]:
        """Root mean square of each channel, [width]."""
        return np.asarray(np.sqrt(np.diag(self.products) / self.tokens), dtype=np.float32)

    def shifted(self, offset: npt.NDArray[np.floating]) -> Moments:
        """Return the moments of the same rows with ``offset`` [width] added to each."""
        cross = np.outer(self.total, offset)
        products = self.products + cross + cross.T + self.tokens * np.outer(offset, offset)
        total = self.total + self.tokens * offset
        return Moments(self.low + offset, self.high + offset, total, products, self.tokens)

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """Add rows, float32 [tokens, width]."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= TOKENS_A_STEP:
            self.finish()

    def finish(self) -> None:
        """Count the rows that are still waiting."""
        if self._waiting:
            rows = np.concatenate(self._waiting)
            self._waiting.clear()
            self.low = np.minimum(self.low, rows.min(axis=0))
            self.high = np.maximum(self.high, rows.max(axis=0))
            self.total = self.total + rows.sum(axis=0, dtype=np.float64)
            if self.products.size:
                self.products += rows.T @ rows
            self.tokens += len(rows)


def run_inside(
    model: onnx.ModelProto, batch: int, sequence: int, lengths: Sequence[int] = ()
) -> dict[str, npt.NDArray[Any]]:
    """Run an encoder on ``batch`` texts of ``sequence`` tokens and return the output of every node.

    Args:
        model: the encoder.
        batch, sequence: the shape of its inputs; neighbouring tokens differ.
        lengths: how many tokens of each text are real; padding follows on the right. If empty, there is no padding.
    """
    names = [name for node in model.graph.node for name in node.output if name]
    feed = _feed(model, 3 + np.arange(batch * sequence).reshape(batch, sequence) % 7)
    if lengths:
        feed["attention_mask"] = (np.arange(sequence) < np.array(lengths)[:, None]).astype(np.int64)
    found = _session(model, names).run(names, feed)
    return dict(zip(names, found, strict=True))


def observe(model: onnx.ModelProto, tensors: Sequence[str], texts: Sequence[Sequence[int]]) -> dict[str, Moments]:
    """Run an encoder on texts, one at a time, and return the moments of inner tensors.

    Args:
        model: the float32 encoder.
        tensors: names of inner tensors, float32 [..., width]; of tensors [batch, heads, sequence, width], all heads'
            numbers of a token are a row.
        texts: token ids of each text, including special tokens.
    """
    moments: dict[str, Moments] = {}
    with progress.bar("quantise: measuring the layers' inputs", len(texts)) as advance:
        for found in _run_each(model, tensors, texts):
            for name, value in zip(tensors, found, strict=True):
                of_heads = value.ndim == 4
                width = value.shape[1] * value.shape[3] if of_heads else value.shape[-1]
                rows = (value.transpose(0, 2, 1, 3) if of_heads else value).reshape(-1, width)
                moments.setdefault(name, Moments.of_width(rows.shape[1], with_products=not of_heads)).add(rows)
            advance(1)
    for seen in moments.values():
        seen.finish()
    return moments


def outputs(
    model: onnx.ModelProto, tensor: str, texts: Sequence[Sequence[int]], *, title: str
) -> npt.NDArray[np.float32]:
    """Run an encoder on texts, one at a time, and return one inner tensor of each, float32 [texts, width]."""
    with progress.bar(f"quantise: {title}", len(texts)) as advance:
        rows = []
        for found in _run_each(model, [tensor], texts):
            rows.append(found[0])
            advance(1)
    return np.asarray(np.concatenate(rows), dtype=np.float32)


def _run_each(
    model: onnx.ModelProto, tensors: Sequence[str], texts: Sequence[Sequence[int]]
) -> Iterator[list[npt.NDArray[Any]]]:
    """Run an encoder on texts, one at a time on each processor core, and yield each text's inner tensors in order."""
    opened = _session(model, tensors)

    def run(text: Sequence[int]) -> list[npt.NDArray[Any]]:
        found: list[npt.NDArray[Any]] = opened.run(list(tensors), _feed(model, np.array([text], np.int64)))
        return found

    return in_order(run, texts)


def _session(model: onnx.ModelProto, tensors: Iterable[str]) -> Any:
    """Open a session of a copy that returns inner tensors."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    return session(tapped.SerializeToString(), threads=1)


def _feed(model: onnx.ModelProto, ids: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.int64]]:
    values = dict(zip(_INPUTS, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True))
    return {value.name: values[value.name] for value in model.graph.input}
