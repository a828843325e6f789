"""Pairs of a query and a text that answers it, which a model is taught: from files, a collection, or documents."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeleaf import progress
from edgeleaf.errors import TextsError
from edgeleaf.files import sha256, write_text
from edgeleaf.recipe.teach import PairCollection, PairFiles, PairsMade, PairSource
from edgeleaf.texts.collection import CORPUS_FILE, QUERIES_FILE, read_qrels
from edgeleaf.texts.documents import read_documents, titled_documents
from edgeleaf.texts.pieces import sentences
from edgeleaf.texts.readers import json_row, matching_files, numbered_lines, suffix_of
from edgeleaf.texts.text import same

PAIRS_FILE = "pairs.json"
LEAST = 2
"""Pairs: a contrastive loss needs another pair's positive."""
KEPT = 0.1
"""Share of made pairs whose paragraph keeps the sentence; Lee et al. 2019 (arXiv 1906.00300) take out nine of ten."""
LEAST_REST, LEAST_SENTENCE = 40, 25
"""Characters of the paragraph's rest and of the sentence."""


@dataclass(frozen=True)
class Pair:
    """A query with the texts that answer it, and texts that do not."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()


@dataclass
class PairSet:
    """Pairs as numbers: each text once, and rows that point to texts.

    Attributes:
        queries, documents: distinct texts; documents are positives, negatives, and others to mine from.
        rows: (query, positive) of each pair, as positions in ``queries`` and ``documents``.
        known: every positive of each query; none of them is ever its negative.
        negatives: each query's own negatives.
        tasks: task of each row, a position in ``task_names``.
        instructions: instruction of each task, None for none.
        examples: (query, response) examples of each task that the recipe gives.
    """

    queries: list[str] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    rows: list[tuple[int, int]] = field(default_factory=list)
    known: list[list[int]] = field(default_factory=list)
    negatives: list[list[int]] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)
    task_names: list[str] = field(default_factory=list)
    instructions: list[str | None] = field(default_factory=list)
    examples: list[list[tuple[str, str]]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def write(self, path: Path) -> None:
        """Write the set as JSON."""
        write_text(path, json.dumps(vars(self), ensure_ascii=False))

    @staticmethod
    def read(path: Path) -> PairSet:
        """Read what :meth:`write` wrote."""
        table = json.loads(path.read_text(encoding="utf-8"))
        table["rows"] = [(query, document) for query, document in table["rows"]]
        table["examples"] = [[(query, answer) for query, answer in part] for part in table["examples"]]
        return PairSet(**table)


def collect_pairs(
    sources: Sequence[PairSource], *, base: Path, seed: int, held_out: int = 0
) -> tuple[PairSet, PairSet]:
    """Read the pairs of a stage.

    Args:
        sources: where pairs come from.
        base: folder at which relative paths start, the recipe's.
        seed: chooses pairs where a source has more than its limit, and which are held out.
        held_out: queries to set aside with all their positives.

    Returns:
        The pairs to learn from, and those held out. Both have the same documents. A pair whose positive is its query
        is left out, with a warning. Two queries that :func:`same` counts as equal are one query.

    Raises:
        TextsError: a source that cannot be read, has a line without a query or positive, or has no pairs; or too few
            pairs to hold out as many.
    """
    builder = _Builder()
    for number, source in enumerate(sources):
        pairs = _pairs_of(source, base)
        if source.limit is not None and len(pairs) > source.limit:
            chosen = sorted(random.Random(f"{seed} {number}").sample(range(len(pairs)), source.limit))
            pairs = [pairs[i] for i in chosen]
        builder.add(source, number, pairs, _more_documents(source, base))
    found = builder.set
    if builder.own:
        progress.warn(f"{builder.own:,} pairs have their query as their positive and are left out")
    queries = sorted({query for query, _ in found.rows})
    if len(found) < LEAST:
        raise TextsError(f"{len(found)} pairs to learn from; at least {LEAST} are needed: add pairs")
    if held_out and len(queries) < held_out + LEAST:
        raise TextsError(
            f"{len(queries)} queries with a positive, of which {held_out} are to be held out: add pairs, or lower "
            "teach.held_out"
        )
    aside = set(random.Random(f"{seed} held out").sample(queries, held_out))
    return _part(found, aside, inside=False), _part(found, aside, inside=True)


def pair_fingerprint(sources: Sequence[PairSource], base: Path) -> list[str]:
    """Return the sha256 of every file that sources read, by which changed pairs are noticed.

    Raises:
        TextsError: no file matches a pattern, or one cannot be read.
    """
    hashes = []
    for source in sources:
        for path in _files_of(source, base):
            try:
                hashes.append(sha256(path))
            except OSError as error:
                raise TextsError(f"{path}: cannot read it: {error.strerror or error}") from error
    return hashes


class _Builder:
    """Numbers texts as they come; equal ones get the same number."""

    def __init__(self) -> None:
        self.set = PairSet()
        self.own = 0
        self._queries: dict[str, int] = {}
        self._documents: dict[str, int] = {}
        self._tasks: dict[str, int] = {}
        self._seen: set[tuple[int, int]] = set()

    def add(self, source: PairSource, number: int, pairs: Iterable[Pair], more: Iterable[str]) -> None:
        name = source.task if source.task is not None else f"source {number + 1}"
        if name not in self._tasks:
            self._tasks[name] = len(self._tasks)
            self.set.task_names.append(name)
            self.set.instructions.append(source.instruction)
            self.set.examples.append([(example.query, example.response) for example in source.examples or ()])
        task = self._tasks[name]
        if self.set.instructions[task] != source.instruction:
            raise TextsError(
                f"two sources of the task {name!r} have different instructions; give them one, or two tasks"
            )
        for pair in pairs:
            query = self._query(pair.query)
            for text in pair.positives:
                if same(text) == same(pair.query):
                    self.own += 1
                    continue
                document = self._document(text)
                if document not in self.set.known[query]:
                    self.set.known[query].append(document)
                if (query, document) not in self._seen:
                    self._seen.add((query, document))
                    self.set.rows.append((query, document))
                    self.set.tasks.append(task)
            for text in pair.negatives:
                document = self._document(text)
                if document not in self.set.negatives[query]:
                    self.set.negatives[query].append(document)
        for text in more:
            self._document(text)
        for query, negatives in enumerate(self.set.negatives):
            if negatives:
                self.set.negatives[query] = [row for row in negatives if row not in self.set.known[query]]

    def _query(self, text: str) -> int:
        key = same(text)
        if key not in self._queries:
            self._queries[key] = len(self._queries)
            self.set.queries.append(text)
            self.set.known.append([])
            self.set.negatives.append([])
        return self._queries[key]

    def _document(self, text: str) -> int:
        key = same(text)
        if key not in self._documents:
            self._documents[key] = len(self._documents)
            self.set.documents.append(text)
        return self._documents[key]


def _part(found: PairSet, aside: set[int], *, inside: bool) -> PairSet:
    rows = [row for row, (query, _) in enumerate(found.rows) if (query in aside) == inside]
    return PairSet(**{**vars(found), "rows": [found.rows[i] for i in rows], "tasks": [found.tasks[i] for i in rows]})


def _files_of(source: PairSource, base: Path) -> list[Path]:
    if isinstance(source, PairFiles):
        return matching_files(source.files, base)
    if isinstance(source, PairsMade):
        return matching_files(source.documents, base)
    return [_member(source, name, base) for name in (CORPUS_FILE, QUERIES_FILE, source.qrels)]


def _member(source: PairCollection, name: str, base: Path) -> Path:
    try:
        return matching_files((f"{source.collection}/{name}",), base)[0]
    except TextsError as plain:
        try:
            return matching_files((f"{source.collection}/{name}.gz",), base)[0]
        except TextsError:
            raise plain from None


def _pairs_of(source: PairSource, base: Path) -> list[Pair]:
    files = _files_of(source, base)
    if isinstance(source, PairCollection):
        return _judged(*files)
    if isinstance(source, PairFiles):
        read, what = _read_file, "pair"
    else:
        read, what = (_titles if source.made == "titles" else _sentences), f"pair of kind {source.made!r}"
    pairs = []
    for path in files:
        found = list(read(path))
        if not found:
            raise TextsError(f"{path}: no {what} in it; give a file with some")
        pairs += found
    return pairs


def _more_documents(source: PairSource, base: Path) -> list[str]:
    if not isinstance(source, PairCollection):
        return []
    return [text for _, text in read_documents(_member(source, CORPUS_FILE, base))]


def _read_file(path: Path) -> Iterator[Pair]:
    kind = suffix_of(path)
    if kind == ".jsonl":
        return _jsonl(path)
    if kind == ".tsv":
        return _tsv(path)
    raise TextsError(f"{path}: pairs are read from .jsonl and .tsv files, gzipped or not")


def _jsonl(path: Path) -> Iterator[Pair]:
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        row, place = json_row(line, path, number), f"{path}, line {number}"
        query = row.get("query")
        if not isinstance(query, str) or not query.strip():
            keys = ", ".join(sorted(row)) or "none"
            raise TextsError(f"{place}: needed a text under 'query', found keys: {keys}")
        positives = _texts(row, "positive", place)
        if not positives:
            raise TextsError(f"{place}: no positive; needed a text, or a list of texts, under 'positive'")
        yield _pair(query, positives, _texts(row, "negatives", place), place)


def _texts(row: dict[str, Any], key: str, place: str) -> list[str]:
    found = row.get(key)
    texts = [] if found is None else [found] if isinstance(found, str) else found
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise TextsError(f"{place}: needed a text or a list of texts under {key!r}, none of them empty")
    return texts


def _tsv(path: Path) -> Iterator[Pair]:
    columns: list[str] = []
    for number, line in numbered_lines(path):
        cells = line.split("\t")
        if number == 1:
            columns = [cell.strip() for cell in cells]
            for name in ("query", "positive"):
                if name not in columns:
                    raise TextsError(f"{path}: no column {name!r}; its first line must name query, positive, negative")
            continue
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        if len(cells) != len(columns):
            raise TextsError(f"{place}: needed {len(columns)} columns, found {len(cells)}")
        named = [(name, cell.strip()) for name, cell in zip(columns, cells, strict=True)]
        texts = {name: [cell for key, cell in named if key == name and cell] for name in {*columns}}
        for name in ("query", "positive"):
            if not texts[name]:
                raise TextsError(f"{place}: no {name}; needed a text in the column {name!r}")
        yield _pair(texts["query"][0], texts["positive"], texts.get("negative", []), place)


def _pair(query: str, positives: Sequence[str], negatives: Sequence[str], place: str) -> Pair:
    try:
        "".join((query, *positives, *negatives)).encode()
    except UnicodeEncodeError:
        raise TextsError(
            f"{place}: holds half a surrogate pair, which is not text; write the character whole"
        ) from None
    return Pair(query.strip(), tuple(text.strip() for text in positives), tuple(text.strip() for text in negatives))


def _judged(corpus: Path, queries: Path, qrels: Path) -> list[Pair]:
    documents, asked = dict(read_documents(corpus)), dict(read_documents(queries))
    pairs = []
    for query, grades in read_qrels(qrels, asked, set(documents)).items():
        positives = tuple(documents[key] for key, grade in grades.items() if grade > 0 and key in documents)
        if positives:
            negatives = tuple(documents[key] for key, grade in grades.items() if grade <= 0 and key in documents)
            pairs.append(Pair(asked[query], positives, negatives))
    if not pairs:
        raise TextsError(f"{qrels}: no judgment above 0 of a document in {CORPUS_FILE}; pairs need positives")
    return pairs


def _titles(path: Path) -> Iterator[Pair]:
    """Yield title and passage; of a .txt line, what stands before and after the first `` : ``."""
    if suffix_of(path) == ".jsonl":
        for document in titled_documents(path):
            if document.title.strip() and document.body.strip():
                yield Pair(document.title.strip(), (document.body.strip(),))
        return
    for _, text in read_documents(path):
        title, mark, body = text.partition(" : ")
        if mark and title.strip() and body.strip():
            yield Pair(title.strip(), (body.strip(),))


def _sentences(path: Path) -> Iterator[Pair]:
    """Yield a sentence of each paragraph and the rest of it; the inverse cloze task of Lee et al. 2019."""
    for document in titled_documents(path):
        parts = sentences(document.body)
        if len(parts) < 2:
            continue
        chance = random.Random(hashlib.blake2b(document.text.encode(), digest_size=8).digest())
        chosen = chance.randrange(len(parts))
        rest = parts if chance.random() < KEPT else parts[:chosen] + parts[chosen + 1 :]
        sentence, paragraph = parts[chosen].strip(), " ".join(part.strip() for part in rest)
        if len(sentence) >= LEAST_SENTENCE and len(paragraph) >= LEAST_REST:
            yield Pair(sentence, (f"{document.title} {paragraph}".strip(),))
