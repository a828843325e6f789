"""Untrusted JSON: read strictly, and checked against the types of the dataclass that it becomes.

All JSON of a bundle, an index or a model folder is read here. A fault is a :class:`RecordError` of one line that names
the key and its value; readers put the file's name before it and raise it as their own error.
"""

from __future__ import annotations

import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, TypeVar

MOST_BYTES = 64 << 20
"""Size of the largest JSON file that is read, unless a reader sets another limit."""
MOST_DEPTH = 64
"""Greatest depth of nested brackets; no file that edgeleaf reads has a depth above a dozen."""
MOST_NUMBER = 2**63 - 1
MOST_DIGITS = 40
"""Greatest number of digits of a whole number. transformers writes 10^30 for "no limit"."""
_SHOWN = 60
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

Record = TypeVar("Record")


class RecordError(ValueError):
    """Invalid JSON, or a value of the wrong kind; one line."""


def read_bytes(file: Path, *, most_bytes: int = MOST_BYTES) -> bytes:
    """Read a regular file of at most ``most_bytes``.

    Raises:
        RecordError: it is larger, or not a regular file (a folder, a pipe, a device).
        OSError: it does not exist, or may not be read.
    """
    if not file.is_file():
        file.stat()  # FileNotFoundError if it is missing
        raise RecordError("not a regular file")
    with file.open("rb") as stream:
        data = stream.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise RecordError(f"larger than {most_bytes >> 20} MiB, which no such file is")
    return data


def read_json(file: Path, *, most_bytes: int = MOST_BYTES) -> Any:
    """Read a JSON file as :func:`parse_json` does.

    Raises:
        RecordError: not UTF-8, not JSON, or refused by :func:`read_bytes` or :func:`parse_json`.
        OSError: it does not exist, or may not be read.
    """
    return parse_json(read_bytes(file, most_bytes=most_bytes))


def parse_json(text: str | bytes) -> Any:
    """Parse JSON, and refuse what other readers would read differently or fail on.

    Raises:
        RecordError: not UTF-8, not JSON, a key that occurs twice in a table, NaN or Infinity, a whole number of more
            than :data:`MOST_DIGITS` digits, half a surrogate pair, or brackets nested deeper than :data:`MOST_DEPTH`.

    Example:
        >>> parse_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
        edgeleaf.records.RecordError: the key "a" occurs twice in a table
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        else:
            text.encode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_table,
            parse_constant=_constant,
            parse_float=_real,
            parse_int=_whole,
        )
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError:
        raise RecordError("half a surrogate pair, which is not text") from None
    except json.JSONDecodeError as error:
        raise RecordError(f"not JSON: {error}") from None
    except RecursionError:
        raise RecordError(f"brackets nested deeper than {MOST_DEPTH}") from None
    _look_through(value, surrogates=_ESCAPED_SURROGATE.search(text) is not None)
    return value


def record(cls: type[Record], value: Any, *, where: str = "", more: bool = False) -> Record:
    """Make a dataclass or a TypedDict from plain JSON, checking every value against its type.

    Args:
        cls: a class with fields of str, int, float, bool, None, Any, Literal, dataclasses, TypedDicts,
            ``tuple[X, ...]``, ``list[X]``, ``Mapping[str, X]`` and unions of them.
        value: a result of :func:`parse_json`.
        where: the key of ``value``, for messages.
        more: ignore keys that a dataclass does not have, instead of refusing them. A TypedDict keeps them.

    Raises:
        RecordError: a key that is missing or unknown, or a value of the wrong kind; it names the key.
    """
    return typing.cast(Record, _checked(cls, value, where, more))


def checked(hint: Any, value: Any, where: str) -> Any:
    """Return a value of plain JSON if it matches a type hint; see :func:`record`.

    Raises:
        RecordError: it does not match.
    """
    return _checked(hint, value, where, False)


def number(value: Any, where: str, *, low: float, high: float = MOST_NUMBER, whole: bool = True) -> Any:
    """Return a number in [low, high].

    Raises:
        RecordError: it is not; the message names ``where``.
    """
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        limits = f"from {low}" if high >= MOST_NUMBER else f"{low} to {high}"
        raise RecordError(f"{where} is {shown(value)}; {kind}, {limits}, is needed")
    return value


def inside(folder: Path, name: str) -> Path:
    """Return ``folder / name``, if that path is inside ``folder`` and is not a link to somewhere else.

    A link in the Hugging Face hub's cache, from a snapshot to the blobs beside it, is followed.

    Args:
        folder: a folder that may be untrusted.
        name: a relative path with ``/`` between its parts.

    Raises:
        RecordError: an absolute path, one with ``..``, backslashes, control characters; or a link.
    """
    parts = name.split("/")
    if (
        not name
        or any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > 255 for part in parts)
        or "\\" in name
        or any(ord(character) < 32 or ord(character) == 127 for character in name)
        or PureWindowsPath(name).drive
        or len(name) > 1024
    ):
        raise RecordError(f"{shown(name)} is not a path inside the folder")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink() and not _of_the_hub(folder, path):
            raise RecordError(f"{shown(path.relative_to(folder).as_posix())} is a link; put the file itself there")
    return path


def shown(value: Any) -> str:
    """Return a value as JSON of at most some 60 characters, for a message."""
    if isinstance(value, str):
        value = value[: _SHOWN + 1]
    elif isinstance(value, (Mapping, list, tuple)):
        return "a table" if isinstance(value, Mapping) else "a list"
    text = json.dumps(value, ensure_ascii=True, default=repr, skipkeys=True)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _of_the_hub(folder: Path, link: Path) -> bool:
    """Return whether a link goes from ``models--X/snapshots/REVISION`` to a file in ``models--X/blobs``."""
    real = folder.resolve()
    home = next((above.parent for above in (real, *real.parents) if above.name == "snapshots"), None)
    return home is not None and link.resolve().parent == home / "blobs"


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise RecordError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} occurs twice in a table")
    return table


def _constant(name: str) -> Any:
    raise RecordError(f"{name} is not a number in JSON")


def _real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise RecordError(f"{shown(digits)} is too large a number")
    return value


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise RecordError(f"{shown(digits)} is too large a number")
    return int(digits)


def _look_through(value: Any, *, surrogates: bool) -> None:
    """Refuse what is nested too deeply, and half a surrogate pair, which JSON can escape but UTF-8 cannot encode."""
    level: list[Any] = [value]
    for _ in range(MOST_DEPTH):
        inner: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                inner += part.values()
                texts: Iterable[Any] = (*part, *part.values()) if surrogates else ()
            elif isinstance(part, list):
                inner += part
                texts = part if surrogates else ()
            else:
                texts = (part,) if surrogates else ()
            for text in texts:
                if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
                    raise RecordError(f"{shown(text)} holds half a surrogate pair, which is not text")
        level = [part for part in inner if isinstance(part, (dict, list))]
        if not level:
            return
    raise RecordError(f"brackets nested deeper than {MOST_DEPTH}")


_KINDS: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _checked(hint: Any, value: Any, where: str, more: bool) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _one_of(arguments, value, where, more)
    if origin is Literal:
        if not any(type(value) is type(known) and value == known for known in arguments):
            raise RecordError(f"{where} is {shown(value)}; allowed: {', '.join(map(shown, arguments))}")
        return value
    if is_dataclass(hint) or typing.is_typeddict(hint):
        return _fields(hint, value, where, more)
    if origin in (tuple, list):
        if not isinstance(value, list):
            raise RecordError(f"{where} is {shown(value)}; a list is needed")
        return origin(_checked(arguments[0], part, f"{where}[{i}]", more) for i, part in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise RecordError(f"{where or 'the file'} is not a table")
        return {key: _checked(arguments[1], part, f"{where}.{key}"[:_SHOWN], more) for key, part in value.items()}
    if type(value) is hint or (hint is float and type(value) is int):
        return value
    raise RecordError(f"{where} is {shown(value)}; {_KINDS[hint]} is needed")


def _one_of(hints: tuple[Any, ...], value: Any, where: str, more: bool) -> Any:
    """Check a value against a union; if the union has only one alternative besides null, report that one's fault."""
    kinds = [hint for hint in hints if hint is not type(None)]
    if value is None and len(kinds) < len(hints):
        return None
    if len(kinds) == 1:
        return _checked(kinds[0], value, where, more)
    for kind in kinds:
        try:
            return _checked(kind, value, where, more)
        except RecordError:
            continue
    names = " or ".join(_KINDS.get(hint, "a table") for hint in hints)
    raise RecordError(f"{where} is {shown(value)}; {names} is needed")


def _fields(cls: Any, value: Any, where: str, more: bool) -> Any:
    if not isinstance(value, dict):
        raise RecordError(f"{where or 'the file'} is not a table")
    hints, prefix = typing.get_type_hints(cls), f"{where}." if where else ""
    if is_dataclass(cls):
        needed = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
        unknown = [key for key in value if key not in hints]
        if unknown and not more:
            raise RecordError(f"unknown key {prefix}{unknown[0][:_SHOWN]}")
    else:
        extras = typing.get_type_hints(cls, include_extras=True)  # __required_keys__ does not see through strings
        needed = {key for key, hint in extras.items() if typing.get_origin(hint) is not typing.NotRequired}
    if missing := [key for key in hints if key in needed and key not in value]:
        raise RecordError(f"{prefix}{missing[0]} is missing")
    parts = {key: _checked(hints[key], part, prefix + key, more) for key, part in value.items() if key in hints}
    return {**value, **parts} if typing.is_typeddict(cls) else cls(**parts)


__all__ = [
    "MOST_BYTES",
    "RecordError",
    "checked",
    "inside",
    "number",
    "parse_json",
    "read_bytes",
    "read_json",
    "record",
    "shown",
]
