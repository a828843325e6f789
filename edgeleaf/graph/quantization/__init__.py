"""Convert float32 graphs to int8, int4, weights of 8 or 4 bits, and float16."""
