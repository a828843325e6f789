"""The ONNX graph: exported, simplified, quantised, fused with its tokenizer."""
