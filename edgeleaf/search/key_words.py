"""Key words of texts by BM25, in memory (bm25s, extra ``stores``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_WORD = r"(?u)\b\w+\b"


class KeyWords:
    """Scores of texts by BM25, in memory."""

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        self._count = len(texts)
        tokens = bm25s.tokenize(list(texts), token_pattern=_WORD, stopwords=None, show_progress=False)
        self._known = bool(tokens.vocab)
        self._index = bm25s.BM25()
        if self._known:
            self._index.index(tokens, show_progress=False)

    def scores(self, text: str) -> npt.NDArray[np.float32]:
        """Return the score of every text, float32 [n]; 0 where no word occurs."""
        import bm25s

        found = bm25s.tokenize([text], token_pattern=_WORD, stopwords=None, return_ids=False, show_progress=False)[0]
        if not found or not self._known:
            return np.zeros(self._count, np.float32)
        return np.asarray(self._index.get_scores(found), np.float32)
