"""Latency from the string, each system in processes of its own."""
