"""What checks and benchmarks of a bundle do: texts to check with, its certificate, its latency, reports of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeleaf import bundle as layout
from edgeleaf import models, progress, steps
from edgeleaf.bundle import Manifest, VectorSpace
from edgeleaf.errors import BundleError, ModelError, TextsError
from edgeleaf.recipe import BenchmarkSpec, Gates
from edgeleaf.texts import Corpus, FilesSource, MachineSource, Text, collect, write_corpus

if TYPE_CHECKING:
    from edgeleaf.certify import Certificate
    from edgeleaf.certify.similarity import EncodedPairs, Pairs
    from edgeleaf.collection import Collection, EncodedCollection

QUERIES = 1000
DOCUMENTS = 1000
LEAST_QUERIES = 20
"""With fewer queries than this, percentiles and overlaps mean nothing. A recipe may not hold out fewer either."""


def query_files(files: Sequence[str | Path]) -> list[FilesSource]:
    """Return files of queries as a source of texts."""
    return [FilesSource(tuple(map(str, files)), "query")] if files else []


def own_queries(files: Sequence[str | Path]) -> list[Text]:
    """Return distinct queries of ``files``, a sample where there are many; none where no files are given.

    Raises:
        TextsError: a file cannot be read, or they hold too few queries for a verdict.
    """
    if not files:
        return []
    sources = query_files(files)
    queries = collect(sources, limit=QUERIES, held_out_queries=0, held_out_documents=0, seed=0, base=Path()).train
    if len(queries) < LEAST_QUERIES:
        raise TextsError(
            f"{', '.join(map(str, files))}: {len(queries)} distinct queries; a verdict needs {LEAST_QUERIES} or more"
        )
    return queries


def check_texts(folder: Path, files: Sequence[str | Path], *, calibration: int = 1) -> None:
    """Collect texts to check with: queries from ``files`` where there are some, the rest from this machine.

    Others from this machine, ``calibration`` of them, are in ``train.jsonl``: a quantiser's.
    """
    own = own_queries(files)
    machine = collect(
        [MachineSource()],
        limit=calibration,
        held_out_queries=0 if own else QUERIES,
        held_out_documents=DOCUMENTS,
        max_chars=500,
        seed=0,
        base=Path(),
    )
    write_corpus(Corpus(train=machine.train, held_out=own + machine.held_out), folder)


def origin(files: Sequence[str | Path]) -> str:
    """Say where the texts of :func:`check_texts` come from."""
    machine = "documentation found on the machine"
    return f"queries of {', '.join(Path(name).name for name in files)}, documents from {machine}" if files else machine


def collections_of(folders: Sequence[str | Path]) -> list[Collection]:
    """Read collections to check with; none where no folders are given.

    Raises:
        TextsError: one is missing or damaged.
        MissingExtra: there are some, and ir-measures is not installed.
    """
    if not folders:
        return []
    from edgeleaf.certify.retrieval import require_measures
    from edgeleaf.collection import read_collections

    require_measures()
    return read_collections(folders)


def pairs_of(files: Sequence[str | Path]) -> list[Pairs]:
    """Read files of scored pairs; none where no files are given.

    Raises:
        TextsError: one is missing or damaged.
    """
    from edgeleaf.certify.similarity import read_pairs

    return [read_pairs(Path(file)) for file in files]


def gates_of(manifest: Manifest) -> Gates:
    """Return what a bundle was judged by when it shipped.

    Raises:
        BundleError: a gate that this edgeleaf does not know.
    """
    known = Gates.__dataclass_fields__
    if unknown := [name for name in manifest.gates if name not in known]:
        raise BundleError(f"gates that this edgeleaf does not know: {', '.join(unknown)}; known: {', '.join(known)}")
    return Gates(**manifest.gates)


def certify_bundle(
    bundle: Path,
    texts: Path,
    vectors: Path,
    space: VectorSpace,
    gates: Gates,
    origin: str,
    *,
    collections: Sequence[EncodedCollection] = (),
    pairs: Sequence[EncodedPairs] = (),
    processors: Sequence[str] = (),
) -> Certificate:
    """Measure a bundle against the teacher on held-out texts, every code point included, and on collections.

    Args:
        bundle: the folder.
        texts, vectors: folders with ``held_out.jsonl`` and ``held_out.npy``.
        space: the teacher's.
        gates: what it must reach.
        origin: where the texts come from.
        collections, pairs: with the teacher's vectors.
        processors: others to compare this one with, by their names in ``edgeleaf.emulation``.
    """
    from edgeleaf.certify import certify
    from edgeleaf.certify.processors import compare

    held_out = steps.read(texts, "held_out")
    matrix = np.load(vectors / "held_out.npy").astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    is_query = np.array([text.kind == "query" for text in held_out])
    queries = [text.text for text in held_out if text.kind == "query"]
    return certify(
        bundle,
        queries=queries,
        teacher_queries=matrix[is_query],
        documents=[text.text for text in held_out if text.kind == "document"],
        teacher_documents=matrix[~is_query],
        gates=gates,
        query_prompt=space.query_prompt,
        document_prompt=space.document_prompt,
        space={"id": space.id, **asdict(space)},
        collections=collections,
        pairs=pairs,
        processors=compare(bundle / layout.QUERY_ENCODER, queries, processors) if processors else (),
        texts=origin,
        code_points=True,
    )


def write_certificate(certificate: Certificate, folder: Path) -> None:
    """Write ``certificate.json`` and ``certificate.html``."""
    from edgeleaf.certify import write

    write(certificate, folder)


def read_certificate(folder: Path) -> Certificate:
    """Read ``certificate.json``."""
    from edgeleaf.certify import Certificate

    return Certificate.read(folder / layout.CERTIFICATE)


def find_teacher(manifest: Manifest) -> Path | None:
    """Return the folder of a bundle's teacher, or None (and say so) where it is out of reach."""
    try:
        return models.resolve(manifest.space.teacher, revision=manifest.space.revision)
    except ModelError as error:
        progress.say(f"the teacher is not measured: {error}")
        return None


def benchmark(bundle: Path, *, spec: BenchmarkSpec, teacher: Path | None, torch_student: bool) -> dict[str, Any]:
    """Measure a bundle's latency from the string."""
    from edgeleaf import latency

    prompt = Manifest.read(bundle).space.query_prompt
    return latency.measure(
        bundle,
        query_prompt=prompt,
        teacher_prompt=prompt,
        threads=spec.threads,
        lengths=spec.lengths,
        repeats=spec.repeats,
        teacher=str(teacher) if teacher else None,
        include_student=torch_student,
    )


def report_folder(output: str | Path | None) -> Path | None:
    """Return the folder that a report is to be written to, None where none is asked for.

    Raises:
        BundleError: it is there, and not empty.
    """
    if output is None:
        return None
    folder = Path(output)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise BundleError(f"{output} is there and is no empty folder; give a new one for the report")
    return folder
