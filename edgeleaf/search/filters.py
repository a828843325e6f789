"""Filters over the metadata of documents: one small grammar, which every store carries out with bound values.

    filter   = any ;            any = all { "or" all } ;          all = one { "and" one }
    one      = "not" one | "(" filter ")" | test
    test     = column ( "=" | "!=" | "<>" | "<" | "<=" | ">" | ">=" ) value
             | column [ "not" ] "in" "(" value { "," value } ")"
             | column "is" [ "not" ] "null"
    column   = a name of letters, digits and _, or any name in "double quotes" (a quote inside is doubled)
    value    = 'text' (a quote inside is doubled) | number | true | false

Words may be written in any case. As in SQL, a test of a column that a document lacks, or that holds a value of another
kind, is neither true nor false: neither it nor its ``not`` finds the document; only ``is null`` does. Texts are ordered
by code points. Needs only Python.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from edgeleaf.errors import ColumnError, InputError
from edgeleaf.records import shown
from edgeleaf.values import MOST_WHOLE, Value

Kind = Literal["text", "number", "boolean"]
Operator = Literal["=", "!=", "<", "<=", ">", ">="]
MOST_CHARACTERS = 20_000
MOST_VALUES = 1000
MOST_DEPTH = 50
_NOT: Mapping[str, Operator] = {"=": "!=", "!=": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_TESTS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")*")
    |(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    |(?P<word>[^\W\d]\w*)
    |(?P<sign><=|>=|<>|!=|[=<>(),])
    )""",
    re.VERBOSE,
)


def kind_of(value: Value) -> Kind:
    """Return the kind of a value; values of two kinds are never equal."""
    return "boolean" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


@dataclass(frozen=True)
class Comparison:
    """A column compared with values of one kind: ``=`` is true if one of them is equal, ``!=`` if none is."""

    column: str
    sign: Operator
    values: tuple[Value, ...]

    @property
    def kind(self) -> Kind:
        return kind_of(self.values[0])


@dataclass(frozen=True)
class Null:
    """Whether a document lacks a column, or, if ``negated``, has it."""

    column: str
    negated: bool = False


@dataclass(frozen=True)
class Every:
    """Conditions that must all hold. No condition negates another: ``not`` is already inside the tests."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Some:
    """Conditions of which one must hold."""

    parts: tuple[Filter, ...]


Filter = Comparison | Null | Every | Some


def parse_filter(text: str) -> Filter:
    """Read a filter.

    Raises:
        InputError: it is not in the grammar; the message shows where.

    Example:
        >>> parse_filter("not year < 2020")
        Comparison(column='year', sign='>=', values=(2020,))
    """
    if not isinstance(text, str):
        raise InputError(f"a filter is a text such as lang = 'en', not {type(text).__name__}")
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"a filter of {len(text)} characters; at most {MOST_CHARACTERS} are read")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("not a filter: it holds half a surrogate pair, which is not text") from None
    return _Reader(text).filter()


def matches(condition: Filter, metadata: Mapping[str, Value]) -> bool:
    """Return whether a document's metadata fulfil a condition."""
    if isinstance(condition, Every):
        return all(matches(part, metadata) for part in condition.parts)
    if isinstance(condition, Some):
        return any(matches(part, metadata) for part in condition.parts)
    found = metadata.get(condition.column)
    if isinstance(condition, Null):
        return (found is None) != condition.negated
    if found is None or kind_of(found) != condition.kind:
        return False
    if condition.sign in ("=", "!="):
        return (found in condition.values) == (condition.sign == "=")
    return _TESTS[condition.sign](found, condition.values[0])


def leaves(condition: Filter) -> Iterator[Comparison | Null]:
    """Yield the tests of a condition, from left to right."""
    if isinstance(condition, (Every, Some)):
        for part in condition.parts:
            yield from leaves(part)
    else:
        yield condition


def check_columns(condition: Filter, columns: Mapping[str, Sequence[str]]) -> None:
    """Check a filter against the columns that a store has.

    Args:
        condition: the filter.
        columns: the kinds of values that each column holds.

    Raises:
        ColumnError: a column that no document has, or that never holds a value of this kind.
    """
    for leaf in leaves(condition):
        if leaf.column not in columns:
            known = ", ".join(map(shown, sorted(columns)[:20])) or "none"
            raise ColumnError(
                f"the filter asks for the column {shown(leaf.column)}; the store's documents have: {known}"
            )
        if isinstance(leaf, Comparison) and leaf.kind not in columns[leaf.column]:
            kinds = " and ".join(f"{kind}s" for kind in columns[leaf.column])
            raise ColumnError(
                f"the filter compares the column {shown(leaf.column)} with the {leaf.kind} {_written(leaf.values[0])}; "
                f"it holds {kinds}"
            )


def _written(value: Value) -> str:
    return shown(value) if not isinstance(value, str) else "'" + value[:60].replace("'", "''") + "'"


class _Reader:
    """Reads a filter, one token at a time."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str, int]] = []
        self._next = 0
        self._values = 0
        place = 0
        while text[place:].strip():
            found = _TOKEN.match(text, place)
            if found is None:
                self._fail("it cannot be read", place + len(text[place:]) - len(text[place:].lstrip()))
            kind = found.lastgroup or ""
            self._tokens.append((kind, found[kind], found.start(kind)))
            place = found.end()

    def filter(self) -> Filter:
        condition = self._some(False, 0)
        if self._next < len(self._tokens):
            self._fail("and, or, or the end is needed")
        return condition

    def _some(self, negated: bool, depth: int) -> Filter:
        if depth > MOST_DEPTH:
            self._fail(f"brackets and nots nested deeper than {MOST_DEPTH}")
        parts = [self._every(negated, depth)]
        while self._word("or"):
            parts.append(self._every(negated, depth))
        return parts[0] if len(parts) == 1 else Every(tuple(parts)) if negated else Some(tuple(parts))

    def _every(self, negated: bool, depth: int) -> Filter:
        parts = [self._one(negated, depth)]
        while self._word("and"):
            parts.append(self._one(negated, depth))
        return parts[0] if len(parts) == 1 else Some(tuple(parts)) if negated else Every(tuple(parts))

    def _one(self, negated: bool, depth: int) -> Filter:
        if depth > MOST_DEPTH:
            self._fail(f"brackets and nots nested deeper than {MOST_DEPTH}")
        if self._word("not"):
            return self._one(not negated, depth + 1)
        if self._sign("("):
            inner = self._some(negated, depth + 1)
            self._needed(")")
            return inner
        return self._test(negated)

    def _test(self, negated: bool) -> Filter:
        kind, name, _ = self._peek()
        if kind == "quoted":
            name = name[1:-1].replace('""', '"')
        elif kind != "word" or name.lower() in ("and", "or", "in", "is", "null", "true", "false"):
            self._fail("a column is needed (a name, or any name in double quotes)")
        self._next += 1
        if self._word("is"):
            denied = self._word("not")
            if not self._word("null"):
                self._fail("null is needed")
            return Null(name, denied != negated)
        denied = self._word("not")
        if self._word("in"):
            self._needed("(")
            values = [self._value()]
            while self._sign(","):
                values.append(self._value())
            self._needed(")")
            if len({kind_of(value) for value in values}) > 1:
                self._fail("values of one kind are needed inside in (...)", back=1)
            return Comparison(name, "!=" if denied != negated else "=", tuple(values))
        kind, sign, _ = self._peek()
        sign = "!=" if sign == "<>" else sign
        if denied or kind != "sign" or sign not in _NOT:
            self._fail("in is needed" if denied else "=, !=, <, <=, >, >=, in or is is needed")
        self._next += 1
        value = self._value()
        if isinstance(value, bool) and sign not in ("=", "!="):
            self._fail("true and false have no order; = or != is needed", back=2)
        operation = _NOT[sign] if negated else _NOT[_NOT[sign]]
        return Comparison(name, operation, (value,))

    def _value(self) -> Value:
        kind, text, _ = self._peek()
        self._values += 1
        if self._values > MOST_VALUES:
            self._fail(f"more than {MOST_VALUES} values")
        value: Value
        if kind == "text":
            value = text[1:-1].replace("''", "'")
        elif kind == "number":
            value = float(text) if re.search(r"[.eE]", text) else int(text) if len(text) < 40 else math.inf
            if not abs(value) <= (MOST_WHOLE if isinstance(value, int) else 1.7e308):
                self._fail("the number is too large")
        elif kind == "word" and text.lower() in ("true", "false"):
            value = text.lower() == "true"
        elif kind == "word" and text.lower() == "null":
            self._fail("nothing is equal to null; write: is null")
        else:
            self._fail("a value is needed: 'text' in single quotes, a number, true or false")
        self._next += 1
        return value

    def _peek(self) -> tuple[str, str, int]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("", "", len(self._text))

    def _word(self, word: str) -> bool:
        kind, text, _ = self._peek()
        return self._taken(kind == "word" and text.lower() == word)

    def _sign(self, sign: str) -> bool:
        kind, text, _ = self._peek()
        return self._taken(kind == "sign" and text == sign)

    def _taken(self, found: bool) -> bool:
        self._next += found
        return found

    def _needed(self, sign: str) -> None:
        if not self._sign(sign):
            self._fail(f"{sign} is needed")

    def _fail(self, why: str, place: int | None = None, *, back: int = 0) -> NoReturn:
        at = self._tokens[self._next - back][2] if back else self._peek()[2] if place is None else place
        rest = self._text[at : at + 40].strip()
        where = f"at {shown(rest)}" if rest else "at its end"
        raise InputError(f"not a filter {where} (character {at + 1}): {why}; example: lang = 'en' and year >= 2020")
