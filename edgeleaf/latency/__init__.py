"""Latency from the string; each system runs in processes of its own."""
