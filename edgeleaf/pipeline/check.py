"""Measure a bundle against its teacher again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeleaf.certify.processors import check_names
from edgeleaf.extras import require
from edgeleaf.files import whole_folder
from edgeleaf.pipeline.places import open_bundle, report_folder, work_folder
from edgeleaf.stages import texts as checks
from edgeleaf.stages.checked import certify_bundle, collections_of, gates_of, pairs_of, write_certificate
from edgeleaf.stages.runner import Stages
from edgeleaf.stages.vectors import VECTOR_CACHE, write_vectors
from edgeleaf.teachers.opening import teacher_of

if TYPE_CHECKING:
    from edgeleaf.certify.certificate import Certificate


def check(
    bundle: str | Path,
    *,
    texts: Sequence[str | Path] = (),
    collections: Sequence[str | Path] = (),
    pairs: Sequence[str | Path] = (),
    processors: Sequence[str] = (),
    output: str | Path | None = None,
) -> Certificate:
    """Measure a bundle again. The bundle is not changed.

    Args:
        bundle: a bundle folder; its teacher must be available.
        texts: files with queries, one per line, ranked against documentation found on this machine; if empty, the
            held-out texts that the bundle was certified on are used.
        collections: further folders to measure, in BEIR's layout. Their teacher vectors, which take longest, stay in
            ``BUNDLE.work``, so that the next check is quick.
        pairs: files of sentences with people's scores (STS): columns score, sentence1, sentence2, separated by tabs.
        processors: processors to emulate and compare with this one, by their names in
            ``edgeleaf.emulation.processors.PROCESSORS``.
        output: a new folder for the certificate and its page; None writes nothing.

    Raises:
        BundleError, ModelError, TextsError: the bundle is damaged, or its teacher or the texts are not available.
    """
    from edgeleaf.certify.inputs import encode_collection, encode_pairs

    folder, report = Path(bundle), report_folder(output)
    manifest = open_bundle(folder)
    gates = gates_of(manifest)
    check_names(processors)
    extra = [("check -o", report), ("check --collection", collections), ("check --sts", pairs)]
    require("check", *(what for what, asked in extra if asked))
    read, scored = collections_of(collections), pairs_of(pairs)
    with Stages(work_folder(folder)) as stages:
        held_out, origin = folder, str(manifest.held_out.get("origin"))
        own, vectors, cache = (stages.work / name for name in ("check-texts", "check-vectors", VECTOR_CACHE))
        keeps = bool(read or scored) or cache.exists()  # left by a run, or by a check with collections
        shutil.rmtree(own, ignore_errors=True)
        if texts:
            held_out, origin = own, checks.origin(texts)
            checks.check_texts(own, texts)
        teacher = teacher_of(manifest)
        write_vectors(vectors, held_out, teacher, cache, names=("held_out",))
        certificate = certify_bundle(
            folder,
            held_out,
            vectors,
            manifest.space,
            gates,
            origin,
            collections=[encode_collection(collection, teacher, cache) for collection in read],
            pairs=[encode_pairs(part, teacher, cache) for part in scored],
            processors=processors,
        )
        if report is not None:
            with whole_folder(report) as new:
                write_certificate(certificate, new)
        for scraps in (own, vectors, *(() if keeps else (cache,))):
            shutil.rmtree(scraps, ignore_errors=True)
    return certificate
