"""The asymmetric index: documents encoded by the teacher, queries by the student, one vector space."""

from edgeleaf.search.index import Hit, Index
from edgeleaf.search.pca import apply_pca, fit_pca

__all__ = ["Hit", "Index", "apply_pca", "fit_pca"]
