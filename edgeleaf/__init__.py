"""edgeleaf: text in, teacher-space vector out, in one certified ONNX file."""
