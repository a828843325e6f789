"""A bundle as txtai's vectors: queries by the fused file, data by the teacher.

    from txtai import Embeddings

    embeddings = Embeddings(method="edgeleaf.integrations.txtai.EdgeleafVectors", path="out/mpnet")

An index that txtai has saved names this class, so that ``Embeddings.load`` finds it again.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from edgeleaf.errors import InputError
from edgeleaf.extras import no_framework
from edgeleaf.integrations.sides import Sides
from edgeleaf.records import shown

try:
    from txtai.vectors import Vectors
except ImportError as error:
    raise no_framework(error, extra="txtai") from None


class EdgeleafVectors(Vectors):  # type: ignore[misc]
    """A bundle behind txtai's ``Vectors``.

    txtai makes it from a configuration: ``method`` is the name of this class, ``path`` a bundle folder, which is opened
    with the first text, and ``vectors={"threads": 2}`` the processor threads of the fused file.
    """

    def loadmodel(self, path: str) -> str:
        """Return the path; txtai would hide an error raised here."""
        return path

    def encode(self, data: list[str], category: str | None = None) -> npt.NDArray[np.float32]:
        """Encode texts; float32 [n, dim], unit L2 norm.

        Args:
            data: texts.
            category: ``data`` for what is indexed; anything else is a query.

        Raises:
            BundleError: no such bundle, or a damaged one.
            ModelError, MissingExtra: the teacher cannot be opened here.
            InputError: no path, or settings that a bundle does not have.
        """
        return self._sides.documents(data) if category == "data" else self._sides.queries(data)

    @cached_property
    def _sides(self) -> Sides:
        if self.instructions:
            raise InputError("the configuration has instructions; the bundle has its own prompts: leave them out")
        settings = dict(self.config.get("vectors") or {})
        threads = settings.pop("threads", 1)
        if settings:
            raise InputError(f"vectors has {', '.join(map(shown, settings))}; edgeleaf knows threads")
        return Sides(self.config.get("path"), threads=threads)
