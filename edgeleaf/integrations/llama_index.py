"""A bundle as LlamaIndex's embedding model: queries by the fused file, nodes by the teacher.

from llama_index.core import VectorStoreIndex
from edgeleaf.integrations.llama_index import EdgeleafEmbedding

index = VectorStoreIndex.from_documents(documents, embed_model=EdgeleafEmbedding(bundle="out/mpnet"))
"""

from __future__ import annotations

import asyncio
from typing import Any

from edgeleaf.bundle.manifest import VectorSpace
from edgeleaf.errors import InputError
from edgeleaf.extras import no_framework
from edgeleaf.integrations.sides import Sides

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
except ImportError as error:
    raise no_framework(error, extra="llama-index") from None


class EdgeleafEmbedding(BaseEmbedding):  # type: ignore[misc]
    """A bundle behind LlamaIndex's ``BaseEmbedding``. Can be pickled, and written by ``to_dict``.

    Args:
        bundle: a bundle folder. Its teacher is opened with the first node.
        threads: processor threads of the fused file.
        settings: LlamaIndex's own, such as ``embed_batch_size`` and ``callback_manager``. ``embeddings_cache`` is
            refused: it keeps one vector per text, whether the text was a query or a node.

    Raises:
        BundleError: no such bundle, or a damaged one.
        InputError: an ``embeddings_cache``.
    """

    bundle: str = Field(description="The bundle folder.")
    threads: int = Field(default=1, description="Processor threads of the fused file.")
    _sides: Sides = PrivateAttr()

    def __init__(self, bundle: Any, *, threads: Any = 1, **settings: Any) -> None:
        if settings.get("embeddings_cache") is not None:
            raise InputError(
                "embeddings_cache keeps one vector per text, but a text has two, as a query and as a node; leave it out"
            )
        sides = Sides(bundle, threads=threads).open()
        settings = {"embed_batch_size": 32, **settings, "model_name": f"edgeleaf/{sides.space.id}"}
        super().__init__(bundle=sides.bundle, threads=sides.threads, **settings)
        self._sides = sides

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex writes this class."""
        return "EdgeleafEmbedding"

    @property
    def space(self) -> VectorSpace:
        """The vector space."""
        return self._sides.space

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._sides.queries([query])[0].tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._sides.documents(texts).tolist()
        return vectors

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)
