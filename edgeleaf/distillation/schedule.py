"""The learning rate over a run."""

from __future__ import annotations


def rate_factor(step: int, steps: int, warmup: int, cycles: int = 1) -> float:
    """Return what share of the learning rate a step takes: a linear rise, then a linear decay to 0.

    Args:
        step: from 0; from ``steps`` on the share is 0.
        steps: of the whole run.
        warmup: steps of the run with a rising rate, shared out among the cycles.
        cycles: such rises and decays, one after the other.
    """
    if step >= steps:
        return 0.0
    whole = -(-steps // cycles)
    rise, within = warmup // cycles, step % whole
    return within / rise if within < rise else (whole - within) / max(1, whole - rise)
