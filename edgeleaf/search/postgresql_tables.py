"""The tables of a store in PostgreSQL, and connections to them; used by :mod:`edgeleaf.search.postgresql`."""

from __future__ import annotations

import string
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgeleaf.errors import BundleError
from edgeleaf.extras import require
from edgeleaf.places import check_password, reason_without, without_password
from edgeleaf.records import shown
from edgeleaf.search.passages import Columns, Layout

SECONDS = 10
"""Seconds that a connection may take to be made."""
_SIGNS = "".join(map(chr, range(33, 127))).translate(dict.fromkeys(map(ord, string.ascii_letters + string.digits)))
"""ASCII's punctuation, which PostgreSQL would read as parts of paths, addresses and numbers with a sign."""
BLANKS = dict.fromkeys(map(ord, _SIGNS), " ")
_WORD_CHARACTERS = 500_000
"""Characters of a passage that are searched for key words; a tsvector has at most a megabyte."""
PLAIN = "translate(left(text, {}), '{}', '{}')".format(_WORD_CHARACTERS, _SIGNS.replace("'", "''"), " " * len(_SIGNS))
TABLES = """
create table edgeleaf_store (name text primary key, value jsonb, bytes bytea);
create table edgeleaf_passages (
    row bigint generated always as identity primary key, id text not null unique, document text not null,
    source text not null, text text not null, metadata jsonb not null, text_hash bytea not null,
    rest_hash bytea not null, vector {pgvector}.halfvec({dims}) not null, bits bit({dims}),
    words tsvector generated always as (to_tsvector('simple', {plain})) stored);
create index edgeleaf_passages_words on edgeleaf_passages using gin (words);
"""
COLUMNS = "id, document, source, text, metadata, text_hash, rest_hash"
RENEWED = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS.split(", ")[1:])
_OWN = {
    "edgeleaf_store": {"name", "value", "bytes"},
    "edgeleaf_passages": {"row", *COLUMNS.split(", "), "vector", "bits", "words"},
}
"""The store's tables and their columns."""
_FOUND = """
select relname::text, array_agg(attname::text) from pg_class
join pg_namespace on pg_namespace.oid = relnamespace left join pg_attribute on attrelid = pg_class.oid
where nspname = current_schema() and relname = any(%s) group by relname
"""
STAMP = "select tableoid::int8, xmin::text from edgeleaf_store where name = 'record'"
"""What is another one after every change of the store, and after it was made anew."""
_SCHEMAS = """
select quote_ident(current_schema()), cardinality(current_schemas(false)), current_setting('search_path')
"""
_EXTENSION = """
select quote_ident(nspname) from pg_extension join pg_namespace on pg_namespace.oid = extnamespace
where extname = 'vector'
"""


def connected(url: str) -> Any:
    """Connect; the search path is then the first schema of it that exists, and no other.

    Raises:
        BundleError: none exists.
    """
    import psycopg

    connection = psycopg.connect(url, autocommit=True, connect_timeout=SECONDS, application_name="edgeleaf")
    try:
        schema, count, path = connection.execute(_SCHEMAS).fetchone() or (None, 0, "")
        if schema is None:
            raise BundleError(f"{without_password(url)}: no schema of the search path {shown(path)} exists; create it")
        if count > 1:
            connection.execute("select set_config('search_path', %s, false)", (schema,))
    except BaseException:
        connection.close()
        raise
    return connection


def pgvector_schema(connection: Any) -> str:
    """Return the schema of pgvector's names, quoted; empty if the extension was not created."""
    row = connection.execute(_EXTENSION).fetchone()
    return "" if row is None else str(row[0])


def registered(connection: Any) -> None:
    """Let a connection send and read pgvector's types, which are looked up in their own schema."""
    from pgvector.psycopg import register_vector

    if scalar(connection, "select to_regtype('halfvec')::text") is not None:
        register_vector(connection)
        return
    path = scalar(connection, "select current_setting('search_path')")
    connection.execute("select set_config('search_path', %s, false)", (pgvector_schema(connection),))
    register_vector(connection)
    connection.execute("select set_config('search_path', %s, false)", (path,))


@contextmanager
def clear_errors(place: str, url: str, *, writing: bool = False) -> Iterator[None]:
    """Turn PostgreSQL's errors into one line that names the place and never the password."""
    require("postgresql")
    import psycopg

    check_password(url)
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise BundleError(f"{place}: the user may not do this: {reason_without(url, error)}") from None
    except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported) as error:
        raise BundleError(
            f"{place}: the server lacks pgvector ({reason_without(url, error)}); install it there, then try again"
        ) from None
    except psycopg.errors.UndefinedTable:
        raise BundleError(f"{place}: the store has gone; make it again with: edgeleaf index") from None
    except psycopg.OperationalError as error:
        raise BundleError(f"{place}: cannot be reached: {reason_without(url, error)}") from None
    except (psycopg.Error, UnicodeError, ValueError) as error:
        what = "cannot be written" if writing else "cannot be read"
        raise BundleError(f"{place}: {what}: {reason_without(url, error)}") from None


def scalar(connection: Any, select: str) -> Any:
    return connection.execute(select).fetchone()[0]


def has_store(connection: Any, place: str) -> bool:
    """Return whether the connection's schema has a store; raise BundleError if its tables are somebody else's."""
    found = dict(connection.execute(_FOUND, (list(_OWN),)).fetchall())
    for name, columns in _OWN.items() if found else ():
        if not columns <= {*found.get(name, ())}:
            other = next(iter(found))
            schema = scalar(connection, "select current_schema()::text")
            raise BundleError(
                f"{place}: the schema {shown(schema)} has a table {other} that is not a store's; give another schema: "
                "?options=-csearch_path%3DNAME"
            )
    return bool(found)


def read_record(connection: Any, place: str) -> tuple[Layout, Columns]:
    """Return what a store says of itself."""
    row = connection.execute("select value, bytes from edgeleaf_store where name = 'record'").fetchone()
    record, axes = row or (None, None)
    return Layout.read(record, None if axes is None else bytes(axes), place)
