"""Was the machine quiet? A fixed piece of work before every visit, and the processor time that others took."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

DRIFT, SPIKES, OTHERS = 1.10, 1.25, 0.05
"""Warn where the fixed work's slowest tenth takes so much longer than its median at another time, where single runs do,
and where others used this share of the processors."""


class Noise:
    """Looks at the machine between visits."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._start = time.perf_counter()
        self._steal = _stolen()

    def look(self) -> None:
        """Time the fixed work: some milliseconds of one thread's interpreter."""
        begin = time.perf_counter()
        total = 0
        for number in range(100_000):
            total += number
        self._times.append(time.perf_counter() - begin)

    def report(self) -> dict[str, Any]:
        """Return the fixed work's times and, where the system tells, stolen processor time by time passed."""
        stolen = _stolen() - self._steal
        return {
            "fixed_work_ms": [round(1e3 * seconds, 3) for seconds in self._times],
            "stolen_share": round(stolen / max((time.perf_counter() - self._start) * (os.cpu_count() or 1), 1e-9), 4),
            "load_average": [round(value, 2) for value in os.getloadavg()],
        }

    def warnings(self) -> list[str]:
        """What was not quiet, and what to do about it."""
        found = []
        times = np.array(self._times)
        if len(times) >= 10:
            parts = [float(np.median(part)) for part in np.array_split(times, 5)]
            if max(parts) > DRIFT * min(parts):
                found.append(
                    f"the machine's speed drifted by {max(parts) / min(parts) - 1:.0%} during the run: compare peers "
                    "of one run only; measure again with nothing else running, on mains power, with a fixed clock"
                )
            if np.percentile(times, 90) > SPIKES * np.median(times):
                found.append(
                    f"one piece of work in ten took {np.percentile(times, 90) / np.median(times):.2f} times its "
                    "median: other work was running; close it and measure again"
                )
        stolen = self.report()["stolen_share"]
        if stolen > OTHERS:
            found.append(f"{stolen:.0%} of the processor time went to other virtual machines: use a host of your own")
        return found


def _stolen() -> float:
    """Seconds that a hypervisor gave to others while something here was ready; zero where the system does not tell."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
        return int(fields[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
