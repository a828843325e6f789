"""Bundles on the Hugging Face hub: fetched into the hub's own cache, and what went wrong in one line.

Only the manifest, the encoder, the certificate and ``config.json`` are fetched; the hub counts downloads by the last
one. Once fetched, a bundle loads without the network.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeleaf.bundle.manifest import CERTIFICATE, MANIFEST, QUERY_ENCODER
from edgeleaf.errors import BundleError, EdgeleafError, MissingExtra, reason_of
from edgeleaf.places import without_password
from edgeleaf.records import shown

CONFIG = "config.json"
FETCHED = (MANIFEST, QUERY_ENCODER, CERTIFICATE, CONFIG)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
"""``owner/name``."""
_UNREACHABLE = frozenset({"TransportError", "ConnectionError", "TimeoutError", "RequestException", "ReadTimeout"})
_NOT_CACHED = frozenset({"LocalEntryNotFoundError", "OfflineModeIsEnabled", "IncompleteSnapshotError"})


def fetch(name: str, *, revision: str | None = None) -> Path:
    """Return the folder of a bundle in the hub's cache, fetched before if the hub has another state of it.

    If the hub cannot be reached, the state that was fetched last is used. Hashes are not checked here: whoever opens
    the encoder does that.

    Args:
        name: ``owner/name``.
        revision: branch, tag or commit; None means the main branch. A commit that is in the cache needs no network.

    Raises:
        BundleError: the hub has no such bundle or revision, or it is neither in reach nor in the cache.
        MissingExtra: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtra(
            f"{name}: no such file or folder; to fetch a bundle of that name from the hub, install huggingface_hub: "
            "pip install 'edgeleaf[hub]'"
        ) from None
    with one_line(f"{name} is not on this machine", name, revision=revision), quietly():
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(FETCHED)))
        if not (folder / MANIFEST).is_file():
            raise BundleError(f"{name} on the hub is not a bundle: it has no {MANIFEST}; edgeleaf push writes one")
    return folder


@contextmanager
def one_line(what: str, name: str, *, revision: str | None = None) -> Iterator[None]:
    """Turn the hub's, the network's and the disk's errors into a BundleError of one line, without any token.

    Args:
        what: the beginning of the line.
        name: ``owner/name``.
        revision: the one that was asked for.
    """
    try:
        yield
    except EdgeleafError:
        raise
    except Exception as error:
        line = _line(error, name, revision)
        if line is None:
            raise
        # Without the cause: its request holds the token, and some tools print what an error holds.
        raise BundleError(f"{what}: {_without_token(line)}") from None


def check_online(what: str) -> None:
    """Raise BundleError, whose message begins with ``what``, if the environment keeps huggingface_hub from the hub."""
    if _offline():
        raise BundleError(f"{what}: HF_HUB_OFFLINE is set; unset it")
    if fault := _endpoint_fault():
        raise BundleError(f"{what}: {fault}")


def _endpoint_fault() -> str:
    """Return what is wrong with HF_ENDPOINT; nothing if it is a URL, or not set."""
    from huggingface_hub import constants

    endpoint = str(constants.ENDPOINT)
    if re.match(r"https?://[^/\s]", endpoint):
        return ""
    return f"HF_ENDPOINT is {shown(without_password(endpoint))}; a URL such as https://hub.example.org is needed"


def _line(error: BaseException, name: str, revision: str | None) -> str | None:
    """Return what an error means for the user; None for a fault that is nobody's input."""
    chain = list(_causes(error))
    kinds = {kind.__name__ for part in chain for kind in type(part).__mro__}
    statuses = (getattr(getattr(part, "response", None), "status_code", None) for part in chain)
    status = next((status for status in statuses if isinstance(status, int)), None)
    if "GatedRepoError" in kinds:
        return f"{name} is gated: accept its terms on the hub, then set HF_TOKEN"
    if "RevisionNotFoundError" in kinds:
        return f"{name} has no revision {revision!r} on the hub; check it, or leave it out"
    if status == 401 or "RepositoryNotFoundError" in kinds:
        return f"the hub has no {name}, or you may not see or change it; check the name, and the token in HF_TOKEN"
    if status == 403:
        return f"the hub answered 403: your token may not do this to {name}; use one that may write there"
    if status in (409, 412):
        return f"the hub answered {status}: somebody else is changing {name}; repeat the command"
    if status == 400:
        return f"the hub answered 400: {reason_of(error)}"
    if status is not None:
        again = "try again later" if status >= 500 or status == 429 else "check the name and your rights"
        return f"the hub answered {status}; {again}"
    if "HFValidationError" in kinds:
        return f"{name} is not a name that the hub allows; give owner/name"
    if kinds & (_NOT_CACHED | _UNREACHABLE) and not _offline() and (fault := _endpoint_fault()):
        return fault
    if kinds & _NOT_CACHED:
        if _offline():
            return "it is not in the hub's cache, and HF_HUB_OFFLINE is set; unset it, or give a local folder"
        return "the hub cannot be reached, and its cache does not have it; check the network, or set HF_ENDPOINT"
    if kinds & _UNREACHABLE:
        return f"the connection to the hub failed ({type(chain[-1]).__name__}); check the network, and repeat it"
    if "JSONDecodeError" in kinds:
        return "the answer is not one of the hub's; check HF_ENDPOINT"
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            return "no space left in the hub's cache; set HF_HOME to a larger disk"
        return reason_of(error)
    if isinstance(error, ValueError):  # metadata of the card, or an answer, that cannot be used
        return reason_of(error)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from."""
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__


def _without_token(line: str) -> str:
    """Return a line without the user's token, should a server have repeated it."""
    from huggingface_hub import get_token

    token = get_token()
    return line.replace(token, "…") if token else line


def _offline() -> bool:
    """Return whether huggingface_hub was told not to use the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@contextmanager
def quietly() -> Iterator[None]:
    """Keep huggingface_hub's progress bars, and its warnings about each attempt, from standard error."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    log = logging.getLogger("huggingface_hub")
    level, bars = log.level, not are_progress_bars_disabled()
    log.setLevel(logging.ERROR)
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        log.setLevel(level)
        if bars:
            enable_progress_bars()
