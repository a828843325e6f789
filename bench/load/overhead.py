"""What `edgeleaf serve` costs beside its encoder: ``python -m bench.load.overhead BUNDLE --encoder-ms 1.2``.

In the encoder's place stands one that keeps a core busy for so long per text, without Python's lock, as onnxruntime
does, and returns a fixed vector. Requests a second and processor time are then those of HTTP, JSON, the queue and the
event loop, on any machine alike. Needs wrk.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.load.run import CONNECTIONS, WARM_UP, Running, Server, body_of, texts_of
from bench.peers.environments import Environments
from bench.tables import markdown_table
from edgeleaf.bundle.encoder import Counted, QueryEncoder


def stand_in(dim: int, milliseconds: float) -> Any:
    """Return a replacement of ``QueryEncoder.encode_counted``."""
    rounds = 100_000
    begun = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"", b"", rounds)
    per_ms = rounds / (1000 * (time.perf_counter() - begun))

    def encode_counted(encoder: QueryEncoder, texts: Sequence[str]) -> Counted:
        if milliseconds:
            hashlib.pbkdf2_hmac("sha256", b"", b"", max(1, int(per_ms * milliseconds * len(texts))))
        vectors = np.full((len(texts), dim), dim**-0.5, dtype=np.float32)
        return Counted(vectors, np.full(len(texts), 9), np.zeros(len(texts), dtype=bool))

    return encode_counted


def serve(bundle: str, port: int, milliseconds: float) -> None:
    from edgeleaf.server.models import open_served
    from edgeleaf.server.run import serve as run
    from edgeleaf.server.settings import Settings

    served = open_served([bundle], [])
    dim = next(iter(served.values())).space.dim
    QueryEncoder.encode_counted = stand_in(dim, milliseconds)  # type: ignore[method-assign]
    run(served, Settings(port=port, access_log=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--encoder-ms", type=float, default=1.2, help="how long the stand-in takes for a text")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load at each number of connections")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(str(given.bundle), given.serve, given.encoder_ms)
        return
    command = [sys.executable, "-m", "bench.load.overhead", "{artefact}", "--serve", "{port}"]
    command += ["--encoder-ms", str(given.encoder_ms)]
    server = Server("edgeleaf", "", "edgeleaf", "bundle", command, "/v1/embeddings", {"input": "TEXT"})
    with tempfile.TemporaryDirectory() as folder:
        bodies = Path(folder) / "bodies"
        texts = texts_of(given.bundle)
        bodies.write_text("".join(body_of(server, text) + "\n" for text in texts), encoding="utf-8")
        running = Running(server, Environments(Path(folder), {"edgeleaf": []}, {}), given.bundle, Path(folder) / "log")
        try:
            running.load(bodies, 8, WARM_UP)
            loads = [running.load(bodies, connections, given.seconds) for connections in CONNECTIONS]
        finally:
            running.close()
    columns = ("requests_a_second", "p50_ms", "p99_ms", "outside_encoder_ms_a_request")
    rows = [(str(load["connections"]), *(f"{load[column]:.2f}" for column in columns)) for load in loads]
    sys.stdout.write(markdown_table(("connections", *(column.replace("_", " ") for column in columns)), rows) + "\n")


if __name__ == "__main__":
    main()
