"""Fuzz all readers for some minutes: ``python -m tests.fuzz.run --minutes 10 [--seed N] [--only NAME] [--atheris]``.

Prints, as JSON, how often each reader read, refused and failed, and writes each kind of failure to a file. Exits with 1
if there is a failure. ``--atheris`` lets coverage choose the changes to one reader's file (``--only``); it needs
``pip install atheris``.
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
from pathlib import Path
from typing import Any

from tests.fuzz.mutations import edited_bytes, edited_json
from tests.fuzz.readers import Reader, readers, refusal

SLOW_S = 10


class TooSlow(BaseException):
    """A reader took longer than any file may take."""


def _too_slow(*_: object) -> None:
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


def fuzz(minutes: float, seed: int, only: str | None, findings: Path) -> dict[str, Any]:
    """Fuzz the readers in turn until the time is over; return the counts of each reader."""
    counts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        found = [reader for reader in readers(Path(scratch) / "work") if only in (None, reader.name)]
        dice, end = random.Random(seed), time.monotonic() + 60 * minutes
        for reader in found:
            counts[reader.name] = {"read": 0, "refused": 0, "failed": 0, "kinds": {}}
            if tried(reader, reader.seed)[0] != "read":
                raise SystemExit(f"{reader.name} does not read its own valid file: {tried(reader, reader.seed)}")
        while time.monotonic() < end:
            for reader in found:
                share = time.monotonic() + 1
                while time.monotonic() < min(share, end):
                    data = changed(reader, dice)
                    outcome, what = tried(reader, data)
                    counts[reader.name][outcome] += 1
                    kind = what.split(":")[0] + what.partition(":")[2][:12]
                    if what and kind not in counts[reader.name]["kinds"]:
                        counts[reader.name]["kinds"][kind] = what
                        findings.mkdir(parents=True, exist_ok=True)
                        (findings / f"{reader.name.replace('/', '-')}-{len(counts[reader.name]['kinds'])}").write_bytes(
                            data
                        )
    return counts


def _atheris(only: str, minutes: float) -> None:
    import atheris

    scratch = tempfile.mkdtemp()
    with atheris.instrument_imports(include=["edgeleaf"]):
        for name in [name for name in sys.modules if name.startswith("edgeleaf")]:
            del sys.modules[name]
        from tests.fuzz import readers as fresh
    reader = next(reader for reader in fresh.readers(Path(scratch) / "work") if reader.name == only)
    corpus = Path(scratch) / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(reader.seed)

    def one(data: bytes) -> None:
        outcome, what = tried(reader, data)
        if outcome == "failed":
            raise RuntimeError(what)

    atheris.Setup([sys.argv[0], f"-max_total_time={int(60 * minutes)}", str(corpus)], one)
    atheris.Fuzz()


def main() -> int:
    """Fuzz and print the counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one reader")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--atheris", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _too_slow)
    if options.atheris:
        _atheris(options.only or "manifest", options.minutes)
        return 0
    counts = fuzz(options.minutes, options.seed, options.only, options.findings)
    sys.stdout.write(json.dumps(counts, indent=2) + "\n")
    return 1 if any(count["failed"] for count in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
