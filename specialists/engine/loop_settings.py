"""How much repetition is too much: the loop guard's thresholds, by the form of what is repeated.

Hold-back hides a loop from its third copy on, so a threshold that waits longer costs tokens but shows nothing. What
repeats by nature (code, tables, JSON, verse, lists) may therefore wait, and what says nothing (rules, zeros, hex)
longest of all; nothing may go on for ever.
"""

from dataclasses import dataclass

from specialists.engine.loop_novelty import SUSPECT_COPIES, CopyLimits
from specialists.engine.syntactic_context import STRUCTURED, Context, has_words, is_rule


@dataclass(frozen=True, slots=True)
class RunLimit:
    """An exact run is a loop after `copies` complete copies and `beyond` tokens of the next.

    And not before all but the first copy make up `tokens`, which decides for short units.
    """

    copies: int
    beyond: int
    tokens: int

    def is_reached(self, *, length: int, period: int, free_copies: int) -> bool:
        """`length`: tokens behind the first copy. `free_copies` were asked for and are always allowed."""
        return length >= max((max(self.copies, free_copies) - 1) * period + self.beyond, self.tokens)


@dataclass(frozen=True, slots=True)
class NearLimit:
    """Copies with edits are a loop once they make up this share (0 to 1) of so many newest content tokens."""

    window: int
    share: float


@dataclass(frozen=True, slots=True)
class SpokenLimit:
    """Copies with edits in prose and lists, where sentences come again word for word.

    A loop once copies make up `share` (0 to 1) of `window` newest content tokens, and sentences that were said before
    in the newest `within` make up `sentences` (0 to 1) of those. The form is that of the newest `surroundings`: a
    description between two pieces of code belongs to them.
    """

    window: int
    share: float
    sentences: float
    within: int
    surroundings: int


@dataclass(frozen=True, slots=True)
class NarrowLimit:
    """A few words in any order are a loop: at most `kinds` different tokens among `window` content tokens."""

    window: int
    kinds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockLimit:
    """A block of at least `chars` characters is a loop at so many copies if little is new between them.

    `share` (0 to 1) of the content since the second copy must have been said before; `anyway` copies are always one.
    """

    chars: int
    copies: int
    share: float
    anyway: int

    def is_reached(self, *, copies: int, share: float) -> bool:
        """`copies` of a block so far, and the share of repeated content since the second."""
        return copies >= self.anyway or (copies >= self.copies and share >= self.share)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """Thresholds, in tokens unless the name says otherwise.

    `filler` is text without words. `request_slack`: a model that was asked for 50 repetitions may give 50 × this.
    """

    longest_period: int = 512
    prose: RunLimit = RunLimit(copies=2, beyond=24, tokens=48)
    verse: RunLimit = RunLimit(copies=3, beyond=16, tokens=64)
    items: RunLimit = RunLimit(copies=2, beyond=24, tokens=48)
    code: RunLimit = RunLimit(copies=6, beyond=0, tokens=192)
    table: RunLimit = RunLimit(copies=6, beyond=0, tokens=384)
    json: RunLimit = RunLimit(copies=6, beyond=0, tokens=512)
    blank: RunLimit = RunLimit(copies=2, beyond=0, tokens=128)
    filler: RunLimit = RunLimit(copies=2, beyond=0, tokens=384)
    items_filler: RunLimit = RunLimit(copies=2, beyond=0, tokens=192)
    structured_filler: RunLimit = RunLimit(copies=2, beyond=0, tokens=2048)
    near: NearLimit = NearLimit(window=320, share=0.75)
    spoken: SpokenLimit = SpokenLimit(window=48, share=0.7, sentences=0.5, within=512, surroundings=96)
    verse_near: NearLimit = NearLimit(window=256, share=0.95)
    structured_near: NearLimit = NearLimit(window=1024, share=0.98)
    narrow: NarrowLimit = NarrowLimit(window=64, kinds=10)
    suspect: CopyLimits = SUSPECT_COPIES
    fence: BlockLimit = BlockLimit(chars=120, copies=3, share=0.75, anyway=6)
    paragraph: BlockLimit = BlockLimit(chars=160, copies=3, share=0.9, anyway=12)
    request_slack: float = 1.25

    def run_limit(self, text: str, context: Context) -> RunLimit:
        """What an exact run of a unit like `text` may do."""
        if text.isspace():
            return self.blank
        if not has_words(text):
            return self._filler_limit(text, context)
        return {
            Context.PROSE: self.prose,
            Context.VERSE: self.verse,
            Context.LIST: self.items,
            Context.TABLE: self.table,
            Context.CODE: self.code,
            Context.JSON: self.json,
        }[context]

    def _filler_limit(self, text: str, context: Context) -> RunLimit:
        if is_rule(text):
            return self.filler
        if context in STRUCTURED:
            return self.structured_filler
        return self.items_filler if context is Context.LIST else self.filler

    def near_limit(self, context: Context) -> NearLimit:
        """What copies with edits may do: refrains, rows and calls come again with little that is new."""
        if context in STRUCTURED:
            return self.structured_near
        return self.verse_near if context in (Context.VERSE, Context.LIST) else self.near
