"""Fuzz all readers for some minutes: ``python -m tests.fuzz.run --minutes 10 [--seed N] [--only NAME]``.

Prints, as JSON, how often each reader read, refused and failed, and writes each kind of failure to a file. Exits with 1
if there is a failure. ``python -m tests.fuzz.guided`` does the same guided by coverage.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.mutations import edited_bytes, edited_json
from tests.fuzz.readers import Reader, readers, refusal

SLOW_S = 10


class TooSlow(BaseException):
    """A reader took longer than any file may take."""


def too_slow(*_: object) -> None:
    """Stop what runs; for SIGALRM."""
    raise TooSlow(f"more than {SLOW_S} s")


def changed(reader: Reader, dice: random.Random) -> bytes:
    data = reader.seed
    if reader.is_json and dice.random() < 0.7:
        data = edited_json(data, dice)
        if dice.random() < 0.8:
            return data
    return edited_bytes(data, dice)


def tried(reader: Reader, data: bytes) -> tuple[str, str]:
    """Return ("read" | "refused" | "failed", what failed)."""
    signal.alarm(SLOW_S)
    try:
        reader.read(data)
        return "read", ""
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        wrong = refusal(error)
        if wrong is None:
            return "refused", ""
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "edgeleaf" in frame.filename]
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
        return "failed", f"{type(error).__name__} {place}: {wrong}"
    finally:
        signal.alarm(0)


class Counts:
    """How often each reader read, refused and failed; the first file of each kind of failure is kept.

    Raises:
        SystemExit: a reader does not read its own valid file.
    """

    def __init__(self, found: Sequence[Reader], findings: Path) -> None:
        self.findings = findings
        self.of: dict[str, dict[str, Any]] = {}
        for reader in found:
            self.of[reader.name] = {"read": 0, "refused": 0, "failed": 0, "kinds": {}}
            if tried(reader, reader.seed)[0] != "read":
                raise SystemExit(f"{reader.name} does not read its own valid file: {tried(reader, reader.seed)}")

    @property
    def failed(self) -> int:
        """Failures of all readers."""
        return sum(count["failed"] for count in self.of.values())

    def take(self, reader: Reader, data: bytes) -> None:
        """Try one file, count what came of it, and keep it if its kind of failure is new."""
        counts = self.of[reader.name]
        outcome, what = tried(reader, data)
        counts[outcome] += 1
        kind = what.split(":")[0] + what.partition(":")[2][:12]
        if what and kind not in counts["kinds"]:
            counts["kinds"][kind] = what
            self.findings.mkdir(parents=True, exist_ok=True)
            name = f"{reader.name.replace('/', '-')}-{len(counts['kinds'])}"
            (self.findings / name).write_bytes(data)


def fuzz(minutes: float, seed: int, only: str | None, findings: Path) -> Counts:
    """Fuzz the readers in turn until the time is over."""
    with tempfile.TemporaryDirectory() as scratch:
        found = [reader for reader in readers(Path(scratch) / "work") if only in (None, reader.name)]
        counts = Counts(found, findings)
        dice, end = random.Random(seed), time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            for reader in found:
                share = time.monotonic() + 1
                while time.monotonic() < min(share, end):
                    counts.take(reader, changed(reader, dice))
    return counts


def main() -> int:
    """Fuzz and print the counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one reader")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, too_slow)
    counts = fuzz(options.minutes, options.seed, options.only, options.findings)
    sys.stdout.write(json.dumps(counts.of, indent=2) + "\n")
    return 1 if counts.failed else 0


if __name__ == "__main__":
    sys.exit(main())
