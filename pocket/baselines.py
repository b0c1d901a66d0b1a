"""What simple means make of the same held-out text: gzip, xz that has read the training text, and a trigram model.

All in bits per byte, so that they can be laid beside a language model. Knows arrays of tokens and bytes, no files.
"""

import gzip
import lzma
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
DISCOUNT = 0.75
_XZ = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 26}]


def gzip_bits(text: bytes) -> float:
    return 8 * len(gzip.compress(text, 9, mtime=0)) / len(text)


def xz_bits(text: bytes, read_before: bytes = b"") -> float:
    """What `text` adds to a file that begins with `read_before`; the window holds 64 MiB."""
    longer, shorter = (
        len(lzma.compress(each, lzma.FORMAT_RAW, filters=_XZ)) for each in (read_before + text, read_before)
    )
    return 8 * (longer - shorter) / len(text)


@dataclass(frozen=True, slots=True)
class _Order:
    """Counts of n-grams, ascending by key, and for each context how often it was seen and with how many successors."""

    grams: Tokens
    counts: Tokens
    contexts: Tokens
    seen: Tokens
    successors: Tokens


class Trigram:
    """Absolute discounting over orders 3, 2 and 1, down to even odds; a distribution for every context."""

    def __init__(self, tokens: Tokens, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._orders = [_count(tokens, order, vocabulary) for order in (1, 2, 3)]

    def surprises(self, row: Tokens) -> NDArray[np.float64]:
        """−ln p of each token but the first two."""
        wanted = row[2:]
        odds = np.full(len(wanted), 1 / self._vocabulary)
        for length, order in enumerate(self._orders):
            context = np.zeros(len(wanted), dtype=np.int64)
            for back in range(length, 0, -1):
                context = context * self._vocabulary + row[2 - back : len(row) - back]
            count = _looked_up(order.grams, order.counts, context * self._vocabulary + wanted)
            seen = _looked_up(order.contexts, order.seen, context)
            share = DISCOUNT * _looked_up(order.contexts, order.successors, context) / np.maximum(seen, 1)
            known = np.maximum(count - DISCOUNT, 0) / np.maximum(seen, 1) + share * odds
            odds = np.where(seen > 0, known, odds)
        return np.asarray(-np.log(odds))


def _count(tokens: Tokens, order: int, vocabulary: int) -> _Order:
    keys = np.zeros(len(tokens) - order + 1, dtype=np.int64)
    for place in range(order):
        keys = keys * vocabulary + tokens[place : len(tokens) - order + 1 + place]
    grams, counts = np.unique(keys, return_counts=True)
    contexts, first = np.unique(grams // vocabulary, return_index=True)
    return _Order(grams, counts, contexts, np.add.reduceat(counts, first), np.diff(np.append(first, len(grams))))


def _looked_up(keys: Tokens, values: Tokens, wanted: Tokens) -> Tokens:
    """The value of each wanted key, 0 for those that are missing."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)
