"""A bundle as Haystack's embedders: queries by the fused file, documents by the teacher.

    from haystack import Pipeline
    from edgeleaf.integrations.haystack import EdgeleafDocumentEmbedder, EdgeleafTextEmbedder

    pipeline = Pipeline()
    pipeline.add_component("query", EdgeleafTextEmbedder("out/mpnet"))

Pipelines with these components can be written and read again once this module is imported: importing it puts its own
name, and nothing else, on Haystack's list of modules that may be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeleaf import quiet
from edgeleaf.errors import InputError
from edgeleaf.extras import no_framework
from edgeleaf.integrations.sides import Sides

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.core.serialization_security import allow_deserialization_module
except ImportError as error:
    raise no_framework(error, extra="haystack") from None

quiet.haystack()
allow_deserialization_module(__name__)


@component
class EdgeleafTextEmbedder:
    """Encodes a query for a retriever.

    Args:
        bundle: a bundle folder, opened by ``warm_up`` or the first query.
        threads: processor threads of the fused file.
    """

    def __init__(self, bundle: str | Path, threads: int = 1) -> None:
        self._sides = Sides(bundle, threads=threads)

    def warm_up(self) -> None:
        """Open the bundle.

        Raises:
            BundleError: no such bundle, or a damaged one.
        """
        self._sides.open()

    @component.output_types(embedding=list[float], meta=dict[str, Any])  # type: ignore[untyped-decorator]
    def run(self, text: str) -> dict[str, Any]:
        """Encode a query.

        Returns:
            ``embedding``, unit L2 norm; ``meta`` with the id of the vector space.
        """
        if not isinstance(text, str):
            raise InputError(
                f"text is {type(text).__name__}; one string is needed (EdgeleafDocumentEmbedder has lists)"
            )
        return {"embedding": self._sides.queries([text])[0].tolist(), "meta": {"model": self._sides.space.id}}

    @component.output_types(embedding=list[float], meta=dict[str, Any])  # type: ignore[untyped-decorator]
    async def run_async(self, text: str) -> dict[str, Any]:
        """Like :meth:`run`, in a thread."""
        return await asyncio.to_thread(self.run, text)

    def to_dict(self) -> dict[str, Any]:
        """Describe the component so that :meth:`from_dict` makes it again."""
        described: dict[str, Any] = default_to_dict(self, bundle=self._sides.bundle, threads=self._sides.threads)
        return described

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EdgeleafTextEmbedder:
        """Make the component that :meth:`to_dict` described."""
        made: EdgeleafTextEmbedder = default_from_dict(cls, data)
        return made


@component
class EdgeleafDocumentEmbedder:
    """Encodes documents with the bundle's teacher, for a document store.

    Args:
        bundle: a bundle folder. It and its teacher are opened by the first documents.
        meta_fields_to_embed: fields of ``meta`` whose values are put before the content, such as ``["title"]``.
        embedding_separator: what stands between them.
    """

    def __init__(
        self, bundle: str | Path, meta_fields_to_embed: list[str] | None = None, embedding_separator: str = " "
    ) -> None:
        self._sides = Sides(bundle)
        self._fields, self._separator = list(meta_fields_to_embed or ()), embedding_separator

    def warm_up(self) -> None:
        """Open the bundle and its teacher.

        Raises:
            BundleError: no such bundle, or a damaged one.
            ModelError, MissingExtra: the teacher cannot be opened here.
        """
        self._sides.open().documents([""])

    @component.output_types(documents=list[Document], meta=dict[str, Any])  # type: ignore[untyped-decorator]
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Encode documents.

        Returns:
            ``documents``: copies with ``embedding`` set, unit L2 norm, in the same order; ``meta`` with the id of the
            vector space.
        """
        if isinstance(documents, (str, bytes)) or not isinstance(documents, Sequence):
            raise InputError(f"documents is {type(documents).__name__}; a list of Haystack's documents is needed")
        vectors = self._sides.documents([self._text(document, place) for place, document in enumerate(documents)])
        with_vectors = [
            replace(document, embedding=vector.tolist()) for document, vector in zip(documents, vectors, strict=True)
        ]
        return {"documents": with_vectors, "meta": {"model": self._sides.space.id}}

    @component.output_types(documents=list[Document], meta=dict[str, Any])  # type: ignore[untyped-decorator]
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """Like :meth:`run`, in a thread."""
        return await asyncio.to_thread(self.run, documents)

    def to_dict(self) -> dict[str, Any]:
        """Describe the component so that :meth:`from_dict` makes it again."""
        described: dict[str, Any] = default_to_dict(
            self,
            bundle=self._sides.bundle,
            meta_fields_to_embed=self._fields,
            embedding_separator=self._separator,
        )
        return described

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EdgeleafDocumentEmbedder:
        """Make the component that :meth:`to_dict` described."""
        made: EdgeleafDocumentEmbedder = default_from_dict(cls, data)
        return made

    def _text(self, document: Any, place: int) -> str:
        if not isinstance(document, Document):
            raise InputError(f"document {place} is {type(document).__name__}; Haystack's Document is needed")
        if document.content is None:
            raise InputError(f"document {place} ({document.id}) has no text; only documents with content have vectors")
        said = [str(document.meta[field]) for field in self._fields if document.meta.get(field) is not None]
        return self._separator.join([*said, document.content])
