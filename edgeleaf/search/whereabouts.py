"""Where the files of a folder store are, also while another state takes their place; and what tells states apart."""

from __future__ import annotations

from pathlib import Path

from edgeleaf.errors import BundleError
from edgeleaf.files import file_state
from edgeleaf.search.header import BITS, DOCUMENTS, HEADER, VECTORS


def lasting(place: str) -> str:
    """Return a folder's name; with its own instead of ``.`` or ``..``, which would soon mean another folder.

    Raises:
        BundleError: the working directory is gone, as after a store in it was written.
    """
    try:
        return place if Path(place).name not in ("", "..") else str(Path(place).resolve())
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{place}: the index cannot be opened: {reason}; enter the folder again") from None


def folders_of(place: str) -> list[Path]:
    """Return a store's folder, and the one where its files are while another state takes their place."""
    folder = Path(lasting(place))
    return [folder, folder.with_name(f".{folder.name}.old")] if folder.name else [folder]


def state_of(place: str) -> object:
    """Return what tells the files at a place from others; None if there are none."""
    for path in folders_of(place):
        if header := file_state(path / HEADER):
            return header, *(file_state(path / name) for name in (VECTORS, BITS, DOCUMENTS))
    return None
