"""Was the machine quiet? Times a fixed piece of work before every visit, and the processor time that others took."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

DRIFT, SPIKES, OTHERS = 1.10, 1.25, 0.05
"""Warn if the fixed work takes this much longer at one time than at another, if its slowest tenth takes this many times
its median, and if others used this share of the processors while all peers waited."""
LISTEN_S = 0.05


class Noise:
    """Checks the machine between visits, when no peer works."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._listened = self._busy = self._stolen = 0.0

    def look(self) -> None:
        """Measure what others do, then time a fixed piece of work: some milliseconds of one thread's interpreter."""
        before, begin = _processor_seconds(), time.perf_counter()
        time.sleep(LISTEN_S)
        after = _processor_seconds()
        self._listened += (time.perf_counter() - begin) * (os.cpu_count() or 1)
        self._busy += after[0] - before[0]
        self._stolen += after[1] - before[1]
        begin = time.perf_counter()
        total = 0
        for number in range(100_000):
            total += number
        self._times.append(time.perf_counter() - begin)

    def report(self) -> dict[str, Any]:
        """Return the fixed work's times, and the share of the processors that others used, if the system tells."""
        listened = max(self._listened, 1e-9)
        return {
            "fixed_work_ms": [round(1e3 * seconds, 3) for seconds in self._times],
            "others_share": round(self._busy / listened, 4),
            "stolen_share": round(self._stolen / listened, 4),
        }


def warnings(report: Mapping[str, Any]) -> list[str]:
    """Return warnings about noise in :meth:`Noise.report`, and what to do about it."""
    found = []
    times = np.array(report["fixed_work_ms"])
    if len(times) >= 10:
        parts = [float(np.median(part)) for part in np.array_split(times, 5)]
        if max(parts) > DRIFT * min(parts):
            found.append(
                f"the machine's speed drifted by {max(parts) / min(parts) - 1:.0%} during the run: compare "
                "peers of one run only; measure again with nothing else running, on mains power, with a fixed clock"
            )
        spread = float(np.percentile(times, 90) / np.median(times))
        if spread > SPIKES:
            found.append(
                f"one piece of work in ten took {spread:.2f} times its median: other work was running; close it "
                "and measure again"
            )
    if report["others_share"] > OTHERS:
        found.append(
            f"{report['others_share']:.0%} of the processors were busy while all peers waited: close what else is "
            "running and measure again"
        )
    if report["stolen_share"] > OTHERS:
        found.append(
            f"{report['stolen_share']:.0%} of the processor time went to other virtual machines: use a host of your own"
        )
    return found


def _processor_seconds() -> tuple[float, float]:
    """Return the seconds that all processors worked and that a hypervisor took; zeros if the system does not tell."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
        user, nice, system, _, _, irq, softirq, steal = map(int, fields[1:9])
        tick = os.sysconf("SC_CLK_TCK")
        return (user + nice + system + irq + softirq) / tick, steal / tick
    except (OSError, ValueError, IndexError):
        return 0.0, 0.0
