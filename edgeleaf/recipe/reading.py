"""Reads a recipe's TOML file into frozen dataclasses. An unknown key is an error that lists the known ones."""

from __future__ import annotations

import dataclasses
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal

from edgeleaf.errors import RecipeError
from edgeleaf.recipe.sources import DatasetSource, FilesSource, MachineSource
from edgeleaf.recipe.specs import Recipe, shown
from edgeleaf.records import RecordError, read_bytes

MOST_RECIPE_BYTES = 4 << 20


def read_recipe(path: Path | str) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: no such file, not TOML (with the line), an unknown or missing key, a wrong type or a value out of
            range (with the key and the allowed values).
    """
    path = Path(path)
    table = recipe_toml(path)
    if isinstance(table.get("teach"), dict):  # for edgeleaf teach, which checks it
        table = {name: value for name, value in table.items() if name != "teach"}
        if not {"teacher", "student", "texts"} & table.keys():
            raise RecipeError(
                f"{path}: it has only the table [teach], which edgeleaf teach reads; give it to that command"
            )
    try:
        recipe = typing.cast(Recipe, _table(Recipe, table, ""))
        if min(recipe.benchmark.lengths) > recipe.student.max_length:
            raise RecipeError(
                f"benchmark.lengths start at {min(recipe.benchmark.lengths)} tokens; "
                f"student.max_length is {recipe.student.max_length}"
            )
        return recipe
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None


def recipe_toml(path: Path) -> dict[str, Any]:
    """Return the TOML of a recipe as plain values.

    Raises:
        RecipeError: no such file, or not TOML (with the line).
    """
    try:
        return tomllib.loads(read_bytes(path, most_bytes=MOST_RECIPE_BYTES).decode("utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe; the ones that come with edgeleaf are in export/recipes/") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read as a recipe: {error.strerror or error}") from None
    except (UnicodeDecodeError, RecordError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe: {error}") from None
    except RecursionError:
        raise RecipeError(f"{path}: not valid TOML: brackets nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and the error of int for thousands of digits
        raise RecipeError(f"{path}: not valid TOML: {' '.join(str(error).split())[:200]}") from None


def read_table(cls: type, table: dict[str, Any]) -> Any:
    """Read a table into a frozen dataclass; its fields' types and limits decide what is allowed.

    Raises:
        RecipeError: an unknown or missing key, a wrong type or a value out of range; the message names the key.
    """
    return _table(cls, table, "")


def _table(cls: type, table: Any, key: str) -> Any:
    if not isinstance(table, dict):
        raise RecipeError(f"{key} is {shown(table)}; a table [{key}] is needed")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    prefix = f"{key}." if key else ""
    for name in table:
        if name not in fields:
            raise RecipeError(f"unknown key {prefix}{name}; known here: {', '.join(fields)}")
    hints = typing.get_type_hints(cls)
    values = {}
    for name, spec in fields.items():
        if name in table:
            values[name] = _value(hints[name], table[name], prefix + name, spec.metadata)
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise RecipeError(f"{prefix}{name} is missing")
    return cls(**values)


def _value(hint: Any, value: Any, key: str, limits: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if value is False and key.startswith("gates."):
        return False
    if key == "texts.sources":
        if not isinstance(value, list) or not value:
            raise RecipeError(f"{key} is {shown(value)}; at least one [[texts.sources]] is needed")
        return tuple(_source(entry, f"{key}[{i}]") for i, entry in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return _table(typing.cast(type, hint), value, key)
    if origin is Literal:
        if not any(type(value) is type(known) and value == known for known in arguments):
            raise RecipeError(f"{key} is {shown(value)}; allowed: {', '.join(map(shown, arguments))}")
        return value
    if origin in (types.UnionType, typing.Union):  # the second with a Literal in it
        kinds = [a for a in arguments if a is not type(None)]
        for kind in kinds[:-1]:
            if type(value) is kind:
                return value
        return _value(kinds[-1], value, key, limits)
    if origin is tuple and (tables := _tables(arguments[0])):
        if not isinstance(value, list) or not value:
            heading = re.sub(r"\[\d+\]", "", key)
            raise RecipeError(f"{key} is {shown(value)}; at least one [[{heading}]] is needed")
        return tuple(_one_of(tables, entry, f"{key}[{i}]") for i, entry in enumerate(value))
    if origin is tuple:
        if not isinstance(value, list) or not (value or limits.get("empty")):
            words = typing.get_origin(arguments[0]) is Literal and isinstance(typing.get_args(arguments[0])[0], str)
            kind = "strings" if words else "numbers" if typing.get_origin(arguments[0]) else arguments[0].__name__
            raise RecipeError(f"{key} is {shown(value)}; a list of {kind} is needed")
        each = limits or {"low": 1}
        return tuple(_value(arguments[0], entry, f"{key}[{i}]", each) for i, entry in enumerate(value))
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise RecipeError(f"{key} is {shown(value)}; {_KINDS[hint]} is needed")
    if hint in (int, float):
        low, high = limits.get("low", 0), limits.get("high", 2**31)
        if not low <= value <= high:
            raise RecipeError(f"{key} is {value}; allowed: {low} to {high}")
    if hint is str and "\0" in value:
        raise RecipeError(f"{key} is {shown(value)}; a text here must not contain a null character")
    if hint is str and not value and key.endswith(("name", "model")):
        raise RecipeError(f"{key} is empty")
    return value


def _tables(hint: Any) -> tuple[type, ...]:
    """Return the dataclasses that a hint names, alone or as alternatives."""
    found = typing.get_args(hint) if typing.get_origin(hint) is types.UnionType else (hint,)
    return tuple(kind for kind in found if isinstance(kind, type) and dataclasses.is_dataclass(kind))


def _one_of(kinds: tuple[type, ...], table: Any, key: str) -> Any:
    """Read a table whose type, if there are several, follows from which of their first keys it has."""
    if len(kinds) == 1:
        return _table(kinds[0], table, key)
    named = {dataclasses.fields(kind)[0].name: kind for kind in kinds}
    found = [name for name in named if isinstance(table, dict) and name in table]
    if len(found) != 1:
        raise RecipeError(f"{key} needs exactly one of the keys {', '.join(named)}")
    return _table(named[found[0]], table, key)


_KINDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
_SOURCES: dict[str, type] = {"files": FilesSource, "dataset": DatasetSource, "machine": MachineSource}


def _source(table: Any, key: str) -> Any:
    """Read a source; its type follows from its key: ``files = …``, ``dataset = …`` or ``machine = true``."""
    kinds = [kind for kind in _SOURCES if isinstance(table, dict) and kind in table]
    if len(kinds) != 1:
        raise RecipeError(f'{key} needs exactly one of: files = [...], dataset = "...", machine = true')
    if kinds == ["machine"]:
        if table["machine"] is not True:
            raise RecipeError(f"{key}.machine is {shown(table['machine'])}; allowed: true")
        table = {name: value for name, value in table.items() if name != "machine"}
    return _table(_SOURCES[kinds[0]], table, key)
