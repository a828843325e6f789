"""Finds a model's local folder by its name, and loads the model."""
