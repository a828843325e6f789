"""A teacher's training vectors at about twice its speed, by its own int8 export as edgeleaf quantises it.

A student reaches a cosine of 0.8 to 0.9 to its teacher. Eight bits move the teacher's vectors to 0.998, in a different
direction for each text, so a regression onto these vectors has the same result (docs/log/training.md). The texts that
judge a student, held-out texts and collections, are always encoded by the teacher itself.
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
from edgeleaf.vectors import unit_rows

MODEL = "teacher.onnx"
_BATCH_SIZE = 16


class QuantizedTeacher:
    """The int8 export of a teacher; encodes one batch per processor core. See :class:`edgeleaf.teachers.base.Teacher`.

    Args:
        teacher: the teacher, for its space.
        spec: the recipe's teacher, for its prompts.
        folder: the folder that :func:`write_quantized_teacher` wrote.
    """

    batch_size = SHARD

    def __init__(self, teacher: SentenceTransformerTeacher, spec: TeacherSpec, folder: Path) -> None:
        self.space, self.max_length = teacher.space, teacher.max_length
        self.precision = f"int8-{sha256(folder / MODEL)[:12]}"
        self._prompts = {"query": spec.query_prompt, "document": spec.document_prompt}
        self._tokenizer = uncut_tokenizer(teacher)
        self._session = session(folder / MODEL, threads=1)

    def encode(self, texts: Sequence[str], *, kind: Kind) -> npt.NDArray[np.float32]:
        """Apply the prompt of ``kind``; return float32 [len(texts), dim], unit L2 norm, in the order of ``texts``."""
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

        with ThreadPoolExecutor(usable_cores()) as pool:  # a thread costs nothing compared with a batch
            list(pool.map(encode_batch, range(0, len(ids), _BATCH_SIZE)))
        return unit_rows(vectors)


def uncut_tokenizer(teacher: SentenceTransformerTeacher) -> Any:
    from edgeleaf.graph.tokenizers.spec import reference_tokenizer

    path = teacher.folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{teacher.folder} has no tokenizer.json; leave teacher.training_vectors out")
    return reference_tokenizer(path.read_text(encoding="utf-8"), teacher.max_length)


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]
