"""Stores of documents encoded by the teacher, searched by queries of the student: one vector space."""

from edgeleaf.search.index import Index
from edgeleaf.search.passages import Hit
from edgeleaf.search.pca import apply_pca, fit_pca
from edgeleaf.search.stores import open_store

__all__ = ["Hit", "Index", "apply_pca", "fit_pca", "open_store"]
