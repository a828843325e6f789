"""Makes the passages of a store from the documents of an input, with the teacher's own tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeleaf.errors import TextsError
from edgeleaf.search.passages import Passage
from edgeleaf.teachers.window import AT_A_TIME
from edgeleaf.texts.fields import Item
from edgeleaf.texts.folder import blocks
from edgeleaf.texts.inputs import Input
from edgeleaf.texts.spool import Ids, Spool, View, in_pieces
from edgeleaf.values import Value

if TYPE_CHECKING:
    from edgeleaf.teachers.window import Window


def passages_of(
    found: Input, window: Window | None, *, cut: bool, beside: Path | None = None
) -> tuple[Sequence[Passage], Ids]:
    """Make passages.

    Args:
        found: the documents.
        window: what the teacher reads of a text; None if that is not known, and nothing is to be cut.
        cut: cut rows that are longer than the window. Files of a folder always are: at headings, and between blocks
            where a section is longer. Each of their passages has its title, and its offset in the file, as metadata.
        beside: where to keep passages, see :class:`edgeleaf.texts.spool.Spool`.

    Returns:
        the passages, in order, read from disk when they are needed, and their ids. Passage n (from 1) of a document
        that was cut, and of a file, has the id ``ID#n``.

    Raises:
        TextsError: a passage would get the id of another document.
        OSError: there is no room for the passages.
    """
    if window is None or not (cut or found.is_folder):
        return View(found.items, lambda item: Passage(item.id, item.text, "", found.source, item.metadata)), found.ids
    parts = _of_files(found.items, window) if found.is_folder else _of_rows(found.items, window)
    made = Spool((replace(part, source=found.source) for part in parts), Passage, beside=beside)
    ids = Ids(one.id for one in made)
    if (twice := ids.twice()) is not None:
        first, second = (made[row] for row in twice)
        part, whole = sorted((second.document_id, first.document_id), key=len)
        raise TextsError(
            f"a passage of document {part!r} would get the id {second.id!r} of another ({whole!r}); rename it"
        )
    return made, ids


def _of_files(items: Iterable[Item], window: Window) -> Iterator[Passage]:
    for item in items:
        yield from _of_file(item, window)


def _of_rows(items: Iterable[Item], window: Window) -> Iterator[Passage]:
    for some in in_pieces(items, AT_A_TIME):
        long = set(window.longer([item.text for item in some]))
        for place, item in enumerate(some):
            if place not in long:
                yield Passage(item.id, item.text, "", "", item.metadata)
                continue
            for n, (_, text) in enumerate(window.parts(item.title, item.body), 1):
                yield Passage(f"{item.id}#{n}", text, item.id, "", item.metadata)


def _of_file(item: Item, window: Window) -> Iterator[Passage]:
    title = f"{item.title} " if item.title.strip() else ""
    for n, (start, text) in enumerate(_pieces(item, title, window), 1):
        place: dict[str, Value] = {"title": item.title, "offset": start + (item.offset or 0)}
        yield Passage(f"{item.id}#{n}", f"{title}{text}", item.id, "", {**item.metadata, **place})


def _pieces(item: Item, title: str, window: Window) -> Iterator[tuple[int, str]]:
    """Yield the places and texts of a file's passages: as many blocks of a section as fit together."""
    body, parts = item.body, blocks(item.body)
    if not parts:
        yield 0, ""
        return
    room = window.room(title) or max(1, window.tokens // 2)
    counts = window.counts([body[part.start : part.end] for part in parts])
    first, used = 0, 0
    for place, (part, count) in enumerate(zip(parts, counts, strict=True)):
        if place > first and (part.heading or used + count > room):
            yield from _cut(body, parts[first].start, parts[place - 1].end, used > room, item, window)
            first, used = place, 0
        used += count
    yield from _cut(body, parts[first].start, parts[-1].end, used > room, item, window)


def _cut(body: str, start: int, end: int, long: bool, item: Item, window: Window) -> Iterator[tuple[int, str]]:
    text = body[start:end].strip()
    start += len(body[start:end]) - len(body[start:end].lstrip())
    if not long:
        yield start, text
        return
    title = item.title if window.room(f"{item.title} ") is not None else ""
    for place, part in window.parts(title, text):
        yield start + place, part.removeprefix(f"{title} ") if title else part
