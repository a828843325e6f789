"""Tells an encoder's architecture from its folder, without loading it."""

from __future__ import annotations

import json
from pathlib import Path


def encoder_kind(folder: Path) -> str | None:
    """Return transformers' name of the architecture in a model's folder (``model_type``), such as ``bert``.

    None: there is no config that names one.
    """
    for path in (folder / "config.json", *sorted(folder.glob("*/config.json"))):
        try:
            kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(kind, str):
            return kind
    return None
