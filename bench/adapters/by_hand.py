"""tokenizers and onnxruntime by hand: what an expert writes in ten lines."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


def load(path: str, *, threads: int, prompt: str, provider: str = "CPUExecutionProvider") -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(Path(path) / "onnx" / "model.onnx"), options, providers=[provider])
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
