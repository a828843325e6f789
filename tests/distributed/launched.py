"""Run by a launcher in every process: distils a recipe, and stops after a step as if the machine had been switched off.

python -m tests.distributed.launched RECIPE OUTPUT STEP
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import edgeleaf
from edgeleaf.training import trainer


def stop_after(step: int) -> Any:
    """Return a replacement of ``_Steps.on_step_end`` that ends the process without a word."""

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == step:
            raise SystemExit(0)

    return on_step_end


if __name__ == "__main__":
    recipe, output, step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    trainer._Steps.on_step_end = stop_after(step)  # type: ignore[method-assign]
    try:
        edgeleaf.distill(recipe, output=output)
    except SystemExit:
        os._exit(0)
