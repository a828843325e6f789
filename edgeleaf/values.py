"""Plain values of documents' metadata: what a store keeps in a column and a filter compares. Needs only Python."""

from __future__ import annotations

import math

from edgeleaf.errors import InputError

Value = str | int | float | bool
MOST_WHOLE = 2**63 - 1


def as_value(value: object) -> Value | None:
    """Return a plain value as stores keep it, None for one that says nothing.

    Raises:
        InputError: a list, a table or another object.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, int):
        return value if abs(value) <= MOST_WHOLE else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise InputError(f"a value of type {type(value).__name__}; a text, a number, true or false is needed")
