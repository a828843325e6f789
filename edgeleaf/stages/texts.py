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
OTHER_TEXTS = 500_000
"""Most texts that are used of files given instead of this machine's documentation."""
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


def check_texts(
    folder: Path, files: Sequence[str | Path], *, others: Sequence[str | Path] = (), calibration: int = 1
) -> None:
    """Collect texts to check with: queries from ``files`` if given, the rest from this machine or from ``others``.

    Args:
        folder: gets ``held_out.jsonl``, and ``train.jsonl`` for the quantiser.
        files: files of queries.
        others: files of texts to use instead of this machine's, which may be in other languages: up to 2,000 of them,
            at most half, are held out, one half as queries unless there are ``files``; the rest are for training.
        calibration: texts from this machine for ``train.jsonl``.

    Raises:
        TextsError: a file cannot be read, or there are too few texts.
    """
    own = own_queries(files)
    if others:
        write_corpus(_divided(own, others), folder)
        return
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


def _divided(own: Sequence[Text], files: Sequence[str | Path]) -> Corpus:
    texts = collect(
        query_files(files), limit=OTHER_TEXTS, held_out_queries=0, held_out_documents=0, seed=0, base=Path()
    ).train
    held = min(CHECK_QUERIES, len(texts) // 4)
    if held < LEAST_QUERIES:
        raise TextsError(
            f"{', '.join(map(str, files))}: {len(texts)} distinct texts; at least {4 * LEAST_QUERIES} are needed, of "
            "which half are kept apart, to check the file with"
        )
    documents = [Text(text.text, "document") for text in texts[held : 2 * held]]
    return Corpus(train=texts[2 * held :], held_out=[*(own or texts[:held]), *documents])


def origin(files: Sequence[str | Path], others: Sequence[str | Path] = ()) -> str:
    """Describe the source of the texts of :func:`check_texts`."""
    rest = _names(others) if others else "documentation found on the machine"
    return f"queries of {_names(files)}, documents from {rest}" if files else rest


def _names(files: Sequence[str | Path]) -> str:
    return ", ".join(Path(name).name for name in files)


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
