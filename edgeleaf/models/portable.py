"""A student's folder in the form that every sentence-transformers reads, and text-embeddings-inference with it.

sentence-transformers 5.4 began to write other names for its modules and a list of pooling modes. Versions before it
cannot read these, nor can programs that read the folder themselves; all versions read the older form.
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
"""Pooling modes, in the order in which the older form joins them, and their keys there."""
_DENSE = ("in_features", "out_features", "bias", "activation_function")
_OF_THIS_MACHINE = ("is_local", "local_files_only", "name_or_path", "backend")


def make_portable(folder: Path, *, max_length: int) -> None:
    """Rewrite a saved model's configuration in the older form. Its vectors stay the same.

    Several pooling modes are joined in one fixed order there. Where the model joins them in another one, the columns
    of the projection behind them change places.

    Args:
        folder: a model as sentence-transformers saved it, of Transformer, Pooling, Dense and Normalize.
        max_length: its window in tokens.

    Raises:
        ModelError: its poolings would have to change places, and no projection follows them.
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
        return  # in the older form already
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
    """Bring the blocks of a projection's columns into another order."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(weights)
    blocks = np.split(tensors["linear.weight"], len(order), axis=1)
    tensors["linear.weight"] = np.ascontiguousarray(np.concatenate([blocks[at] for at in order], axis=1))
    save_file(tensors, weights, {"format": "pt"})


def _forget_this_machine(path: Path) -> None:
    if path.is_file():
        write_json(path, {key: value for key, value in read_json(path).items() if key not in _OF_THIS_MACHINE})
