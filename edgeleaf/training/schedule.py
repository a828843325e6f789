"""The learning rate over a run."""

from __future__ import annotations


def rate_factor(step: int, steps: int, warmup: int) -> float:
    """Return the share of the learning rate that a step uses: a linear rise, then a linear decay to 0.

    Args:
        step: number of the step, from 0; from ``steps`` on the share is 0.
        steps: number of steps in the whole run.
        warmup: number of steps with a rising rate.
    """
    if step >= steps:
        return 0.0
    return step / warmup if step < warmup else (steps - step) / max(1, steps - warmup)
