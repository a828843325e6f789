"""A folder of Markdown and text files as documents: titles, front matter, and blocks that passages are made of."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeleaf.errors import TextsError
from edgeleaf.texts.fields import Item
from edgeleaf.values import Value

SUFFIXES = (".md", ".markdown", ".txt")
MOST_BYTES = 64 << 20
"""A larger file is no text that people wrote."""
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?[ \t]*#*[ \t]*$")
_FRONT = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_PAIR = re.compile(r"([\w-]+):[ \t]+(.+?)[ \t]*$")


@dataclass(frozen=True)
class Block:
    """A part of a document that is not cut unless it must be: a paragraph, a list, code; with a heading before it.

    Args:
        start: its first character in the document.
        end: the character after its last.
        heading: whether it begins with a heading, where a passage begins too.
    """

    start: int
    end: int
    heading: bool


def folder_items(folder: Path, left_out: dict[str, list[str]]) -> Iterator[Item]:
    """Read the files of a folder and of those inside it, one at a time. Links are not followed.

    Args:
        folder: the folder.
        left_out: receives the names of what is left out, by the reason; ``/`` is between a path's parts.

    Yields:
        the documents in the order of their paths.

    Raises:
        TextsError: a folder or file that cannot be read.
    """
    for path, reason in _files(folder):
        name = path.relative_to(folder).as_posix()
        if not reason:
            try:
                name.encode()
                data = path.read_bytes() if path.stat().st_size <= MOST_BYTES else None
                item = "larger than 64 MiB" if data is None else _item(name, data, path)
            except UnicodeEncodeError:
                item, name = "names that are not text", repr(name)
            except OSError as error:
                raise TextsError(f"{path}: cannot read it: {error.strerror or error}") from None
            if isinstance(item, Item):
                yield item
                continue
            reason = item
        left_out.setdefault(reason, []).append(name)


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield files with nothing, or files and folders with the reason to leave them out."""

    def refuse(error: OSError) -> None:
        raise TextsError(f"{error.filename}: cannot read it: {error.strerror or error}")

    for place, folders, files in os.walk(folder, onerror=refuse):
        here = Path(place)
        for name in sorted(folders):
            if name.startswith(".") or (here / name).is_symlink():
                folders.remove(name)
                yield here / name, "hidden" if name.startswith(".") else "links"
        folders.sort()
        for name in sorted(files):
            path = here / name
            if name.startswith("."):
                yield path, "hidden"
            elif path.is_symlink():
                yield path, "links"
            elif not path.is_file():
                yield path, "no regular files"
            elif path.suffix.lower() not in SUFFIXES:
                yield path, f"other than {', '.join(SUFFIXES)}"
            else:
                yield path, ""


def _item(name: str, data: bytes, path: Path) -> Item | str:
    """Return a file's document, or the reason to leave it out."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "undecodable (not UTF-8)"
    if b"\0" in data:
        return "binary"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "undecodable (not UTF-8)"
    text = text.replace("\r\n", "\n")
    metadata: dict[str, Value] = {}
    start, title = 0, ""
    if path.suffix.lower() != ".txt":
        if front := _FRONT.match(text):
            metadata, start = _front_matter(front[1]), front.end()
            title = str(metadata.pop("title", ""))
        if not title and (heading := _first_heading(text, start)):
            title, start = heading
    if not text[start:].strip() and not title:
        return "empty"
    return Item(name, title or path.stem, text[start:], metadata, str(path), start)


def _first_heading(text: str, start: int) -> tuple[str, int] | None:
    """Return the heading that a document begins with, and where the text after it begins."""
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if line := text[start:end]:
            found = _HEADING.match(line) if line.strip() else None
            if found and found[2]:
                return found[2].strip(), min(end + 1, len(text))
            if line.strip():
                return None
        start = end + 1
    return None


def _front_matter(text: str) -> dict[str, Value]:
    """Return the plain ``key: value`` lines of a front matter; lists and tables are no metadata."""
    found: dict[str, Value] = {}
    for line in text.split("\n"):
        pair = _PAIR.match(line)
        if not pair or pair[2][0] in "[{|>&*!":
            continue
        value = pair[2]
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            found[pair[1]] = value[1:-1]
        elif value.lower() in ("true", "false"):
            found[pair[1]] = value.lower() == "true"
        elif re.fullmatch(r"-?(?:0|[1-9]\d{0,17})", value, re.ASCII):
            found[pair[1]] = int(value)
        elif re.fullmatch(r"-?(?:0|[1-9]\d{0,17})\.\d{1,17}", value, re.ASCII):
            found[pair[1]] = float(value)
        elif value not in ("null", "~"):
            found[pair[1]] = value
    return found


def blocks(text: str) -> list[Block]:
    """Return the blocks of a text: separated by empty lines, except inside fenced code; headings join what follows."""
    found: list[Block] = []
    start: int | None = None
    heading = only_heading = False
    fence, place = "", 0
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        opens = _HEADING.match(line.rstrip("\n")) is not None and not fence
        ends = opens or (not line.strip() and not fence and not only_heading)
        if ends and start is not None:
            found.append(Block(start, place, heading))
            start, heading = None, False
        if line.strip() and start is None:
            start, heading = place, opens
        only_heading = opens or (only_heading and not line.strip())
        if mark and not fence:
            fence = mark[1]
        elif mark and fence and mark[1].startswith(fence):
            fence = ""
        place += len(line)
    if start is not None:
        found.append(Block(start, place, heading))
    return found
