"""One bundle's latency, from the string: by query length, cold, in batches, beside teacher and student.

Every system runs in fresh processes, which take turns: :mod:`edgeleaf.latency.runner`. The fused file alone needs only
numpy and onnxruntime.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeleaf import progress
from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.golden import read_golden
from edgeleaf.bundle.machine import machine
from edgeleaf.errors import BundleError, MissingExtra, ModelError
from edgeleaf.latency.process import System, builtin
from edgeleaf.latency.report import (
    LATENCY_SCHEMA,
    TEACHER,
    TITLES,
    TORCH_STUDENT,
    add_percentiles,
    measurement_warnings,
    settings,
)
from edgeleaf.latency.runner import VISIT_S, Plan, steps_of, take_turns
from edgeleaf.latency.worker import FUSED, SENTENCE_TRANSFORMER
from edgeleaf.texts.corpus import read_texts

THREADS = (1, 2)
QUERY_LENGTHS = (4, 8, 16, 32, 64, 128)
REPEATS = 100
TEXTS_A_LENGTH = 6
TIMED_BATCHES = (8, 32)
MIXED_TEXTS = 96


def measure(
    bundle: Path,
    *,
    threads: Sequence[int] = THREADS,
    lengths: Sequence[int] = QUERY_LENGTHS,
    repeats: int = REPEATS,
    teacher: str | Path | None = None,
    include_student: bool = False,
    query_prompt: str = "",
    teacher_prompt: str = "",
    visit_s: float = VISIT_S,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a bundle from the string to the vector: single texts, batches, cold starts.

    Args:
        bundle: the folder; its ``golden.jsonl`` has texts of known token counts, its ``held_out.jsonl`` queries of
            mixed lengths for batches.
        threads: thread counts, each measured in processes of its own.
        lengths: query lengths in tokens of the student, special tokens and prompt included.
        repeats: timed calls per length, over all visits.
        teacher: the teacher's local folder; ``None`` leaves it out.
        include_student: also measure the torch student.
        query_prompt: text put before each text for the torch student; the fused file contains it.
        teacher_prompt: text put before each text for the teacher.
        visit_s: seconds that one visit may take; repeats that do not fit are left out, but each visit makes one.
        seed: seed of every random order.

    Returns:
        A record for ``latency.json``: schema version, machine, settings, notes, ``file_mb``, ``alignment`` (from
        the certificate, if there is one), and per system and thread count the record of
        :func:`edgeleaf.latency.runner.run`, with p50, p95 and p99 per length.

    Raises:
        BundleError: the bundle lacks a file, or has no texts of any of the lengths.
        ModelError: no such teacher folder.
        MissingExtra: student or teacher is to be timed, but sentence-transformers is not installed.
        EdgeleafError: a measuring process failed; the message has its last line.
    """
    file = bundle / layout.QUERY_ENCODER
    texts, notes = golden_texts(bundle, lengths)
    if not file.is_file():
        raise BundleError(f"{file}: missing; build or copy the bundle again")
    # With a manifest the folder is loaded, as users do: the hash check is part of the cold load.
    fused = bundle if (bundle / layout.MANIFEST).is_file() else file
    systems = [System(FUSED, TITLES[FUSED], builtin(FUSED), str(fused))]
    torch = builtin(SENTENCE_TRANSFORMER)
    if include_student:
        systems.append(
            System(TORCH_STUDENT, TITLES[TORCH_STUDENT], torch, str(bundle / layout.STUDENT), prompt=query_prompt)
        )
    if teacher is not None:
        systems.append(System(TEACHER, TITLES[TEACHER], torch, str(teacher), prompt=teacher_prompt))
    for system in systems[1:]:
        if not Path(system.path).is_dir():
            raise ModelError(
                f"{system.path}: no such folder for the {system.title}; give a local sentence-transformers model"
            )
    if len(systems) > 1 and not importlib.util.find_spec("sentence_transformers"):
        raise MissingExtra("timing student or teacher needs sentence-transformers; pip install 'edgeleaf[bench]'")

    plan = Plan(
        threads=threads,
        texts=texts,
        mixed=mixed_texts(bundle, texts),
        batch_sizes=TIMED_BATCHES,
        repeats=repeats,
        visit_s=visit_s,
        seed=seed,
    )
    with progress.bar("bench: latency", steps_of(systems, plan)) as advance:
        records = take_turns(systems, plan, advance=advance)
    for record in records:
        add_percentiles(record)
    return {
        "schema_version": LATENCY_SCHEMA,
        "machine": machine(),
        "settings": settings(plan),
        "notes": notes + measurement_warnings(records, repeats, TITLES),
        "file_mb": round(file.stat().st_size / 1e6, 6),
        "alignment": _alignment(bundle),
        "systems": records,
    }


def _alignment(bundle: Path) -> dict[str, float] | None:
    """Return cosine and overlap@10 to the teacher from a bundle's certificate; None if it has no certificate yet."""
    from edgeleaf.certify.certificate import Certificate

    if not (bundle / layout.CERTIFICATE).is_file():
        return None
    file = Certificate.read(bundle / layout.CERTIFICATE).rungs[-1]
    return {"cosine": file.teacher_cosine.mean, "overlap_at_10": file.overlap_at_10}


def mixed_texts(bundle: Path, texts: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the first held-out queries of a bundle, or the texts of known lengths if it has none."""
    path = bundle / layout.HELD_OUT
    if not path.is_file():
        return [text for found in texts.values() for text in found]
    return [text.text for text in read_texts(path) if text.kind == "query"][:MIXED_TEXTS]


def golden_texts(bundle: Path, lengths: Sequence[int]) -> tuple[dict[str, list[str]], list[str]]:
    """Return texts of exactly each length from ``golden.jsonl``, by length, and a note per length that has none.

    If there are several, the last in the file is taken: these were made to fit, while an earlier one may be a long text
    that was cut off, which is additional work for a teacher with a wider window.

    Raises:
        BundleError: no such file, a damaged line, or no text of any of the lengths.
    """
    texts: dict[str, list[str]] = {str(length): [] for length in lengths}
    for entry in read_golden(bundle):
        if (tokens := str(len(entry["input_ids"]))) in texts:
            texts[tokens].append(entry["text"])
    texts = {tokens: found[-TEXTS_A_LENGTH:] for tokens, found in texts.items()}
    notes = [
        f"{layout.GOLDEN} has no text of {tokens} tokens: left out" for tokens, found in texts.items() if not found
    ]
    texts = {tokens: found for tokens, found in texts.items() if found}
    if not texts:
        raise BundleError(f"{bundle / layout.GOLDEN}: no text of {', '.join(map(str, lengths))} tokens; ask for others")
    return texts, notes
