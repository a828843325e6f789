"""Watches a server's memory over many requests: ``python -m bench.load.soak BUNDLE --requests 500000 -o FILE``.

Prints and writes the resident memory after each twentieth part of the requests, 32 connections, short and long texts.
Exits with 1 if a request failed, or if the second half of the run ends with more memory than it began with, and 5%.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path

from bench.load.run import Running, Server, body_of, read_servers, texts_of
from edgeleaf import progress
from edgeleaf.files import write_json

CONNECTIONS = 32
PARTS = 20
ROOM = 1.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--requests", type=int, default=500_000)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    progress.show()
    servers, environments = read_servers(given.output.resolve().parent / "environments")
    server: Server = servers[0]
    environments.make(server.environment)
    counts: list[dict[str, float]] = []
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        bodies = Path(scratch) / "bodies"
        bodies.write_text("".join(body_of(server, text) + "\n" for text in texts_of(given.bundle)), encoding="utf-8")
        running = Running(server, environments, given.bundle.resolve(), Path(scratch) / "log")
        try:
            done, rate = 0, running.load(bodies, CONNECTIONS, 5)["requests_a_second"]
            while done < given.requests:
                load = running.load(bodies, CONNECTIONS, math.ceil(given.requests / PARTS / rate))
                done, rate = done + load["requests"], load["requests_a_second"]
                failed += sum(load["errors"].values())
                counts.append({"requests": done, "memory_mb": load["memory_mb"]["now"], "requests_a_second": rate})
                progress.say(f"{done:,} requests, {rate:.0f} a second, {load['memory_mb']['now']} MB")
        finally:
            running.close()
    grown = counts[-1]["memory_mb"] > ROOM * counts[len(counts) // 2]["memory_mb"]
    write_json(given.output, {"requests": done, "failed": failed, "grown": grown, "counts": counts})
    return 1 if failed or grown else 0


if __name__ == "__main__":
    sys.exit(main())
