"""A model's name to a local folder, and loading it."""
