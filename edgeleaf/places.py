"""Places of stores: a folder, or a URL whose password is never shown. Needs only Python."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from edgeleaf.errors import InputError, reason_of

_KIND = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_ALMOST = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")
"""A URL with one slash too few; a drive of Windows has one letter."""
_USER = re.compile(r"^([\w+.-]+:/+[^:@/?#]*:)(.*)@", re.DOTALL)
"""Up to the last @, so that a password with characters that must be escaped is hidden too."""
_GIVEN = re.compile(r"(?i)([?&](?:\w*password|token)=)([^&#]*)")
HIDDEN = "***"
SHORT = 4
"""A shorter password occurs inside other words too."""


def kind_of(place: str) -> str:
    """Return the part of a place before ``://`` in lower case; ``folder`` for a plain path."""
    found = _KIND.match(place)
    return found[1].lower() if found else "folder"


def named(place: str | Path) -> str:
    """Return the place of a store as a text, a URL's kind in lower case.

    Raises:
        InputError: it is empty, neither a text nor a path, or a URL with one slash too few.
    """
    if not isinstance(place, (str, Path)) or not str(place):
        what = "empty" if place == "" else type(place).__name__
        raise InputError(f"the place of a store is {what}; give a folder, or a URL such as sqlite:///docs.db")
    if found := _ALMOST.match(str(place)):
        raise InputError(
            f"{found[1]}:/…: a slash is missing; write {found[1]}://… for a URL, ./{found[1]}:… for a folder"
        )
    kind, mark, rest = str(place).partition("://")
    return f"{kind.lower()}{mark}{rest}" if _KIND.match(str(place)) else str(place)


def without_password(place: str) -> str:
    """Return a place with ``***`` for its password.

    Example:
        >>> without_password("postgresql://me:secret@host/docs")
        'postgresql://me:***@host/docs'
    """
    if kind_of(place) == "folder" and not _ALMOST.match(place):
        return place
    return _GIVEN.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1{HIDDEN}@", place))


def reason_without(place: str, error: BaseException) -> str:
    """Return an error's reason as one line in which the password of a place does not occur."""
    secrets = [found[2]] if (found := _USER.match(place)) else []
    secrets += [secret for _, secret in _GIVEN.findall(place)]
    text = str(error)
    found_in = sorted({one for part in secrets for one in (part, unquote(part)) if one}, key=len, reverse=True)
    if found_in and len(found_in[-1]) < SHORT and found_in[-1] in text:
        return f"{type(error).__name__} (its words are left out, since a password this short may be part of any)"
    for secret in found_in:
        text = text.replace(secret, HIDDEN)
    return reason_of(text)


def check_password(place: str) -> None:
    """Raise InputError for a password that a driver would read as other parts of the URL, and so might print."""
    found = _USER.match(place)
    if found and (re.search(r"[/?#@\s]", found[2]) or re.search(r"%(?![0-9A-Fa-f]{2})", found[2])):
        raise InputError(
            f"{without_password(place)}: the password has a character that must be escaped in a URL; "
            "write / as %2F, ? as %3F, # as %23, @ as %40, % as %25, a space as %20"
        )
