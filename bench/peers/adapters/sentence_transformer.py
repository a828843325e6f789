"""sentence-transformers on onnxruntime, or on a GPU in half precision."""

from typing import Any

import torch
from sentence_transformers import SentenceTransformer


def load(path: str, *, threads: int, prompt: str, file: str = "", device: str = "cpu", dtype: str = "float32") -> Any:
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    if file:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        arguments = {"file_name": file, "provider": "CPUExecutionProvider", "session_options": options}
        model = SentenceTransformer(path, backend="onnx", device=device, local_files_only=True, model_kwargs=arguments)
    else:
        arguments = {"dtype": getattr(torch, dtype)}
        model = SentenceTransformer(path, device=device, local_files_only=True, model_kwargs=arguments)
    return lambda texts: model.encode(texts, prompt=prompt, show_progress_bar=False)
