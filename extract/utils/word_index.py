"""BM25's index of words, from bm25s."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bm25s import BM25


def bm25_index(texts: Sequence[Sequence[str]]) -> "BM25":
    """BM25 (Robertson's, as bm25s computes it by default) of some texts, given by their words.

    bm25s starts JAX where it is installed, which reserves three quarters of a GPU's memory; none of it is needed here.

    >>> bm25_index([["oslo", "is", "cold"], ["rome"]]).get_scores(["rome"]).argmax()
    np.int64(1)

    """
    hidden = not {"bm25s", "jax"} & set(sys.modules)
    if hidden:
        sys.modules["jax"] = None  # type: ignore[assignment]  # importing it fails, as if it were not installed
    try:
        from bm25s import BM25
    finally:
        if hidden:
            del sys.modules["jax"]
    index = BM25()
    index.index([list(words) for words in texts], show_progress=False)
    return index
