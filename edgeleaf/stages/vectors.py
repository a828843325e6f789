"""Makes the teacher's vectors of a run's texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeleaf import progress
from edgeleaf.errors import ExportError, ModelError
from edgeleaf.files import write_bytes
from edgeleaf.recipe.specs import TeacherSpec
from edgeleaf.stages.runner import VECTOR_CACHE as VECTOR_CACHE
from edgeleaf.teachers.quantized import MODEL, token_ids, uncut_tokenizer
from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher
from edgeleaf.texts.corpus import read_corpus
from edgeleaf.texts.text import Text

if TYPE_CHECKING:
    from edgeleaf.teachers.base import Encodes
    from edgeleaf.teachers.cache import Engine


QUANTIZED_TEACHER_TEXTS = 600
"""The number of texts on which the quantiser measures layers."""


def write_quantized_teacher(
    folder: Path, teacher: SentenceTransformerTeacher, spec: TeacherSpec, texts: Sequence[Text]
) -> None:
    """Export and quantise a teacher into ``folder``.

    Args:
        folder: receives ``teacher.onnx``.
        teacher: the teacher, with its folder.
        spec: the recipe's teacher, for its prompts.
        texts: training texts; the quantiser uses the first :data:`QUANTIZED_TEACHER_TEXTS`.

    Raises:
        ModelError: edgeleaf cannot quantise its graph.
    """
    from edgeleaf.graph.export import export_onnx
    from edgeleaf.graph.quantization.quantize import quantize

    prompts = {"query": spec.query_prompt, "document": spec.document_prompt}
    ids = token_ids(
        uncut_tokenizer(teacher), [prompts[text.kind] + text.text for text in texts[:QUANTIZED_TEACHER_TEXTS]]
    )
    progress.say("teacher: its int8 export, for the training texts")
    try:
        quantized = quantize(export_onnx(teacher.folder), ids)
    except ExportError as error:
        raise ModelError(f"{spec.model} has no int8 export: {error}; leave teacher.training_vectors out") from None
    write_bytes(folder / MODEL, quantized.model.SerializeToString(deterministic=True))


def quantize_teacher(folder: Path, texts: Path, teacher: SentenceTransformerTeacher, spec: TeacherSpec) -> None:
    """Write the int8 export of a teacher, for :class:`edgeleaf.teachers.quantized.QuantizedTeacher`."""
    write_quantized_teacher(folder, teacher, spec, read_corpus(texts, "train"))


def write_vectors(
    folder: Path,
    texts: Path,
    teacher: Encodes,
    cache: Path,
    *,
    names: Sequence[str],
    engine: Engine | None = None,
    shard: int | None = None,
) -> None:
    """Write a teacher's vectors of each set of texts, ``train.npy`` and ``held_out.npy``, float16 [n, dim]."""
    from edgeleaf.teachers.cache import in_turn, teacher_vectors

    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        file = folder / f"{name}.npy"
        teacher_vectors(read_corpus(texts, name), teacher, cache, file=file, engine=engine or in_turn, shard=shard)
