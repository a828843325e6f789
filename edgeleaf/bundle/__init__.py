"""What ships: manifest, encoder, golden pack. Needs numpy and onnxruntime only."""
