"""Mends single slips in words nobody knows, so that a typo does not change who answers.

A word is suspect if it is all letters, at least four long, and neither the encoder's vocabulary nor the training
texts hold it. It becomes the most frequent known word one slip away (a letter dropped, added, replaced, or two
swapped), else two known words with the space lost between them, else it stays. Case is ignored throughout.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?|[^\W\d_]+", re.IGNORECASE)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHORTEST = 4
LONGEST = 18
_CACHE_WORDS = 4096
NUM_GRAMMAR_WORDS = 150  # the most frequent words: the, of, what, …
_SHORT = frozenset(("is", "of", "to", "in", "it"))


class SpellingCorrector:
    """`ranks` maps every known word (lower case) to its frequency rank, 0 the most frequent. Thread-safe."""

    def __init__(self, ranks: Mapping[str, int]) -> None:
        self._ranks = ranks
        self._mended = lru_cache(maxsize=_CACHE_WORDS)(self._mend)

    def correct(self, text: str) -> str:
        """The text with suspect words mended; identifiers, numbers and known words are left alone."""
        return _WORD.sub(self._replace, text)

    def _replace(self, match: re.Match[str]) -> str:
        word = match[0]
        start, end = match.span()
        if self._is_part_of_identifier(match.string, start, end):
            return word
        return self._mended(word.lower()) or word

    @staticmethod
    def _is_part_of_identifier(text: str, start: int, end: int) -> bool:
        before, after = text[start - 1 : start], text[end : end + 1]
        joined = before.isdigit() or (before != "" and before in "_./\\@#$<-=")
        dotted = after == "." and text[end + 1 : end + 2].isalnum()
        follows = after.isdigit() or dotted or (after != "" and after in "_/\\@=(<")
        return joined or follows

    def _mend(self, word: str) -> str | None:
        if not SHORTEST <= len(word) <= LONGEST or word in self._ranks or not word.isascii() or "'" in word:
            return None
        candidates = [slip for slip in one_slip_away(word) if slip in self._ranks]
        if candidates:
            return min(candidates, key=lambda candidate: (self._ranks[candidate], candidate))
        return self._split(word)

    def _split(self, word: str) -> str | None:
        pairs = [(word[:at], word[at:]) for at in range(1, len(word))]
        known = [pair for pair in pairs if all(part in self._ranks for part in pair) and self._lost_a_space(pair)]
        if not known:
            return None
        return " ".join(min(known, key=lambda pair: (max(self._ranks[part] for part in pair), pair)))

    def _lost_a_space(self, pair: tuple[str, str]) -> bool:
        """Whether one of the two is a word of grammar: "whatdoes", but not "toolbar"."""
        return all(len(part) > 2 or part in _SHORT for part in pair) and any(
            self._ranks[part] < NUM_GRAMMAR_WORDS for part in pair
        )


def one_slip_away(word: str) -> Iterator[str]:
    """Every string one slip from `word`: about 54 per letter, some of them twice."""
    for at in range(len(word) + 1):
        head, tail = word[:at], word[at:]
        if tail:
            yield head + tail[1:]
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]
        for letter in _LETTERS:
            yield head + letter + tail
            if tail:
                yield head + letter + tail[1:]


def words_of(text: str) -> list[str]:
    """The words of a text as the corrector sees them, lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def ranks_of(vocabulary: Iterable[str], known_words: Iterable[str]) -> dict[str, int]:
    """Whole words of a WordPiece vocabulary in its order (by frequency), then the other known words by letter."""
    ranks: dict[str, int] = {}
    for token in vocabulary:
        if token.isalpha() and token.isascii() and token not in ranks:
            ranks[token] = len(ranks)
    for word in sorted(set(known_words) - ranks.keys()):
        ranks[word] = len(ranks)
    return ranks
