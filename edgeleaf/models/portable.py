"""Converts a student's folder to the form that text-embeddings-inference and all sentence-transformers can read.

Since 5.4, sentence-transformers writes different names for its modules and a list of pooling modes. Neither older
versions nor programs that read the folder themselves can read these; all versions read the older form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeleaf.errors import ModelError
from edgeleaf.files import write_json
from edgeleaf.records import read_json

POOLING = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
"""Pooling modes, in the order in which the older form joins them, and their keys in that form."""
_DENSE = ("in_features", "out_features", "bias", "activation_function")
_OF_THIS_MACHINE = ("is_local", "local_files_only", "name_or_path", "backend")


def make_portable(folder: Path, *, max_length: int) -> None:
    """Rewrite a saved model's configuration in the older form. Its vectors do not change.

    The older form joins several pooling modes in one fixed order. If the model joins them in another order, the columns
    of the projection behind them are reordered.

    Args:
        folder: a model saved by sentence-transformers, with Transformer, Pooling, Dense and Normalize.
        max_length: its window in tokens.

    Raises:
        ModelError: its poolings would have to be reordered, but no projection follows them.
    """
    modules = read_json(folder / "modules.json")
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    for module, kind in zip(modules, kinds, strict=True):
        module["type"] = f"sentence_transformers.models.{kind}"
        place = folder / module["path"]
        if kind == "Transformer":
            write_json(place / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
            _forget_this_machine(place / "tokenizer_config.json")
        elif kind == "Dense":
            settings = read_json(place / "config.json")
            write_json(place / "config.json", {key: settings[key] for key in _DENSE})
        elif kind == "Normalize":
            (place / "config.json").unlink(missing_ok=True)
    write_json(folder / "modules.json", modules)
    if "Pooling" in kinds:
        at = kinds.index("Pooling")
        dense = folder / modules[at + 1]["path"] if kinds[at + 1 : at + 2] == ["Dense"] else None
        _rewrite_pooling(folder / modules[at]["path"] / "config.json", dense)


def _rewrite_pooling(path: Path, dense: Path | None) -> None:
    settings: dict[str, Any] = read_json(path)
    if "pooling_mode" not in settings:
        return  # already in the older form
    modes = [settings["pooling_mode"]] if isinstance(settings["pooling_mode"], str) else list(settings["pooling_mode"])
    ordered = sorted(modes, key=list(POOLING).index)
    if ordered != modes:
        if dense is None:
            raise ModelError(
                f"{path.parent}: its poolings are joined as {', '.join(modes)}, which only sentence-transformers 5.4 "
                f"and newer can do; give them as {', '.join(ordered)}"
            )
        _reorder(dense / "model.safetensors", [modes.index(mode) for mode in ordered])
    write_json(
        path,
        {"word_embedding_dimension": settings["embedding_dimension"]}
        | {key: mode in modes for mode, key in POOLING.items()}
        | {"include_prompt": settings.get("include_prompt", True)},
    )


def _reorder(weights: Path, order: list[int]) -> None:
    """Reorder the blocks of a projection's columns."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(weights)
    blocks = np.split(tensors["linear.weight"], len(order), axis=1)
    tensors["linear.weight"] = np.ascontiguousarray(np.concatenate([blocks[at] for at in order], axis=1))
    save_file(tensors, weights, {"format": "pt"})


def _forget_this_machine(path: Path) -> None:
    if path.is_file():
        write_json(path, {key: value for key, value in read_json(path).items() if key not in _OF_THIS_MACHINE})
