"""What a reader without any knowledge sees in a text, its words and marks, and the classifier that learns from them.

The linter uses it to see whether wording reveals the labels; the statistics use it as a baseline for detectors.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

_PIECE: Final = re.compile(r"[^\W_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W_]+)*|[^\w\s]|_")
CAPITAL: Final = "(a capital first)"

_UNSEEN: Final = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe0e\ufe0f\ufeff]"
    # Joiners make other words in Persian and other pictures of emoji; next to a Latin letter, a space or nothing they
    # do nothing.
    "|[\u200c\u200d](?![^\\s\u0021-\u02ff])|(?<![^\\s\u0021-\u02ff])[\u200c\u200d]"
)
"""Characters that show nothing: soft hyphens, zero-width spaces and joiners, byte-order and directional marks."""


def folded(text: str) -> str:
    """The text as it is compared: without letter case, in one spelling of its code points (NFC), without `_UNSEEN`."""
    if text.isascii():
        return text.casefold()
    decomposed = unicodedata.normalize("NFD", _UNSEEN.sub("", text))
    return unicodedata.normalize("NFC", decomposed.casefold())


def pieces(text: str) -> list[str]:
    """The words and the punctuation marks of a text, folded: what a bag of words counts."""
    return _PIECE.findall(folded(text))


def features_of(text: str) -> list[str]:
    """Words and punctuation marks, pairs of neighbours, and whether the text begins with a capital."""
    single = pieces(text)
    both = [f"{left} {right}" for left, right in zip(single, single[1:], strict=False)]
    return [*single, *both, *([CAPITAL] if text.lstrip()[:1].isupper() else [])]


def counted(texts: Sequence[str]) -> tuple[Any, Any]:
    """Counts, a sparse (text, feature) matrix, and the features' names.

    Counting needs no labels and no other text, so that it may be done once for all folds.
    """
    # scikit-learn takes a second to import: only where a classifier is fitted
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer: Any = CountVectorizer(analyzer=features_of)  # pyright: ignore[reportArgumentType] - or a function
    try:
        counts: Any = vectorizer.fit_transform(texts)
    except ValueError:  # no text has any feature
        from scipy.sparse import csr_matrix

        return csr_matrix((len(texts), 1)), np.array([""])
    return counts, vectorizer.get_feature_names_out()


def bag_classifier() -> Any:
    """TF-IDF weights, learnt with the rest, and logistic regression: scikit-learn's, to be fitted to `counted`."""
    # As slow as in `counted`.
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(TfidfTransformer(), LogisticRegression(C=10.0, max_iter=1000))
