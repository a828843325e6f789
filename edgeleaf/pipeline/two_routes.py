"""Writes a bundle as one sentence-transformers model: the student behind ``encode_query``, the teacher behind
``encode_document``.

It opens in sentence-transformers 5.0 and newer without code of its own. Its queries are the student's, in float32 by
torch; only the fused file is certified and equal on every processor.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf import progress
from edgeleaf.bundle import manifest as layout
from edgeleaf.bundle.encoder import QueryEncoder
from edgeleaf.bundle.manifest import Manifest
from edgeleaf.certify.alignment import Summary, summary
from edgeleaf.certify.ladder import student_vectors
from edgeleaf.errors import BundleError, ModelError, reason_of
from edgeleaf.files import whole_folder, write_json, write_text
from edgeleaf.models.portable import make_portable
from edgeleaf.models.router import READABLE_SINCE, join
from edgeleaf.pipeline.places import open_bundle
from edgeleaf.records import read_json
from edgeleaf.teachers.opening import DEFAULT, teacher_of, teacher_spec
from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher
from edgeleaf.texts.corpus import read_corpus
from edgeleaf.vectors import cosine_rows, unit_rows

LEFT_QUERIES, LEFT_DOCUMENTS = 100, 50
CLOSE = 0.99999
"""Lowest allowed cosine of the new model's vectors to those of the student and of the teacher."""
_TOKENIZER = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")
_TEMPLATE = """\
---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, sentence-similarity, feature-extraction, asymmetric, edgeleaf]
base_model: [{models}]
---
# {name}: small for queries, {teacher} for documents

```python
from sentence_transformers import SentenceTransformer  # {since} or newer

model = SentenceTransformer("path/of/this/folder")
queries = model.encode_query(["where is my parcel?"])  # float32 (1, {dim}), by the student
documents = model.encode_document(["Your parcel is in Leipzig."])  # float32 (1, {dim}), by {teacher}
model.similarity(queries, documents)
```

Both prompts are inside: query `{query_prompt}`, document `{document_prompt}`. Queries are read up to {window} tokens,
documents up to {teacher_window}. `encode` without a task takes the route of documents, without a prompt.

Measured when this folder was written, on {queries} queries and {documents} documents held out from training:

| | cosine: mean | p01 | min |
|---|---|---|---|
| `encode_query` to the student | {student} |
| `encode_query` to the certified file `query_encoder.onnx` | {fused} |
| `encode_document` to {teacher} | {document} |

The certificate of the bundle is about `query_encoder.onnx`, which this folder does not hold: that file gives the same
vector to the last bit on every processor, torch does not. Vectors of both are of the space `{space}`.
"""


def write_two_routes(bundle: Path, output: Path) -> Manifest:
    """Write a bundle's student and teacher as one sentence-transformers model; see ``edgeleaf.pipeline.ship.ship``.

    Raises:
        BundleError: the bundle is damaged, ``output`` exists, or the written model gives other vectors than the student
            and the teacher; nothing is written.
        ModelError: the teacher is not available, or has modules that cannot be written so; nothing is written.
    """
    _check_new(output)
    manifest = open_bundle(bundle)
    if teacher_spec(manifest).kind != DEFAULT:  # before it is loaded, or asked
        raise ModelError(f"{manifest.space.teacher} is not a sentence-transformers model, which this form needs")
    teacher = teacher_of(manifest)
    assert isinstance(teacher, SentenceTransformerTeacher)  # the kind DEFAULT
    teacher.widened(at_least=manifest.teacher_max_length)
    prompts = {"query": manifest.space.query_prompt, "document": manifest.space.document_prompt}
    with whole_folder(output) as new:
        query, document = new / ".parts" / "query", new / ".parts" / "document"
        shutil.copytree(bundle / layout.STUDENT, query)
        make_portable(query, max_length=int(manifest.fact("tokenizer", "max_length")))
        _write_teacher(teacher, document)
        join(new, {"query": query, "document": document}, prompts=prompts)
        shutil.rmtree(new / ".parts")
        write_text(new / layout.MODEL_CARD, _card(bundle, new, manifest, teacher))
    return manifest


def _check_new(output: Path) -> None:
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise BundleError(f"{output} exists and is not an empty folder; give a new one for the model")


def _write_teacher(teacher: SentenceTransformerTeacher, folder: Path) -> None:
    """Save a teacher in float32, ending in a Normalize, with the tokenizer's files as they are."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize
    from transformers.utils import logging

    parts = list(teacher.model.children())
    if type(parts[-1]).__name__ != "Normalize":
        parts.append(Normalize())
    lower = bool(getattr(parts[0], "do_lower_case", False))
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        SentenceTransformer(modules=parts, device=teacher.device).save(str(folder), create_model_card=False)
    except Exception as error:  # safetensors has its own error for a full disk
        raise ModelError(f"{folder}: the teacher cannot be written: {reason_of(error)}") from None
    finally:
        if bars:
            logging.enable_progress_bar()
    make_portable(folder, max_length=teacher.max_length)
    # As the teacher has them: other versions of transformers cannot read all that this one writes.
    source = teacher.folder / _first_place(teacher.folder)
    if own := [path for pattern in _TOKENIZER for path in source.glob(pattern)]:
        for path in {path for pattern in _TOKENIZER for path in folder.glob(pattern)}:
            path.unlink()
        for path in own:
            shutil.copyfile(path, folder / path.name)
    if lower:
        settings = {"max_seq_length": teacher.max_length, "do_lower_case": True}
        write_json(folder / "sentence_bert_config.json", settings)


def _first_place(folder: Path) -> str:
    modules = folder / "modules.json"
    return str(read_json(modules)[0]["path"]) if modules.is_file() else ""


def _card(bundle: Path, new: Path, manifest: Manifest, teacher: SentenceTransformerTeacher) -> str:
    """Compare the written model with student, fused file and teacher; return its README.md.

    Raises:
        BundleError: its vectors are not those of the student and of the teacher.
    """
    from edgeleaf.models.loading import load_sentence_transformer

    held_out = list(read_corpus(bundle, "held_out"))
    queries = [text.text for text in held_out if text.kind == "query"][:LEFT_QUERIES]
    documents = [text.text for text in held_out if text.kind == "document"][:LEFT_DOCUMENTS] or queries
    queries = queries or documents
    space = manifest.space
    model: Any = load_sentence_transformer(new)
    asked, held = _rows(model.encode_query(queries)), _rows(model.encode_document(documents))
    student = student_vectors(bundle / layout.STUDENT, queries, prompt=space.query_prompt, threads=2)[0]
    exact = teacher.model.encode(documents, prompt=space.document_prompt, show_progress_bar=False)
    found = {
        "student": (asked, student),
        "fused": (asked, QueryEncoder.load(bundle).encode(queries)),
        "document": (held, _rows(exact)),
    }
    cosines = {name: summary(cosine_rows(*pair)) for name, pair in found.items()}
    progress.say(
        f"encode_query: cosine to the student at least {cosines['student'].min:.6f}, to the certified file "
        f"{cosines['fused'].mean:.4f} on average, {cosines['fused'].min:.4f} at least, {len(queries)} queries"
    )
    name = Path(space.teacher).name if Path(space.teacher).is_absolute() else space.teacher
    progress.say(
        f"encode_document: cosine to {name} at least {cosines['document'].min:.6f}, {len(documents)} documents"
    )
    for side, whose in (("student", "student"), ("document", "teacher")):
        if not cosines[side].min >= CLOSE:
            raise BundleError(
                f"{bundle}: written for sentence-transformers, its {whose} has cosine {cosines[side].min:.6f} to "
                f"itself; {CLOSE} is needed"
            )
    models = [space.teacher, str(manifest.student.get("start") or "")]
    return _TEMPLATE.format(
        models=", ".join(model for model in models if model and not Path(model).is_absolute()),
        name=manifest.recipe,
        teacher=name,
        since=READABLE_SINCE,
        dim=space.dim,
        query_prompt=space.query_prompt,
        document_prompt=space.document_prompt,
        window=manifest.fact("tokenizer", "max_length"),
        teacher_window=teacher.max_length,
        queries=len(queries),
        documents=len(documents),
        space=space.id,
        **{side: _cells(values) for side, values in cosines.items()},
    )


def _cells(values: Summary) -> str:
    return f"{values.mean:.6f} | {values.p01:.6f} | {values.min:.6f}"


def _rows(vectors: Any) -> npt.NDArray[np.float32]:
    return unit_rows(np.asarray(vectors, dtype=np.float32))
