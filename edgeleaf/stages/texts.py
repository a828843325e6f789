"""Collects the texts of a run: those of a recipe, or those that a bundle is checked with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeleaf.errors import TextsError
from edgeleaf.recipe.sources import FilesSource, MachineSource
from edgeleaf.recipe.specs import TextsSpec
from edgeleaf.texts.corpus import collect, sampled, write_corpus
from edgeleaf.texts.text import Corpus, Text

CHECK_QUERIES = 1000
CHECK_DOCUMENTS = 1000
LEAST_QUERIES = 20
"""With fewer queries than this, percentiles and overlaps mean nothing. A recipe must hold out at least as many."""


def query_files(files: Sequence[str | Path]) -> list[FilesSource]:
    """Return files of queries as a source of texts."""
    return [FilesSource(tuple(map(str, files)), "query")] if files else []


def own_queries(files: Sequence[str | Path]) -> Sequence[Text]:
    """Return distinct queries of ``files``, or a sample of them if there are many; none if no files are given.

    Raises:
        TextsError: a file cannot be read, or they hold too few queries for a verdict.
    """
    if not files:
        return []
    sources = query_files(files)
    queries = collect(sources, limit=CHECK_QUERIES, held_out_queries=0, held_out_documents=0, seed=0, base=Path()).train
    if len(queries) < LEAST_QUERIES:
        raise TextsError(
            f"{', '.join(map(str, files))}: {len(queries)} distinct queries; a verdict needs at least {LEAST_QUERIES}"
        )
    return queries


def check_texts(folder: Path, files: Sequence[str | Path], *, calibration: int = 1) -> None:
    """Collect texts to check with: queries from ``files`` if given, the rest from this machine.

    Another ``calibration`` texts from this machine go into ``train.jsonl``, for the quantiser.
    """
    own = own_queries(files)
    machine = collect(
        [MachineSource()],
        limit=calibration,
        held_out_queries=0 if own else CHECK_QUERIES,
        held_out_documents=CHECK_DOCUMENTS,
        max_chars=500,
        seed=0,
        base=Path(),
    )
    write_corpus(Corpus(train=machine.train, held_out=[*own, *machine.held_out]), folder)


def origin(files: Sequence[str | Path]) -> str:
    """Describe the source of the texts of :func:`check_texts`."""
    machine = "documentation found on the machine"
    return f"queries of {', '.join(Path(name).name for name in files)}, documents from {machine}" if files else machine


def collect_texts(folder: Path, spec: TextsSpec, seed: int, base: Path) -> None:
    """Collect the texts of a recipe: ``train.jsonl`` and ``held_out.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    with sampled(
        spec.sources,
        limit=spec.limit,
        held_out_queries=spec.held_out_queries,
        held_out_documents=spec.held_out_documents,
        max_chars=spec.max_chars,
        seed=seed,
        base=base,
        scratch=folder,
    ) as corpus:
        write_corpus(corpus, folder)
