"""The layers after the trunk of a sentence-transformers model, in numpy: pooling, projection, unit norm."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file


class Head:
    """Reads ``modules.json`` of ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.modes: list[str] = []
        self.layers: list[tuple[Any, Any]] = []
        for module in json.loads((folder / "modules.json").read_text(encoding="utf-8"))[1:]:
            part = folder / module["path"]
            kind = module["type"].rsplit(".", 1)[-1]
            if kind == "Pooling":
                self.modes = _modes(json.loads((part / "config.json").read_text(encoding="utf-8")))
            elif kind == "Dense":
                config = json.loads((part / "config.json").read_text(encoding="utf-8"))
                if not config.get("activation_function", "").endswith("Identity"):
                    raise ValueError(f"{folder}: a projection with {config.get('activation_function')}")
                weights = load_file(part / "model.safetensors")
                weight = weights["linear.weight"].astype(np.float32)
                bias = weights.get("linear.bias", np.zeros(len(weight))).astype(np.float32)
                self.layers.append((np.ascontiguousarray(weight.T), bias))
            elif kind != "Normalize":
                raise ValueError(f"{folder}: {kind} is not known here")

    def __call__(self, tokens: Any, mask: Any) -> Any:
        """Turn float32 [n, sequence, width] and a mask [n, sequence] into unit vectors, float32 [n, dim]."""
        weights = mask[:, :, None].astype(np.float32)
        pooled = {"cls": tokens[:, 0], "mean": (tokens * weights).sum(1) / weights.sum(1)}
        rows = np.concatenate([pooled[mode] for mode in self.modes], axis=1)
        for weight, bias in self.layers:
            rows = rows @ weight + bias
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _modes(config: dict[str, Any]) -> list[str]:
    """Return the poolings in an old or new config of sentence-transformers, in the order in which it joins them."""
    if "pooling_mode" in config:
        found = config["pooling_mode"]
        return list(found) if isinstance(found, (list, tuple)) else [found]
    names = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    asked = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    if unknown := set(asked) - set(names):
        raise ValueError(f"pooling by {', '.join(sorted(unknown))} is not known here")
    return [mode for key, mode in names.items() if key in asked]
