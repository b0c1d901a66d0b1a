"""Why a query was classified as it was, in things a person can check."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NearExample:
    """A stored example. `excerpt` is "" where the licence or the person behind it asks us not to show the text."""

    domain: str
    similarity: float
    source: str
    excerpt: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """`cue_words` speak for `domain` in the lexical model; `by_head` is each head's own first choice."""

    nearest: tuple[NearExample, ...] = ()
    cue_words: tuple[str, ...] = ()
    runner_up: tuple[str, float] | None = None
    removed: tuple[str, ...] = ()
    by_head: tuple[tuple[str, str, float], ...] = ()
    threshold: float = 0.0
