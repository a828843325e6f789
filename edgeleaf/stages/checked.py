"""Measures, writes and reads the certificate of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.machine import processor_kind
from edgeleaf.bundle.manifest import Manifest, VectorSpace
from edgeleaf.emulation.processors import NATIVE
from edgeleaf.errors import BundleError
from edgeleaf.recipe.specs import Gates, shown
from edgeleaf.texts.corpus import read_corpus

if TYPE_CHECKING:
    from edgeleaf.certify.certificate import Certificate
    from edgeleaf.certify.inputs import EncodedCollection, EncodedPairs
    from edgeleaf.texts.collection import Collection
    from edgeleaf.texts.pairs import Pairs


def collections_of(folders: Sequence[str | Path]) -> list[Collection]:
    """Read collections to check with; none if no folders are given.

    Raises:
        TextsError: one is missing or damaged.
        MissingExtra: there are some, but ir-measures is not installed.
    """
    if not folders:
        return []
    from edgeleaf.certify.retrieval import require_measures
    from edgeleaf.texts.collection import read_collections

    require_measures()
    return read_collections(folders)


def pairs_of(files: Sequence[str | Path]) -> list[Pairs]:
    """Read files of scored pairs; none if no files are given.

    Raises:
        TextsError: one is missing or damaged.
    """
    from edgeleaf.texts.pairs import read_pairs

    return [read_pairs(Path(file)) for file in files]


def gates_of(manifest: Manifest) -> Gates:
    """Return the gates that a bundle was judged by when it shipped.

    Raises:
        BundleError: a gate that this edgeleaf does not know, or one that is not a number in its range.
    """
    known = Gates.__dataclass_fields__
    if unknown := [name for name in manifest.gates if name not in known]:
        raise BundleError(f"gates that this edgeleaf does not know: {', '.join(unknown)}; known: {', '.join(known)}")
    for field in fields(Gates):
        limit = manifest.gates.get(field.name)
        if limit is None or limit is False:
            continue
        low, high = field.metadata["low"], field.metadata["high"]
        whole = "int" in str(field.type)
        if isinstance(limit, bool) or not isinstance(limit, int if whole else int | float) or not low <= limit <= high:
            raise BundleError(
                f"gate {field.name} is {shown(limit)[:60]}; needed: {'a whole' if whole else 'a'} number from {low} to "
                f"{high}, or false to ask nothing"
            )
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
        space: the teacher's vector space.
        gates: the limits that it must meet.
        origin: the source of the texts.
        collections, pairs: further inputs, with the teacher's vectors.
        processors: processors to compare with this one, by their names in ``edgeleaf.emulation``.
    """
    from edgeleaf.certify.certify import certify
    from edgeleaf.certify.processors import compare

    held_out = read_corpus(texts, "held_out")
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
        space={"id": space.id, **space.record()},
        collections=collections,
        pairs=pairs,
        processors=compare(bundle / layout.QUERY_ENCODER, queries, processors) if processors else (),
        texts=origin,
        code_points=True,
    )


def write_certificate(certificate: Certificate, folder: Path) -> None:
    """Write ``certificate.json`` and ``certificate.html``."""
    from edgeleaf.certify.certify import write

    write(certificate, folder)


def read_certificate(folder: Path) -> Certificate:
    """Read ``certificate.json``."""
    from edgeleaf.certify.certificate import Certificate

    return Certificate.read(folder / layout.CERTIFICATE)


PROCESSOR_FACTS = ("queries", "cosine_min", "cosine_mean", "identical")
"""The facts that the manifest repeats from the certificate's record of a processor."""


def processor_facts(certificate: Certificate) -> dict[str, dict[str, float]]:
    """Return the manifest's entries about processors: this machine's own kind, and those it was compared with."""
    own = certificate.rungs[-1].teacher_cosine
    found: dict[str, dict[str, float]] = {processor_kind(): {"teacher_cosine_mean": own.mean}}
    for report in certificate.processors:
        if report.name != NATIVE:
            facts = asdict(report)
            found.setdefault(report.name, {}).update({name: facts[name] for name in PROCESSOR_FACTS})
    return found
