"""The recipe that goes on distilling a bundle's student, on the text of the index that it will search."""

from __future__ import annotations

from pathlib import Path

from edgeleaf import bundle as layout
from edgeleaf import steps
from edgeleaf.bundle import Manifest
from edgeleaf.recipe import ObjectiveSpec, QuantizationSpec, Recipe, StudentSpec, TextsSpec
from edgeleaf.texts import FilesSource, Source

TEXTS = 24_000
"""Training texts, at most: a quarter of an hour on two cores, everything included."""
HELD_OUT_QUERIES, HELD_OUT_DOCUMENTS = 200, 400
MAX_CHARS = 300
OBJECTIVE = ObjectiveSpec(epochs=2.0, batch_size=32, learning_rate=2e-4, checkpoint_steps=100)


def adaptation(manifest: Manifest, bundle: Path, documents: Path, queries: Path | None) -> Recipe:
    """Return the recipe of an adaptation.

    Args:
        manifest: the bundle's.
        bundle: its folder, absolute.
        documents: a corpus, absolute.
        queries: real queries, absolute, or None.
    """
    corpus = (str(documents),)
    sources: list[Source] = [
        FilesSource(corpus, "document", pieces="sentences"),
        FilesSource(corpus, "query", pieces="spans"),
    ]
    if queries is not None:
        sources.append(FilesSource((str(queries),), "query"))
    return Recipe(
        name=f"{manifest.recipe}-adapted",
        description=f"{manifest.recipe}, adapted to {documents.name}.",
        teacher=steps.teacher_spec(manifest, training_vectors="int8"),
        student=StudentSpec(model=str(bundle / layout.STUDENT), max_length=int(manifest.tokenizer["max_length"])),
        texts=TextsSpec(
            sources=tuple(sources),
            limit=TEXTS,
            held_out_queries=HELD_OUT_QUERIES,
            held_out_documents=HELD_OUT_DOCUMENTS,
            max_chars=MAX_CHARS,
        ),
        objective=OBJECTIVE,
        quantization=QuantizationSpec(manifest.quantization["preset"]),
    )
