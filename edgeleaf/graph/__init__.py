"""The ONNX graph: how it is exported, simplified, quantised and fused with its tokenizer."""
