"""A bundle as a model for mteb: runs MTEB and BEIR unchanged, with queries encoded by the fused file.

    import mteb
    from edgeleaf.integrations.mteb import BundleEncoder

    mteb.evaluate(BundleEncoder("out/mpnet"), mteb.get_tasks(["SciFact"]))

In asymmetric mode, the default, the teacher encodes documents of retrieval tasks, and the fused file encodes all else:
queries, and both sides of any other kind of task. In symmetric mode the teacher encodes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeleaf.bundle.encoder import QueryEncoder
from edgeleaf.bundle.manifest import QUERY_ENCODER, Manifest
from edgeleaf.certify.ladder import document_vectors
from edgeleaf.errors import InputError, MissingExtra
from edgeleaf.pipeline.places import work_folder
from edgeleaf.stages.runner import Stages
from edgeleaf.stages.vectors import VECTOR_CACHE
from edgeleaf.teachers.opening import teacher_of
from edgeleaf.texts.text import Text

try:
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta
    from mteb.types import PromptType
except ImportError:
    raise MissingExtra("mteb is not installed; to run MTEB and BEIR: pip install 'edgeleaf[mteb]'") from None

Documents = Literal["teacher", "student"]


class BundleEncoder(AbsEncoder):  # type: ignore[misc]
    """A bundle behind mteb's ``EncoderProtocol``.

    Args:
        bundle: a bundle folder.
        revision, device: parameters of mteb for models of a hub; a bundle has its own and runs on the processor.
        documents: who encodes the documents of retrieval tasks: ``teacher`` (asymmetric) or ``student`` (symmetric).
            The teacher's vectors stay in ``BUNDLE.work``, so a second run is quick.
        threads: processor threads of the fused file.

    Raises:
        BundleError: the bundle is damaged.
        ModelError: from ``encode``, if the teacher cannot be reached or has other weights.
    """

    def __init__(
        self,
        bundle: str | Path,
        revision: str | None = None,
        *,
        device: str | None = None,
        documents: Documents = "teacher",
        threads: int = 2,
    ) -> None:
        if documents not in ("teacher", "student"):
            raise InputError(f"documents is {documents!r}; allowed: 'teacher', 'student'")
        self._bundle, self._threads = Path(bundle), threads
        self._manifest = Manifest.read(self._bundle)
        self._encoder = QueryEncoder.load(self._bundle, threads=threads)
        self._documents = documents
        self._teacher: Any = None
        self.mteb_model_meta = self._meta()

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> npt.NDArray[np.float32]:
        """Encode a task's texts.

        Args:
            inputs: batches, each with a list of strings under ``text``.
            task_metadata, hf_split, hf_subset: facts about the task, on which the vectors do not depend.
            prompt_type: query, document, or None for tasks that have no sides.

        Returns:
            float32 [texts, dim], unit L2 norm.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        if prompt_type is not PromptType.document:
            return self._encoder.encode(texts)
        return self._by_teacher(texts) if self._documents == "teacher" else self._by_student(texts)

    def _by_teacher(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        from edgeleaf.teachers.cache import teacher_vectors

        if self._teacher is None:
            self._teacher = teacher_of(self._manifest)
        with Stages(work_folder(self._bundle)) as stages:  # keeps others from writing the cache meanwhile
            cache = stages.work / VECTOR_CACHE
            found = teacher_vectors([Text(text, "document") for text in texts], self._teacher, cache)
        return np.asarray(found, dtype=np.float32)

    def _by_student(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        space = self._manifest.space
        vectors, _ = document_vectors(
            self._bundle,
            texts,
            query_prompt=space.query_prompt,
            document_prompt=space.document_prompt,
            threads=self._threads,
        )
        return vectors

    def _meta(self) -> ModelMeta:
        manifest = self._manifest
        # mteb stores results by name and revision, so these must contain everything that vectors depend on.
        files = (manifest.files[QUERY_ENCODER], str(manifest.student["weights_sha256"]))
        identity = (*files, manifest.space.id, str(manifest.teacher_max_length))
        return ModelMeta(
            loader=None,
            name=f"edgeleaf/{manifest.recipe}-{'asymmetric' if self._documents == 'teacher' else 'symmetric'}",
            revision=sha256(b" ".join(part.encode() for part in identity)).hexdigest()[:12],
            release_date=None,
            languages=None,
            n_parameters=None,
            memory_usage_mb=None,
            max_tokens=float(manifest.tokenizer["max_length"]),
            embed_dim=manifest.space.dim,
            license=None,
            open_weights=True,
            public_training_code=None,
            public_training_data=None,
            framework=["ONNX"],
            similarity_fn_name="cosine",
            use_instructions=bool(manifest.space.query_prompt),
            training_datasets=None,
            adapted_from=str(manifest.student.get("start") or "") or None,
        )
