"""What a search asks of PostgreSQL: a filter as a condition, key words, how far a graph is followed."""

from __future__ import annotations

from typing import Any

from edgeleaf.search.filters import Every, Filter, Null, Some
from edgeleaf.search.postgresql_tables import BLANKS

_FOLLOWED = 100
"""Candidates that are followed in the graph (hnsw.ef_search), unless more hits are wanted; 1,000 at most."""
_WORDS = 64
_ASKED = 100_000
"""Characters of a query that are searched for key words."""
_BEST = """
with
    asked as materialized (
        select phraseto_tsquery('simple', lexeme) as query from (
            select lexeme from unnest(to_tsvector('simple', %s)) order by positions[1] limit {words}) as first),
    counted as materialized (
        select query, (select count(*) from edgeleaf_passages where words @@ query) as n
        from asked where numnode(query) > 0),
    weighed as materialized (
        select query, ln(1 + ((select count(*) from edgeleaf_passages) - n + 0.5) / (n + 0.5)) as weight
        from counted where n > 0)
select id, text, sum(weight * ts_rank(words, query, 1)) as score, document, metadata, row
from weighed join edgeleaf_passages on words @@ query
where {where} group by row order by score desc, row limit %s
"""
HAS_GRAPH = "select count(*) from pg_class where oid = to_regclass('edgeleaf_passages_hnsw')"


def follow(connection: Any, count: int | None) -> None:
    """Set how far a search follows the graph; None, or more than it can give, compares all rows instead."""
    graph = count is not None and count <= 1000
    connection.execute(f"set local enable_indexscan = {'on' if graph else 'off'}")
    if graph:
        connection.execute(f"set local hnsw.ef_search = {max(_FOLLOWED, int(count or 0))}")
        connection.execute("set local hnsw.iterative_scan = strict_order")


def best_by_words(text: str, k: int, where: Filter | None) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that finds the k best passages by key words, and the values that are bound to it."""
    condition, values = condition_of(where)
    return _BEST.format(where=condition, words=_WORDS), (text[:_ASKED].translate(BLANKS), *values, k)


def condition_of(condition: Filter | None) -> tuple[str, list[Any]]:
    """Return a condition of SQL, and the values that are bound to it; None allows every row."""
    if condition is None:
        return "true", []
    if isinstance(condition, (Every, Some)):
        parts = [condition_of(part) for part in condition.parts]
        word = " and " if isinstance(condition, Every) else " or "
        return f"({word.join(text for text, _ in parts)})", [one for _, values in parts for one in values]
    column = condition.column
    if isinstance(condition, Null):
        return f"{'' if condition.negated else 'not '}jsonb_exists(metadata, %s)", [column]
    kind = {"text": "string", "number": "number", "boolean": "boolean"}[condition.kind]
    cast = {
        "text": '(metadata ->> %s) collate "C"',
        "number": "(metadata ->> %s)::numeric",
        "boolean": "(metadata ->> %s)::boolean",
    }[condition.kind]
    given: list[Any] = list(condition.values)
    sign: str = condition.sign
    if condition.kind == "text":  # PostgreSQL's texts have no U+0000, so no document's has one
        whole = [value for value in given if "\0" not in value]
        if sign not in ("=", "!=") and not whole:
            given, sign = [given[0].partition("\0")[0]], {"<": "<=", ">=": ">"}.get(sign, sign)
        elif whole != given:
            given = whole or [None]
            if whole == [] and sign == "!=":
                return f"(case when jsonb_typeof(metadata -> %s) = '{kind}' then true end)", [column]
    test = f"{sign} %s"
    if sign in ("=", "!="):
        test = f"{'in' if sign == '=' else 'not in'} ({', '.join(['%s'] * len(given))})"
    # A case, because the server may otherwise cast before it looks at the type.
    return f"(case when jsonb_typeof(metadata -> %s) = '{kind}' then {cast} {test} end)", [column, column, *given]
