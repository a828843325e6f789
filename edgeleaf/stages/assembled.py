"""Puts the files of a bundle together, with a first manifest and the golden pack."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.files import link_tree, sha256
from edgeleaf.models.encoder_kind import encoder_kind
from edgeleaf.models.weights import weights_sha256
from edgeleaf.stages.graph import QUANTIZATION
from edgeleaf.stages.job import Job
from edgeleaf.stages.runner import STAGE
from edgeleaf.texts.corpus import read_corpus
from edgeleaf.version import __version__


def assemble(folder: Path, job: Job, texts: Path, student: Path, graph: Path, quantized: Path, fused: Path) -> None:
    """Put student, graphs, fused file, held-out texts and golden pack together, with a first manifest."""
    from edgeleaf.stages.golden import write_golden

    for source in (student, graph, quantized, fused):
        link_tree(source, folder, leave=(STAGE, QUANTIZATION))
    shutil.copyfile(texts / layout.HELD_OUT, folder / layout.HELD_OUT)
    queries = [text.text for text in read_corpus(folder, "held_out") if text.kind == "query"]
    write_golden(folder, queries, max_length=job.max_length, prompt=job.space.query_prompt)
    manifest = Manifest(
        space=job.space,
        recipe=job.name,
        description=job.description,
        teacher_max_length=job.teacher_max_length,
        student={
            **job.made_by,
            "encoder": encoder_kind(folder / layout.STUDENT),
            "weights_sha256": weights_sha256(folder / layout.STUDENT),
        },
        tokenizer=tokenizer_facts(folder, job.max_length),
        quantization={
            **json.loads((quantized / QUANTIZATION).read_text(encoding="utf-8")),
            "exporter": job.exporter,
        },
        gates={},
        held_out={"origin": job.origin, "texts": len(read_corpus(folder, "held_out"))},
        dims=(job.space.dim,),
        files={name: digest for name, digest in layout.hash_files(folder).items() if name != STAGE},
        edgeleaf_version=__version__,
    )
    manifest.write(folder)


def tokenizer_facts(student: Path, max_length: int) -> dict[str, Any]:
    """Return the manifest's entries about the tokenizer."""
    from edgeleaf.graph.tokenizers.description import described
    from edgeleaf.graph.tokenizers.spec import parse

    path = student / layout.STUDENT / "tokenizer.json"
    settings = path.read_text(encoding="utf-8")
    model = parse(settings)["model"]
    return {
        "type": model["type"],
        **described(settings),
        "vocabulary": len(model["vocab"]),
        "max_length": max_length,
        "sha256": sha256(path),
    }
