"""Fuzz the readers, guided by coverage: ``python -m tests.fuzz.guided --minutes 10 [--seed N] [--only NAME]``.

It needs ``pip install atheris``. A changed file that reaches new lines is kept and changed further. Output, findings
and exit status are those of ``python -m tests.fuzz.run``. Each reader has a process of its own and its share of the
time, because libFuzzer neither returns nor shares its time evenly.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import atheris

for loaded in [name for name in sys.modules if name.partition(".")[0] == "edgeleaf"]:
    del sys.modules[loaded]  # the package tests has imported it, without counters of its branches
with atheris.instrument_imports(include=["edgeleaf"]):
    from tests.fuzz.mutations import edited_bytes, edited_json
    from tests.fuzz.readers import readers
    from tests.fuzz.run import Counts, too_slow

LONGEST = 1 << 16


def guided(name: str, minutes: float, seed: int, findings: Path) -> None:
    """Fuzz one reader until the time is over, print its counts as JSON and end the process."""
    with tempfile.TemporaryDirectory() as scratch:
        (reader,) = (reader for reader in readers(Path(scratch) / "work") if reader.name == name)
        counts = Counts([reader], findings)
        corpus = Path(scratch) / "corpus"
        corpus.mkdir()
        (corpus / "valid").write_bytes(reader.seed)
        end = time.monotonic() + 60 * minutes

        def one(data: bytes) -> None:
            counts.take(reader, data)
            if time.monotonic() > end:
                sys.stdout.write(json.dumps(counts.of) + "\n")
                sys.stdout.flush()
                os._exit(0)

        def changed(data: bytes, longest: int, seed: int) -> bytes:
            dice = random.Random(seed)
            deed = dice.randrange(4)
            if deed == 0:
                return bytes(atheris.Mutate(data, longest))
            if deed > 1 and reader.is_json:
                try:
                    return edited_json(data, dice)[:longest]
                except (ValueError, RecursionError):
                    pass  # it is JSON no more
            return edited_bytes(data, dice)[:longest]

        flags = [f"-max_len={LONGEST}", f"-seed={seed}", "-len_control=0", "-rss_limit_mb=0", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *flags, str(corpus)], one, custom_mutator=changed)
        atheris.Fuzz()


def main() -> int:
    """Fuzz and print the counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one reader")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, too_slow)
    if options.only:
        guided(options.only, options.minutes, options.seed, options.findings)
    with tempfile.TemporaryDirectory() as scratch:
        names = [reader.name for reader in readers(Path(scratch) / "work")]
    counts = {}
    for name in names:
        share = ["--only", name, "--minutes", str(options.minutes / len(names))]
        others = ["--seed", str(options.seed), "--findings", str(options.findings)]
        command = [sys.executable, "-m", "tests.fuzz.guided", *share, *others]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        counts |= json.loads(done.stdout)
    sys.stdout.write(json.dumps(counts, indent=2) + "\n")
    return 1 if any(count["failed"] for count in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
