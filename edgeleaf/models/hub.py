"""Models from the Hugging Face hub and its cache."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from edgeleaf.errors import MissingExtra, ModelError
from edgeleaf.models.weights import weight_files
from edgeleaf.models.wheels import CARRIED, KEPT_SUFFIXES

_NETWORK = frozenset(
    {
        "builtins.ConnectionError",
        "builtins.TimeoutError",
        "aiohttp.ClientError",
        "fsspec.FSTimeoutError",
        "httpcore.NetworkError",
        "httpcore.TimeoutException",
        "httpx.TransportError",
        "huggingface_hub.HfHubHTTPError",
        "huggingface_hub.LocalEntryNotFoundError",
        "requests.RequestException",
        "urllib3.HTTPError",
    }
)
OTHER_RUNTIMES = {"onnx", "openvino", "coreml", "tf", "tflite", "flax", "gguf"}


def error_kinds(error: BaseException) -> set[str]:
    """Return the names of an error's class and its base classes, as ``package.Class``, without importing the packages.

    huggingface_hub 2 brings httpx and httpcore under the new names httpx2 and httpcore2; the digit is removed.
    """
    return {f"{kind.__module__.partition('.')[0].rstrip('2')}.{kind.__name__}" for kind in type(error).__mro__}


def is_network_error(error: BaseException) -> bool:
    """Return whether an error is the fault of the network or the hub, and not of the request."""
    return bool(error_kinds(error) & _NETWORK)


def _offline() -> bool:
    import huggingface_hub.constants

    switches = (os.environ.get(switch, "") for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    on = any(value.strip().lower() in {"1", "on", "yes", "true"} for value in switches)
    return on or bool(huggingface_hub.constants.HF_HUB_OFFLINE)


def from_hub_cache(model: str, revision: str | None) -> Path | None:
    """Return a snapshot from the hub's cache, without network; None if weights that its indexes name are missing."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise MissingExtra("fetching models needs huggingface_hub: pip install 'edgeleaf[distill]'") from error
    try:
        folder = Path(snapshot_download(model, revision=revision, local_files_only=True))
        complete = (folder / "config.json").is_file() or (folder / "modules.json").is_file()
        return folder if complete and weight_files(folder) else None
    except (LocalEntryNotFoundError, ModelError):
        return None


def from_hub(model: str, revision: str | None) -> Path:
    """Download only the files that sentence-transformers loads, into the hub's cache; return the folder.

    Raises:
        ModelError: the hub cannot be reached or has no such model or revision, or access to the model is denied.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    at = f" at revision {revision!r}" if revision else ""
    no_hub = f"without a revision, these models need no hub: {', '.join(sorted(CARRIED))}"
    if _offline():
        raise ModelError(
            f"model {model!r}{at} is not on this machine and the hub may not be reached (HF_HUB_OFFLINE is set): "
            f"unset it or give a local folder ({no_hub})"
        )
    try:
        info = HfApi().model_info(model, revision=revision, timeout=10)
        wanted = _wanted_files(sibling.rfilename for sibling in info.siblings or ())
        return Path(snapshot_download(model, revision=revision, allow_patterns=wanted))
    except GatedRepoError as error:
        raise ModelError(f"model {model!r} is gated: accept its terms on the hub, then set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"the hub has no model {model!r}, or it is private: check the name or set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"model {model!r} has no revision {revision!r} on the hub: check it or leave it out"
        ) from error
    except Exception as error:
        if not (isinstance(error, OSError) or is_network_error(error)):
            raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise ModelError(
                f"model {model!r}: no space left in the hub's cache: set HF_HOME to a larger disk"
            ) from error
        kind = type(error).__name__
        raise ModelError(
            f"model {model!r}{at} is not on this machine and the hub could not be reached ({kind}): "
            f"check the network, set HF_ENDPOINT or give a local folder ({no_hub})"
        ) from error


def _wanted_files(names: Iterable[str]) -> list[str]:
    """Select configurations, tokenizers, cards and, in each folder, safetensors or otherwise pytorch_model.bin."""
    paths = [PurePosixPath(name) for name in names]
    paths = [path for path in paths if not OTHER_RUNTIMES & set(path.parts[:-1])]
    safe = {path.parent for path in paths if path.suffix == ".safetensors"}
    return [
        str(path)
        for path in paths
        if (path.suffix in KEPT_SUFFIXES and not (path.parent in safe and path.name.startswith("pytorch_model")))
        or (path.suffix == ".bin" and path.name.startswith("pytorch_model") and path.parent not in safe)
    ]
