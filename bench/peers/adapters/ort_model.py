"""optimum's ORTModelForFeatureExtraction and transformers' tokenizer, the rest by hand."""

from pathlib import Path
from typing import Any

import onnxruntime
from head import Head
from optimum.onnxruntime import ORTModelForFeatureExtraction
from transformers import AutoTokenizer


def load(path: str, *, threads: int, prompt: str, file: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = ORTModelForFeatureExtraction.from_pretrained(
        path,
        subfolder=str(Path(file).parent),
        file_name=Path(file).name,
        provider="CPUExecutionProvider",
        session_options=options,
        local_files_only=True,
    )
    head = Head(Path(path))

    def encode(texts: list[str]) -> Any:
        given = tokenizer([prompt + text for text in texts], padding=True, truncation=True, return_tensors="np")
        return head(model(**given).last_hidden_state, given["attention_mask"])

    return encode
