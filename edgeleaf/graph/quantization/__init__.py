"""Convert float32 graphs to int8, int4 and float16."""
