"""The learning rate over a run."""

from __future__ import annotations


def rate_factor(step: int, steps: int, warmup: int) -> float:
    """Return what share of the learning rate a step takes: a linear rise, then a linear decay to 0.

    Args:
        step: from 0; from ``steps`` on the share is 0.
        steps: of the whole run.
        warmup: steps of the run with a rising rate.
    """
    if step >= steps:
        return 0.0
    return step / warmup if step < warmup else (steps - step) / max(1, steps - warmup)
