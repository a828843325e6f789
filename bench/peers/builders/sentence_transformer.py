"""sentence-transformers' own ONNX export, by optimum: ``python sentence_transformer.py MODEL TARGET [KIND]``.

KIND is ``O3`` or a configuration of the dynamic quantisation, such as ``avx512_vnni``; without it, plain float32.
"""

import sys
from pathlib import Path

from sentence_transformers import (
    SentenceTransformer,
    export_dynamic_quantized_onnx_model,
    export_optimized_onnx_model,
)

folder, target, *kinds = sys.argv[1:]
arguments = {"provider": "CPUExecutionProvider", "export": True}
model = SentenceTransformer(folder, backend="onnx", model_kwargs=arguments, local_files_only=True)
model.save_pretrained(target)
for kind in kinds:
    if kind == "O3":
        export_optimized_onnx_model(model, "O3", target)
    else:
        export_dynamic_quantized_onnx_model(model, kind, target)
    (Path(target) / "onnx" / "model.onnx").unlink()
