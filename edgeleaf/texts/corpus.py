"""Streams of text for distilling and checking: files, hub datasets, the machine's own documentation."""

from __future__ import annotations

import hashlib
import heapq
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeleaf import progress
from edgeleaf.errors import TextsError
from edgeleaf.recipe.sources import KINDS, DatasetSource, FilesSource, Kind, MachineSource, Source
from edgeleaf.texts.pieces import pieces_of
from edgeleaf.texts.readers import DATASET_ROWS_PER_TEXT, dataset_texts, file_texts, json_row, numbered_lines
from edgeleaf.texts.text import Corpus, Text, same


def read_corpus(folder: Path, name: str) -> list[Text]:
    """Return the texts ``train`` or ``held_out`` of a texts folder."""
    return read_texts(folder / f"{name}.jsonl")


def collect(
    sources: Sequence[Source],
    *,
    limit: int,
    held_out_queries: int,
    held_out_documents: int,
    seed: int,
    base: Path,
    max_chars: int = 2000,
) -> Corpus:
    """Sample a corpus from the sources by their weights.

    Args:
        sources: a source that runs dry is made up for by the others.
        limit: number of training texts, at most.
        held_out_queries: number of texts of kind "query" set aside, exactly.
        held_out_documents: number of texts of kind "document" set aside, exactly.
        seed: another seed gives another sample.
        base: folder at which relative paths start (the recipe's).
        max_chars: longer texts are cut, at a space where there is one.

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
    if not sources or limit < 1 or min(held_out_queries, held_out_documents) < 0:
        raise TextsError(
            f"cannot collect {limit} texts from {len(sources)} sources with {held_out_queries} queries and "
            f"{held_out_documents} documents held out: give a source, a limit of at least 1 and no negative numbers"
        )
    held: dict[Kind, int] = {"query": held_out_queries, "document": held_out_documents}
    pools: list[_Pool] = []
    with progress.bar("collect texts", len(sources)) as advance:
        for source in sorted(sources, key=lambda source: isinstance(source, MachineSource)):  # it fills what is missing
            pools += _sample(source, pools, held, limit, seed, max_chars, base)
            advance(1)
    _drop_repeats(pools)
    chosen = {kind: _take_held_out(pools, kind, held[kind]) for kind in KINDS}
    train = _take(pools, limit, held_out=False)
    if not train and not sum(held.values()):
        names = [name for source in sources if isinstance(source, FilesSource) for name in source.files]
        raise TextsError(f"no text in {', '.join(names) or 'the sources'}: add texts")
    if not train:
        raise TextsError(
            f"all {sum(held.values())} distinct texts are held out and none is left to train on: "
            "add texts, or lower held_out_queries and held_out_documents"
        )
    return Corpus(train=train, held_out=chosen["query"] + chosen["document"])


def write_corpus(corpus: Corpus, folder: Path) -> None:
    """Write ``train.jsonl`` and ``held_out.jsonl`` (``{"text": …, "kind": …}`` a line) into ``folder``.

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
    """Read what :func:`write_corpus` wrote, in its order.

    Raises:
        TextsError: no such file, or a line that is not ``{"text": …, "kind": …}``; it names file and line.

    Example:
        >>> read_texts(Path("out/texts/held_out.jsonl"))[0].kind  # doctest: +SKIP
        'query'
    """
    texts = []
    for number, line in numbered_lines(path):
        row = json_row(line, path, number)
        if not isinstance(row.get("text"), str) or row.get("kind") not in KINDS:
            raise TextsError(f'{path}, line {number}: expected {{"text": …, "kind": "query" or "document"}}')
        texts.append(Text(row["text"], row["kind"]))
    return texts


@dataclass
class _Pool:
    """Texts of one source and kind: those with the smallest hashes (held-out) and the largest (training)."""

    kind: Kind
    weight: float
    smallest: _Best
    largest: _Best

    def add(self, priority: int, text: str) -> None:
        self.smallest.add(-priority, text)
        self.largest.add(priority, text)

    def ranked(self, held_out: bool) -> list[tuple[int, str]]:
        """(priority, text), best first."""
        if held_out:
            return sorted((-priority, text) for priority, text in self.smallest.kept.items())
        return sorted(self.largest.kept.items(), reverse=True)

    def remove(self, priority: int) -> None:
        self.smallest.kept.pop(-priority, None)
        self.largest.kept.pop(priority, None)


@dataclass
class _Best:
    """The ``size`` highest of the distinct priorities seen, with the text that came first for each."""

    size: int
    kept: dict[int, str] = field(default_factory=dict)
    heap: list[int] = field(default_factory=list)

    def add(self, priority: int, text: str) -> None:
        if priority in self.kept or not self.size:
            return
        if len(self.heap) < self.size:
            heapq.heappush(self.heap, priority)
        elif priority > self.heap[0]:
            del self.kept[heapq.heapreplace(self.heap, priority)]
        else:
            return
        self.kept[priority] = text


def _sample(
    source: Source, others: list[_Pool], held: dict[Kind, int], limit: int, seed: int, max_chars: int, base: Path
) -> list[_Pool]:
    """A pool for each kind the source gives."""
    wanted = limit + sum(held.values())
    texts: Iterable[Text]
    kinds: tuple[Kind, ...] = KINDS if isinstance(source, MachineSource) else (source.kind,)
    if isinstance(source, MachineSource):
        from edgeleaf.texts.documentation import documentation_texts

        weights = [*(pool.weight for pool in others), source.weight / 2, source.weight / 2]
        share = _shares(limit, weights, [*(len(pool.largest.kept) for pool in others), limit, limit])[-2]
        texts = documentation_texts(queries=share + held["query"], documents=share + held["document"])
    elif isinstance(source, FilesSource):
        texts = _pieces(source, file_texts(source, base), max_chars)
    else:
        texts = _pieces(source, dataset_texts(source, DATASET_ROWS_PER_TEXT * wanted), max_chars)
    pools = {
        kind: _Pool(kind, source.weight / len(kinds), _Best(2 * sum(held.values())), _Best(wanted)) for kind in kinds
    }
    key = seed.to_bytes(16, "big", signed=True)
    for text in texts:
        cleaned = _cleaned(text.text, max_chars)
        if cleaned:
            pools[text.kind].add(_priority(cleaned, key), cleaned)
    return list(pools.values())


def _pieces(source: FilesSource | DatasetSource, texts: Iterable[str], max_chars: int) -> Iterator[Text]:
    """The source's texts, whole or in pieces."""
    for text in texts:
        for piece in pieces_of(text, source.pieces, max_chars):
            yield Text(piece, source.kind)


def _cleaned(text: str, max_chars: int) -> str:
    text = text.encode("utf-8", "replace").decode("utf-8").strip()  # "replace": lone surrogates out of JSON
    if len(text) > max_chars:
        cut = text[: max_chars + 1]
        text = (cut.rsplit(maxsplit=1)[0] if len(cut.split(maxsplit=1)) > 1 else cut)[:max_chars].strip()
    return text


def _priority(text: str, key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(same(text).encode(), digest_size=12, key=key).digest(), "big")


def _drop_repeats(pools: list[_Pool]) -> None:
    """Leave each text to the first pool that has it."""
    owned: set[int] = set()
    for pool in pools:
        own = set(pool.largest.kept) | {-priority for priority in pool.smallest.kept}
        for priority in own & owned:
            pool.remove(priority)
        owned |= own


def _take_held_out(pools: list[_Pool], kind: Kind, count: int) -> list[Text]:
    if not count:
        return []
    of_kind = [pool for pool in pools if pool.kind == kind]
    name = "queries" if kind == "query" else "documents"
    if not of_kind:
        raise TextsError(
            f"{count} {name} are to be held out, but no source is of kind {kind!r}: "
            f"add a source of kind {kind!r}, or set held_out_{name} = 0"
        )
    taken = _take(of_kind, count, held_out=True)
    if len(taken) < count:
        raise TextsError(
            f"found {len(taken)} distinct texts of kind {kind!r}, needed {count} to hold out and some to train on: "
            f"add texts of that kind, or lower held_out_{name}"
        )
    return taken


def _take(pools: list[_Pool], count: int, *, held_out: bool) -> list[Text]:
    """Take the pools' best by weight out of them; in random order, which is that of the hashes' lower half.

    Not of the hashes themselves: a large pool is left with high ones only, a small one has all kinds. Of a small pool,
    known whole, a fifth is held out at most, if others can give the rest: a short log of real queries is to be learnt.
    """
    ranked = [pool.ranked(held_out) for pool in pools]
    available = [len(texts) for texts in ranked]
    fifths = [
        most if len(pool.largest.kept) == pool.largest.size else min(most, len(pool.largest.kept) // 5)
        for most, pool in zip(available, pools, strict=True)
    ]
    if held_out and sum(fifths) >= count:
        available = fifths
    shares = _shares(count, [pool.weight for pool in pools], available)
    taken = []
    for pool, texts, share in zip(pools, ranked, shares, strict=True):
        for priority, text in texts[:share]:
            pool.remove(priority)
            taken.append((priority, Text(text, pool.kind)))
    return [text for _, text in sorted(taken, key=lambda pair: pair[0] % 2**48)]


def _shares(count: int, weights: list[float], available: list[int]) -> list[int]:
    """Split ``count`` by weight; what one cannot give, the others give, by weight again."""
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
