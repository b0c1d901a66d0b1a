"""From a message as it came to the text that is classified: hygiene, then spelling."""

from collections.abc import Iterable

from supervisor.examples import Example
from supervisor.hygiene import Cleaned, clean
from supervisor.spelling import SHORTEST, SpellingCorrector, ranks_of, words_of


class Reader:
    """One for training and serving alike, so that heads meet the texts they were fitted on. Thread-safe."""

    def __init__(self, vocabulary: Iterable[str], known_words: Iterable[str]) -> None:
        self._corrector = SpellingCorrector(ranks_of(vocabulary, known_words))

    def read(self, text: str) -> Cleaned:
        cleaned = clean(text)
        mended = self._corrector.correct(cleaned.text)
        removed = cleaned.removed if mended == cleaned.text else (*cleaned.removed, "slips of spelling")
        return Cleaned(mended, removed)

    def tidy(self, text: str) -> str:
        return self.read(text).text


def known_words(examples: Iterable[Example]) -> list[str]:
    """Every word of the examples that is long enough for the spelling corrector to touch, sorted."""
    return sorted({word for example in examples for word in words_of(example.text) if len(word) >= SHORTEST})
