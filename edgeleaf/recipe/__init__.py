"""Descriptions of what to build: recipes, their sources of texts, and presets."""
