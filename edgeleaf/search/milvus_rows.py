"""What the store ``milvus`` has in its collections: rows of passages and their states, what it says of itself, filters.

Passages are never changed: a row is born in a state and gone in a later one, see :mod:`edgeleaf.search.milvus`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from edgeleaf.errors import BundleError, InputError
from edgeleaf.search.filters import Every, Filter, Null, Some
from edgeleaf.search.passages import Passage
from edgeleaf.texts.spool import in_pieces
from edgeleaf.values import Value

NEVER = 2**62
MOST_BYTES = 65_535
"""Of a text; Milvus's own limit."""
ROWS = 500
"""Written at once."""
_PART = 60_000


def checked_current(client: Any, name: str, place: str) -> dict[str, Any] | None:
    """Return what a store says of itself, by a client that has not asked for it yet; None if there is none.

    Args:
        client: the client.
        name: the store's collection.
        place: for messages.

    Raises:
        BundleError: the collection of its name is something else.
    """
    if not client.has_collection(name):
        return None
    fields = {field["name"] for field in client.describe_collection(name)["fields"]}
    if not {"name", "value"} <= fields:
        raise BundleError(f"{place}: the collection {name} is not a store's; give another name")
    client.load_collection(name)
    return current_of(client, name)


def current_of(client: Any, name: str) -> dict[str, Any] | None:
    rows = client.query(name, filter='name in ["current"]', output_fields=["value"], consistency_level="Strong")
    if not rows:
        return None
    found: dict[str, Any] = json.loads(rows[0]["value"])
    return found


def say(client: Any, name: str, current: Mapping[str, Any]) -> None:
    value = json.dumps(dict(current))
    if len(value) > MOST_BYTES:
        raise BundleError("the documents have more columns than Milvus can hold; leave some out")
    client.upsert(name, [{"name": "current", "value": value, "unused": [0.0, 1.0]}])


def create_header(client: Any, name: str) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("name", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("value", DataType.VARCHAR, max_length=MOST_BYTES)
    schema.add_field("unused", DataType.FLOAT_VECTOR, dim=2)  # Milvus has no collection without vectors
    indexes = client.prepare_index_params()
    indexes.add_index("unused", index_type="FLAT", metric_type="L2")
    client.create_collection(name, schema=schema, index_params=indexes, consistency_level="Strong")


def create_passages(client: Any, name: str, dims: int, *, exact: bool) -> None:
    from pymilvus import DataType, Function, FunctionType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=64)
    for field, most in (("row", 64), ("text_hash", 64), ("rest_hash", 64), ("source", 256)):
        schema.add_field(field, DataType.VARCHAR, max_length=most)
    for field in ("id", "document", "metadata"):
        schema.add_field(field, DataType.VARCHAR, max_length=MOST_BYTES)
    schema.add_field("text", DataType.VARCHAR, max_length=MOST_BYTES, enable_analyzer=True)
    schema.add_field("columns", DataType.JSON)
    schema.add_field("born", DataType.INT64)
    schema.add_field("gone", DataType.INT64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dims)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(Function("bm25", FunctionType.BM25, ["text"], ["words"]))
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="FLAT" if exact else "AUTOINDEX", metric_type="COSINE")
    indexes.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    client.create_collection(name, schema=schema, index_params=indexes, consistency_level="Strong")


def write_axes(client: Any, name: str, axes: bytes | None) -> None:
    """Keep the principal axes as text in parts, which ``current`` does not name until it is written."""
    if axes is not None:
        text = axes.hex()
        for number, start in enumerate(range(0, len(text), _PART)):
            row = {"name": f"axes {number:05d}", "value": text[start : start + _PART], "unused": [0.0, 1.0]}
            client.upsert(name, [row])


def axes_of(client: Any, name: str) -> bytes:
    rows = all_rows(client, name, 'name >= "axes " and name < "axes~"', ["name", "value"])
    return bytes.fromhex("".join(row["value"] for row in sorted(rows, key=lambda row: str(row["name"]))))


def all_rows(client: Any, name: str, condition: str, fields: list[str]) -> Iterator[dict[str, Any]]:
    """Yield all rows that fulfil a condition, however many there are."""
    iterator = client.query_iterator(name, filter=condition, output_fields=fields, batch_size=1000)
    try:
        while part := iterator.next():
            yield from part
    finally:
        iterator.close()


def _digest(key: str) -> str:
    return blake2b(key.encode(), digest_size=16).hexdigest()


def row_of(passage: Passage, vector: list[float], state: int, numbers: Mapping[str, int]) -> dict[str, Any]:
    kept, key = passage.kept, _digest(passage.id)
    return {
        "key": f"{key}-{state}",
        "row": key,
        "id": passage.id,
        "document": passage.document_id,
        "source": passage.source,
        "text": passage.text,
        "metadata": json.dumps(dict(passage.metadata), ensure_ascii=False),
        "columns": {f"c{numbers[name]}{_sort(value)}": _coded(value) for name, value in passage.metadata.items()},
        "text_hash": kept.text.hex(),
        "rest_hash": kept.rest.hex(),
        "born": state,
        "gone": NEVER,
        "vector": vector,
    }


def renew(client: Any, name: str, renewed: Sequence[Passage], state: int, numbers: Mapping[str, int]) -> None:
    """Add passages again with the vectors that they have."""
    for start in range(0, len(renewed), ROWS):
        part = {_digest(passage.id): passage for passage in renewed[start : start + ROWS]}
        condition = f"row in {json.dumps(list(part))} and born < {state} and gone == {NEVER}"
        rows = all_rows(client, name, condition, ["row", "vector"])
        new = [row_of(part[row["row"]], [float(number) for number in row["vector"]], state, numbers) for row in rows]
        client.insert(name, new)


def mark(client: Any, name: str, ids: Iterable[str], state: int) -> None:
    """Say of passages that they are gone in a state."""
    for keys in in_pieces(map(_digest, ids), ROWS):
        _set_gone(client, name, f"row in {json.dumps(keys)} and born < {state} and gone == {NEVER}", state)


def _set_gone(client: Any, name: str, condition: str, gone: int) -> None:
    keys = [row["key"] for row in all_rows(client, name, condition, ["key"])]  # before any of them changes
    for part in in_pieces(keys, ROWS):
        client.upsert(name, [{"key": key, "gone": gone} for key in part], partial_update=True)


def clean(client: Any, name: str, state: int) -> None:
    """Remove rows that no reader of a state, or of a later one, sees."""
    client.delete(name, filter=f"born > {state}")
    client.delete(name, filter=f"gone <= {state}")
    _set_gone(client, name, f"gone > {state} and gone < {NEVER}", NEVER)


def alive(current: Mapping[str, Any]) -> str:
    state = int(current["state"])
    return f"born <= {state} and gone > {state}"


def check_fits(passage: Passage) -> None:
    for what, text in (("text", passage.text), ("metadata", json.dumps(dict(passage.metadata), ensure_ascii=False))):
        if (size := len(text.encode())) > MOST_BYTES:
            advice = "; cut documents into parts: --passages" if what == "text" else ""
            raise InputError(f"the {what} of {passage.id[:60]!r} has {size} bytes; Milvus holds {MOST_BYTES}{advice}")


def _sort(value: Value) -> str:
    return "b" if isinstance(value, bool) else "s" if isinstance(value, str) else "n"


def _coded(value: Value) -> str | int | float:
    """Return a value as filters compare it: a text as hexadecimal UTF-8, whose order is that of the text."""
    return value.encode().hex() if isinstance(value, str) else int(value) if isinstance(value, bool) else value


def expression(condition: Filter, numbers: Mapping[str, int]) -> str:
    """Return an expression of Milvus; a column is its number, and a text hexadecimal, so nothing of it can be code."""
    if isinstance(condition, (Every, Some)):
        word = " and " if isinstance(condition, Every) else " or "
        return "(" + word.join(expression(part, numbers) for part in condition.parts) + ")"
    number = int(numbers[condition.column])
    if isinstance(condition, Null):
        there = " or ".join(f'exists columns["c{number}{sort}"]' for sort in "snb")
        return f"({there})" if condition.negated else f"(not ({there}))"
    column = f'columns["c{number}{_sort(condition.values[0])}"]'
    values = [json.dumps(_coded(value)) for value in condition.values]
    if condition.sign == "!=":
        return f"(exists {column} and {' and '.join(f'{column} != {value}' for value in values)})"
    sign = "==" if condition.sign == "=" else condition.sign
    return "(" + " or ".join(f"{column} {sign} {value}" for value in values) + ")"
