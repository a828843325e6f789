"""Writes tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Return a table; the first ``left`` columns are aligned left, the others, which are numbers, right."""
    rule = "|" + "---|" * left + "---:|" * (len(columns) - left)
    head, *lines = (f"| {' | '.join(row)} |" for row in (columns, *rows))
    return "\n".join([head, rule, *lines])
