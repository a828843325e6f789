"""Turns texts into what an encoder needs: a list of strings, each an exact ``str`` of valid Unicode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from edgeleaf.errors import InputError


def exact_strings(texts: Any) -> list[str]:
    """Return texts as a list of exact ``str``.

    Args:
        texts: a list, a tuple, an iterator, or a column of a table with one dimension (numpy, pandas, polars, pyarrow)
            whose elements are strings. For an element of a subclass of ``str`` its own characters count, whatever its
            ``__str__`` returns.

    Raises:
        InputError: one string instead of several, something that has no order or several columns (a mapping, a set, a
            data frame), or an element that is not a string or holds half a surrogate pair; the message gives its place.
    """
    kind = type(texts).__name__
    if isinstance(texts, (str, bytes, bytearray)):
        raise InputError(f"encode got one {kind}; a list of strings is needed: encode([text])")
    if isinstance(texts, (Mapping, Set)):
        raise InputError(f"encode got a {kind}; a list of strings is needed, in the order of the vectors")
    dimensions = getattr(texts, "ndim", 1)
    if dimensions != 1:
        raise InputError(f"encode got a {kind} of {dimensions} dimensions; a list of strings is needed, or one column")
    for name in ("to_pylist", "tolist", "to_list"):  # pyarrow; numpy, pandas; polars
        convert = getattr(texts, name, None)
        if callable(convert):
            texts = convert()
            break
    if not isinstance(texts, (Sequence, Iterator)):
        raise InputError(f"encode got {kind}; a list of strings is needed")
    return [_exact(text, place) for place, text in enumerate(texts)]


def _exact(text: Any, place: int) -> str:
    if not isinstance(text, str):
        raise InputError(f"text {place} is {type(text).__name__}; every text must be a string")
    exact = str.__str__(text)
    if exact.isascii():
        return exact
    try:
        exact.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"text {place} holds half a surrogate pair, which is not text; decode it with errors='replace' first"
        ) from None
    return exact
