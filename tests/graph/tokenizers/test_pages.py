"""Tables by pages: the pages that are kept."""

from __future__ import annotations

import numpy as np
import pytest

from edgeleaf.graph.tokenizers.pages import different


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_different_pages_are_those_of_numpy(kind: type) -> None:
    pages = np.random.default_rng(0).integers(-2, 2, (500, 3)).astype(kind)
    kept, first, which = np.unique(pages, axis=0, return_index=True, return_inverse=True)
    found, places = different(pages)
    np.testing.assert_array_equal(found, first)
    np.testing.assert_array_equal(places, which.ravel())
    np.testing.assert_array_equal(pages[found][places], pages)
    assert len(kept) < len(pages)
