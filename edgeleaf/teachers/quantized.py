"""A teacher's training vectors at about twice its speed: its own int8 export, as edgeleaf quantises it.

A student stays at a cosine of 0.8 to 0.9 to its teacher; eight bits move the teacher to 0.998, each text another way,
so a regression onto their vectors ends in the same place (docs/log/training.md). What a student is judged by,
held-out texts and collections, is always encoded by the teacher itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.machine import usable_cores
from edgeleaf.bundle.session import session
from edgeleaf.errors import ModelError
from edgeleaf.files import sha256
from edgeleaf.recipe.sources import Kind
from edgeleaf.recipe.specs import TeacherSpec
from edgeleaf.teachers.cache import SHARD
from edgeleaf.teachers.sentence_transformer import SentenceTransformerTeacher

MODEL = "teacher.onnx"
_BATCH_SIZE = 16


class QuantizedTeacher:
    """The int8 export of a teacher, a batch a processor core at a time; see :class:`edgeleaf.teachers.base.Teacher`.

    Args:
        teacher: whose space it is.
        spec: of the recipe; its prompts.
        folder: what :func:`write_quantized_teacher` wrote.
    """

    batch_size = SHARD

    def __init__(self, teacher: SentenceTransformerTeacher, spec: TeacherSpec, folder: Path) -> None:
        self.space, self.max_length = teacher.space, teacher.max_length
        self.precision = f"int8-{sha256(folder / MODEL)[:12]}"
        self._prompts = {"query": spec.query_prompt, "document": spec.document_prompt}
        self._tokenizer = uncut_tokenizer(teacher)
        self._session = session(folder / MODEL, threads=1)

    def encode(self, texts: Sequence[str], *, kind: Kind) -> npt.NDArray[np.float32]:
        """Return float32 [len(texts), dim], unit L2 norm, the prompt of ``kind`` applied, order kept."""
        ids = token_ids(self._tokenizer, [self._prompts[kind] + text for text in texts])
        by_length = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        vectors = np.empty((len(ids), self.space.dim), dtype=np.float32)

        def encode_batch(start: int) -> None:
            rows = by_length[start : start + _BATCH_SIZE]
            longest = len(ids[rows[-1]])
            padded, mask = np.zeros((2, len(rows), longest), dtype=np.int64)
            for place, row in enumerate(rows):
                padded[place, : len(ids[row])] = ids[row]
                mask[place, : len(ids[row])] = 1
            vectors[rows] = self._session.run(None, {"input_ids": padded, "attention_mask": mask})[0]

        with ThreadPoolExecutor(usable_cores()) as pool:  # a thread costs nothing beside a batch
            list(pool.map(encode_batch, range(0, len(ids), _BATCH_SIZE)))
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors


def uncut_tokenizer(teacher: SentenceTransformerTeacher) -> Any:
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    path = teacher.folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{teacher.folder} has no tokenizer.json; leave teacher.training_vectors out")
    return reference_tokenizer(path.read_text(encoding="utf-8"), teacher.max_length)


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]
