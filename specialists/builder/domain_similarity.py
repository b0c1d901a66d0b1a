"""How near two domains are by their words alone: TF-IDF over their corpora, nothing of masks or models.

Near and far must be told apart by something that the masks did not make, or a study of what masks predict goes in a
circle. Each domain is one document: log(1 + count) of its words by log(domains / domains that use the word), as a
unit vector; similarity is the cosine. Words that all domains use weigh nothing.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

_WORD: Final = re.compile(r"[^\W\d_]{2,30}")
_LEAST_COUNT: Final = 3  # a word seen once or twice says more about one author than about a domain


def similarity(texts: Mapping[str, Iterable[str]]) -> NDArray[np.float64]:
    """[domain, domain], symmetric with 1 on the diagonal (0 for a domain without words of its own)."""
    counts = [_word_counts(each) for each in texts.values()]
    spread = Counter(word for each in counts for word in each)
    vectors = [_vector(each, spread, len(counts)) for each in counts]
    return np.array([[_cosine(a, b) for b in vectors] for a in vectors])


def _word_counts(texts: Iterable[str]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for text in texts:
        found.update(_WORD.findall(text.lower()))
    return {word: count for word, count in found.items() if count >= _LEAST_COUNT}


def _vector(counts: Mapping[str, int], spread: Mapping[str, int], num: int) -> dict[str, float]:
    raw = {word: math.log1p(count) * math.log(num / spread[word]) for word, count in counts.items()}
    norm = math.sqrt(sum(value * value for value in raw.values()))
    return {word: value / norm for word, value in raw.items() if value > 0} if norm > 0 else {}


def _cosine(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    small, large = sorted((a, b), key=len)
    return sum(value * large[word] for word, value in small.items() if word in large)
