"""The asymmetric index: documents encoded by the teacher, queries by the student, one vector space."""

from edgeleaf.search.index import Hit, Index

__all__ = ["Hit", "Index"]
