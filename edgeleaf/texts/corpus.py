"""Streams of text for distilling and checking: files, hub datasets, the machine's own documentation."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from edgeleaf import progress
from edgeleaf.errors import TextsError
from edgeleaf.recipe.sources import KINDS, DatasetSource, FilesSource, Kind, MachineSource, Source
from edgeleaf.texts.hub import DATASET_ROWS_PER_TEXT, dataset_texts
from edgeleaf.texts.pieces import pieces_of
from edgeleaf.texts.pools import KEY_BYTES, Chosen, Pool, Spill, choose, drop_repeats
from edgeleaf.texts.readers import file_texts
from edgeleaf.texts.stored import TextFile
from edgeleaf.texts.text import Corpus, Text, same


def read_corpus(folder: Path, name: str) -> TextFile:
    """Open the texts ``train`` or ``held_out`` of a texts folder; each is read when it is needed.

    Raises:
        TextsError: no such file; and, when a text is read, like :func:`read_texts`.
    """
    return TextFile(folder / f"{name}.jsonl")


def collect(
    sources: Sequence[Source],
    *,
    limit: int,
    held_out_queries: int,
    held_out_documents: int,
    seed: int,
    base: Path,
    max_chars: int = 2000,
    scratch: Path | None = None,
) -> Corpus:
    """Sample a corpus from the sources by their weights.

    Args:
        sources: the sources; if one has too few texts, the others supply the rest.
        limit: greatest number of training texts.
        held_out_queries: exact number of texts of kind "query" to set aside.
        held_out_documents: exact number of texts of kind "document" to set aside.
        seed: another seed gives another sample.
        base: folder at which relative paths start (the recipe's).
        max_chars: longer texts are cut, at a space if there is one.
        scratch: folder of the temporary file that holds texts meanwhile; None means the system's own.

    Returns:
        Distinct texts (see :func:`same`), trimmed, none empty, in random order; the held-out queries
        come before the held-out documents.

    Raises:
        TextsError: a source that cannot be read, or too few texts.
        MissingExtra: a DatasetSource without the datasets package.

    Example:
        >>> corpus = collect([MachineSource()], limit=100, held_out_queries=10, held_out_documents=10, seed=0,
        ...                  base=Path())
        >>> len(corpus.train), len(corpus.held_out)
        (100, 20)
    """
    with sampled(
        sources,
        limit=limit,
        held_out_queries=held_out_queries,
        held_out_documents=held_out_documents,
        seed=seed,
        base=base,
        max_chars=max_chars,
        scratch=scratch,
    ) as corpus:
        return Corpus(train=list(corpus.train), held_out=list(corpus.held_out))


@contextmanager
def sampled(
    sources: Sequence[Source],
    *,
    limit: int,
    held_out_queries: int,
    held_out_documents: int,
    seed: int,
    base: Path,
    max_chars: int = 2000,
    scratch: Path | None = None,
) -> Iterator[Corpus]:
    """Sample a corpus like :func:`collect`, and read its texts from disk one by one while the context is open."""
    if not sources or limit < 1 or min(held_out_queries, held_out_documents) < 0:
        raise TextsError(
            f"cannot collect {limit} texts from {len(sources)} sources with {held_out_queries} queries and "
            f"{held_out_documents} documents held out: give a source, a limit of at least 1 and no negative numbers"
        )
    held: dict[Kind, int] = {"query": held_out_queries, "document": held_out_documents}
    pools: list[Pool] = []
    with closing(Spill(scratch)) as spill:
        with progress.bar("collect texts", len(sources)) as advance:
            # The machine's own documentation comes last, because it supplies what is missing.
            for source in sorted(sources, key=lambda source: isinstance(source, MachineSource)):
                half = _half(source, sources)
                pools += _sample(source, pools, held, limit, seed, max_chars, base, spill, half)
                advance(1)
        drop_repeats(pools)
        chosen = {kind: _take_held_out(spill, pools, kind, held[kind]) for kind in KINDS}
        train = _take(spill, pools, limit, held_out=False)
        if not train and not sum(held.values()):
            names = [name for source in sources if isinstance(source, FilesSource) for name in source.files]
            raise TextsError(f"no text in {', '.join(names) or 'the sources'}: add texts")
        if not train:
            raise TextsError(
                f"all {sum(held.values())} distinct texts are held out and none is left to train on: "
                "add texts, or lower held_out_queries and held_out_documents"
            )
        yield Corpus(train=train, held_out=chosen["query"] + chosen["document"])


def write_corpus(corpus: Corpus, folder: Path) -> None:
    """Write ``train.jsonl`` and ``held_out.jsonl`` (one ``{"text": …, "kind": …}`` per line) into ``folder``.

    Example:
        >>> write_corpus(corpus, Path("out/texts"))  # doctest: +SKIP
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in (("train.jsonl", corpus.train), ("held_out.jsonl", corpus.held_out)):
        temporary = folder / f".{name}.{os.getpid()}"
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for text in texts:
                file.write(json.dumps({"text": text.text, "kind": text.kind}, ensure_ascii=False) + "\n")
        temporary.replace(folder / name)


def read_texts(path: Path) -> list[Text]:
    """Read the texts that :func:`write_corpus` wrote, in the same order.

    Raises:
        TextsError: no such file, or a line that is not ``{"text": …, "kind": …}``; the message names file and line.

    Example:
        >>> read_texts(Path("out/texts/held_out.jsonl"))[0].kind  # doctest: +SKIP
        'query'
    """
    return list(TextFile(path))


def _sample(
    source: Source,
    others: list[Pool],
    held: dict[Kind, int],
    limit: int,
    seed: int,
    max_chars: int,
    base: Path,
    spill: Spill,
    half: int | None,
) -> list[Pool]:
    """Return one pool per kind of text in the source."""
    wanted = limit + sum(held.values())
    texts: Iterable[Text]
    kinds: tuple[Kind, ...] = KINDS if isinstance(source, MachineSource) else (source.kind,)
    if isinstance(source, MachineSource):
        from edgeleaf.texts.documentation import documentation_texts

        weights = [*(pool.weight for pool in others), source.weight / 2, source.weight / 2]
        share = _shares(limit, weights, [*(len(pool.highest) for pool in others), limit, limit])[-2]
        texts = documentation_texts(queries=share + held["query"], documents=share + held["document"])
    elif isinstance(source, FilesSource):
        texts = _pieces(source, file_texts(source, base), max_chars)
    else:
        texts = _pieces(source, dataset_texts(source, DATASET_ROWS_PER_TEXT * wanted), max_chars)
    pools = {
        kind: Pool(kind, source.weight / len(kinds), held_out=2 * sum(held.values()), train=wanted, spill=spill)
        for kind in kinds
    }
    key = seed.to_bytes(16, "big", signed=True)
    for text in texts:
        cleaned = _cleaned(text.text, max_chars)
        hashed = _key(cleaned, key)
        if cleaned and (half is None or hashed[-1] % 2 == half):
            pools[text.kind].add(hashed, cleaned)
    for pool in pools.values():
        pool.settle()
    return list(pools.values())


def _half(source: Source, sources: Sequence[Source]) -> int | None:
    """Return which half of its texts a source gives, 0 or 1, if the same files are a source of the other kind too.

    A text is never of both kinds; without halves, the source that is named first would have them all.
    """
    if not isinstance(source, FilesSource):
        return None
    kinds = {other.kind for other in sources if isinstance(other, FilesSource) and _same_files(source, other)}
    return KINDS.index(source.kind) if len(kinds) == len(KINDS) else None


def _same_files(one: FilesSource, other: FilesSource) -> bool:
    return replace(one, kind=other.kind, weight=other.weight) == other


def _pieces(source: FilesSource | DatasetSource, texts: Iterable[str], max_chars: int) -> Iterator[Text]:
    """Yield the source's texts, whole or in pieces."""
    for text in texts:
        for piece in pieces_of(text, source.pieces, max_chars):
            yield Text(piece, source.kind)


def _cleaned(text: str, max_chars: int) -> str:
    text = text.strip()
    if len(text) > max_chars:
        cut = text[: max_chars + 1]
        text = (cut.rsplit(maxsplit=1)[0] if len(cut.split(maxsplit=1)) > 1 else cut)[:max_chars].strip()
    return text.encode("utf-8", "replace").decode("utf-8")  # "replace": lone surrogates out of JSON


def _key(text: str, seed: bytes) -> bytes:
    return hashlib.blake2b(same(text).encode(), digest_size=KEY_BYTES, key=seed).digest()


def _take_held_out(spill: Spill, pools: list[Pool], kind: Kind, count: int) -> Chosen:
    if not count:
        return choose(spill, (), (), held_out=True)
    of_kind = [pool for pool in pools if pool.kind == kind]
    name = "queries" if kind == "query" else "documents"
    if not of_kind:
        raise TextsError(
            f"{count} {name} are to be held out, but no source is of kind {kind!r}: "
            f"add a source of kind {kind!r}, or set held_out_{name} = 0"
        )
    taken = _take(spill, of_kind, count, held_out=True)
    if len(taken) < count:
        raise TextsError(
            f"found {len(taken)} distinct texts of kind {kind!r}, needed {count} to hold out and some to train on: "
            f"add texts of that kind, or lower held_out_{name}"
        )
    return taken


def _take(spill: Spill, pools: list[Pool], count: int, *, held_out: bool) -> Chosen:
    """Take the best texts out of the pools, by weight, in random order, which is that of the hashes' lower halves.

    Whole hashes would not be random: a large pool keeps high ones only, a small one keeps all. Of a small pool that is
    known completely, at most a fifth is held out if others can supply the rest, so that a short log of real queries is
    learnt.
    """
    available = [len(pool.best(held_out=held_out)) for pool in pools]
    fifths = [
        most if len(pool.highest) == pool.highest.size else min(most, len(pool.highest) // 5)
        for most, pool in zip(available, pools, strict=True)
    ]
    if held_out and sum(fifths) >= count:
        available = fifths
    return choose(spill, pools, _shares(count, [pool.weight for pool in pools], available), held_out=held_out)


def _shares(count: int, weights: list[float], available: list[int]) -> list[int]:
    """Split ``count`` by weight; what one pool cannot supply, the others supply, again by weight."""
    shares = [0] * len(weights)
    left = min(count, sum(available))
    while left:
        hungry = [i for i, share in enumerate(shares) if share < available[i]]
        total = sum(weights[i] for i in hungry)
        quotas = {i: left * weights[i] / total if total > 0 else left / len(hungry) for i in hungry}
        given = {i: min(int(quota), available[i] - shares[i]) for i, quota in quotas.items()}
        if not any(given.values()):  # fewer left than sources: the largest remainders get one each
            given = dict.fromkeys(sorted(hungry, key=lambda i: (-quotas[i], i))[:left], 1)
        for i, n in given.items():
            shares[i] += n
            left -= n
    return shares
