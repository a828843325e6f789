"""tokenizers and onnxruntime by hand, as an expert writes it in ten lines, on a processor or a GPU."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

SHAPES = {"min": "1x4", "opt": "1x16", "max": "32x128"}
SETTINGS: dict[str, dict[str, Any]] = {
    # Engines for all shapes are built at once and kept; otherwise each new shape would be built while the clock runs.
    "TensorrtExecutionProvider": {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(Path(tempfile.gettempdir()) / "edgeleaf-bench-engines"),
        **{f"trt_profile_{key}_shapes": f"input_ids:{s},attention_mask:{s}" for key, s in SHAPES.items()},
    }
}


def load(path: str, *, threads: int, prompt: str, provider: str = "CPUExecutionProvider") -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if provider != "CPUExecutionProvider":
        onnxruntime.preload_dlls()
    if provider == "TensorrtExecutionProvider":
        import tensorrt  # noqa: F401  # it loads the libraries that the provider needs
    chosen = (provider, SETTINGS.get(provider, {}))
    session = onnxruntime.InferenceSession(str(Path(path) / "onnx" / "model.onnx"), options, providers=[chosen])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} is not there; onnxruntime took {session.get_providers()[0]}")
    names = {entry.name for entry in session.get_inputs()}
    tokenizer = Tokenizer.from_file(str(Path(path) / "tokenizer.json"))

    def encode(texts: list[str]) -> Any:
        found = tokenizer.encode_batch([prompt + text for text in texts])
        given = {
            "input_ids": np.array([encoding.ids for encoding in found], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask for encoding in found], dtype=np.int64),
        }
        if "token_type_ids" in names:
            given["token_type_ids"] = np.zeros_like(given["input_ids"])
        return session.run(None, given)[0]

    return encode
