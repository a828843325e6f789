"""Texts: reading, cutting, sampling; collections and pairs."""
