"""Measures edgeleaf from the string to the vector, beside everything that a user might choose instead.

    python -m bench.peers.run BUNDLE -o out/bench [--peers edgeleaf,by-hand-int8] [--quick]

Makes an environment and an artefact for every peer of ``peers.toml``, compares their vectors with the teacher's,
measures this processor's ceiling, lets all peers take turns, and writes ``results.json``, raw times included.
``python -m bench.peers.report`` makes tables and plots from one or several such files of one machine.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.artefacts import Given, artefact, size_mb
from bench.peers.environments import PEERS, PEERS_GPU, Environments, Peer, read_peers
from bench.peers.noise import Noise, warnings
from bench.studies import ceiling
from edgeleaf import progress
from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.machine import machine
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.errors import EdgeleafError, InputError
from edgeleaf.files import sha256, write_json
from edgeleaf.latency.measure import QUERY_LENGTHS, THREADS, TIMED_BATCHES, golden_texts, mixed_texts
from edgeleaf.latency.process import System, started
from edgeleaf.latency.report import add_percentiles, measurement_warnings, settings
from edgeleaf.latency.runner import Plan, steps_of, take_turns
from edgeleaf.teachers.cache import teacher_vectors
from edgeleaf.teachers.opening import teacher_of
from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher
from edgeleaf.texts.corpus import read_texts
from edgeleaf.vectors import cosine_rows, nearest, overlap

SCHEMA_VERSION = 1
QUERIES, DOCUMENTS = 300, 2000
K = 10
FIRST_LOOKS = 40
"""Number of checks of the machine before the long part, which take some two seconds."""
FULL: Mapping[str, Any] = {"repeats": 300, "sessions": 3, "visits": 10, "visit_s": 0.6, "batch_visits": 3}
QUICK: Mapping[str, Any] = {"repeats": 10, "sessions": 1, "visits": 2, "visit_s": 0.2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--peers", help="names of bench/peers/peers.toml, with commas; default: all")
    parser.add_argument("--gpu", action="store_true", help="peers-gpu.toml, on a machine with an NVIDIA GPU")
    parser.add_argument("--quick", action="store_true", help="few repeats, to see that everything works")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    progress.show()
    output, bundle = given.output.resolve(), given.bundle.resolve()
    try:
        if given.gpu and machine()["gpu"] is None:
            raise InputError("no NVIDIA GPU here: bench-gpu measures nothing; run it on a machine that has one")
        peers, environments = read_peers(PEERS_GPU if given.gpu else PEERS, output / "environments")
        wanted = chosen(peers, given.peers)
        measured = measure(bundle, wanted, environments, output, plan=QUICK if given.quick else FULL, gpu=given.gpu)
    except EdgeleafError as error:
        sys.exit(str(error))
    write_json(output / "results.json", measured)
    sys.stdout.write(f"{output / 'results.json'}\n")


def chosen(peers: Sequence[Peer], names: str | None) -> list[Peer]:
    """Return the peers of these names, or all peers if none are given.

    Raises:
        InputError: no such peer.
    """
    if names is None:
        return list(peers)
    by_name = {peer.name: peer for peer in peers}
    wanted = names.split(",")
    if unknown := [name for name in wanted if name not in by_name]:
        raise InputError(f"no peer {', '.join(unknown)}; there are {', '.join(by_name)}")
    return [by_name[name] for name in wanted]


def measure(
    bundle: Path,
    peers: Sequence[Peer],
    environments: Environments,
    output: Path,
    *,
    plan: Mapping[str, Any] = FULL,
    gpu: bool = False,
) -> dict[str, Any]:
    """Measure peers in one run; see the module.

    Args:
        bundle: a bundle folder.
        peers: the peers to measure. One that is not available, or that fails, is left out, and the reason is recorded.
        environments: their environments.
        output: absolute path of a folder for artefacts and vectors.
        plan: repeats, sessions, visits and their length.
        gpu: leave the processor's ceiling out.

    Returns:
        A record: schema version, machine, the bundle's identity, settings, ``noise``, ``ceiling``, ``peers`` (what they
        are, versions, sizes, alignment), ``absent`` (those that were not available, and why), ``systems`` as
        :func:`edgeleaf.latency.runner.run` returns them, and notes.
    """
    manifest = Manifest.read(bundle)
    manifest.verify(bundle, layout.QUERY_ENCODER, layout.GOLDEN, layout.HELD_OUT)
    teacher = teacher_of(manifest)
    made = output / "artefacts"
    made.mkdir(parents=True, exist_ok=True)
    windows = int(manifest.tokenizer["max_length"]), manifest.teacher_max_length
    given = Given(bundle, teacher.folder, made, environments.python, *windows)
    absent: dict[str, str] = {}
    systems = prepared(peers, environments, given, manifest.space.query_prompt, absent)
    reference = _reference(bundle, teacher, output)
    facts = compared([peer for peer in peers if peer.name in systems], systems, environments, given, reference, absent)
    texts, notes = golden_texts(bundle, QUERY_LENGTHS)
    mixed = mixed_texts(bundle, texts)
    whole = Plan(threads=THREADS, texts=texts, mixed=mixed, batch_sizes=TIMED_BATCHES, **plan)
    least = None
    if not gpu:
        progress.say("this processor's ceiling")
        least = ceiling.measure(bundle, threads=whole.threads, lengths=[int(length) for length in texts])
    noise, failed = Noise(), dict[str, str]()
    for _ in range(FIRST_LOOKS):
        noise.look()
    for warning in warnings(noise.report()):
        progress.say(f"before it begins: {warning}")
    ready = [systems[name] for name in facts]
    with progress.bar("bench: peers taking turns", steps_of(ready, whole)) as advance:
        records = take_turns(ready, whole, advance=advance, between=noise.look, dropped=failed)
    for name, why in failed.items():
        _leave_out(name, why, absent)
    for warning in warnings(noise.report()):
        progress.say(warning)
    for record in records:
        add_percentiles(record)
    titles = {name: entry["title"] for name, entry in facts.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": {**machine(), "id": _machine_id()},
        "bundle": {
            "space": manifest.space.id,
            "fused_sha256": sha256(bundle / layout.QUERY_ENCODER),
            "file_mb": round((bundle / layout.QUERY_ENCODER).stat().st_size / 1e6, 2),
        },
        "settings": {
            **settings(whole),
            "queries": len(reference["queries"]),
            "documents": len(reference["documents"]),
        },
        "noise": noise.report(),
        "ceiling": least,
        "peers": {name: entry for name, entry in facts.items() if name not in failed},
        "absent": absent,
        "notes": [*notes, *measurement_warnings(records, whole.repeats, titles)],
        "systems": records,
    }


def prepared(
    peers: Sequence[Peer], environments: Environments, given: Given, prompt: str, absent: dict[str, str]
) -> dict[str, System]:
    """Return the peers that can be started, by name; reasons why others cannot are put into ``absent``."""
    systems: dict[str, System] = {}
    for peer in peers:
        try:
            environments.make(peer.environment)
            systems[peer.name] = peer.system(environments, artefact(peer.artefact, given), prompt)
        except Exception as error:  # an error in another project's exporter excludes only that peer
            _leave_out(peer.name, f"{type(error).__name__}: {error}", absent)
    return systems


def compared(
    peers: Sequence[Peer],
    systems: Mapping[str, System],
    environments: Environments,
    given: Given,
    reference: Mapping[str, Any],
    absent: dict[str, str],
) -> dict[str, dict[str, Any]]:
    """Return a description of each peer and of its vectors; those that fail are put into ``absent``, with reasons."""
    facts: dict[str, dict[str, Any]] = {}
    with progress.bar("bench: alignment", len(peers)) as advance:
        for peer in peers:
            try:
                facts[peer.name] = _facts(peer, systems[peer.name], environments, given, reference)
            except (EdgeleafError, ValueError, subprocess.CalledProcessError) as error:
                _leave_out(peer.name, str(error), absent)
            advance(1)
    return facts


def _leave_out(name: str, why: str, absent: dict[str, str]) -> None:
    absent[name] = " ".join(why.split())[:300]
    progress.say(f"{name} is left out: {absent[name]}")


def _machine_id() -> str | None:
    """Return a hash of the system's own identifier, if it has one, which distinguishes machines of one kind."""
    try:
        return hashlib.sha256(Path("/etc/machine-id").read_bytes()).hexdigest()[:12]
    except OSError:
        return None


def _reference(bundle: Path, teacher: SentenceTransformerTeacher, output: Path) -> dict[str, Any]:
    """Return held-out queries and documents, the teacher's vectors of them, and its nearest documents per query."""
    texts = read_texts(bundle / layout.HELD_OUT)
    queries = [text for text in texts if text.kind == "query"][:QUERIES]
    documents = [text for text in texts if text.kind == "document"][:DOCUMENTS]
    asked, among = (
        teacher_vectors(part, teacher, output / "vectors").astype(np.float32) for part in (queries, documents)
    )
    return {
        "queries": [text.text for text in queries],
        "documents": [text.text for text in documents],
        "asked": asked,
        "among": among,
        "found": nearest(asked, among, K),
    }


def _facts(
    peer: Peer, system: System, environments: Environments, given: Given, reference: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a peer's description, its size, and how its vectors compare with the teacher's."""
    with started(system, threads=1) as worker:
        dim = worker.load(reference["queries"][0])["dim"]
        vectors = worker.vectors(reference["queries"], dim)
        if peer.space == "own":
            own = worker.vectors(reference["documents"], dim)
            cosines, found = None, nearest(vectors, own, K)
        else:
            if dim != reference["asked"].shape[1]:
                raise InputError(f"{peer.title}: {dim} numbers, the teacher has {reference['asked'].shape[1]}")
            cosines = cosine_rows(vectors, reference["asked"])
            found = nearest(vectors, reference["among"], K)
    versions = environments.versions(peer.environment)
    return {
        "title": peer.title,
        "note": peer.note,
        "space": peer.space,
        "dim": dim,
        "cosine": None if cosines is None else round(float(cosines.mean()), 4),
        "cosines": None if cosines is None else [round(float(value), 5) for value in cosines],
        "overlap_at_10": round(float(overlap(found, reference["found"]).mean()), 4),
        "artefact_mb": size_mb(Path(system.path), of=peer.artefact),
        "installed_mb": environments.size_mb(peer.environment),
        "versions": {name: versions[name] for name in sorted(versions) if name not in ("pip", "setuptools")},
    }


if __name__ == "__main__":
    main()
