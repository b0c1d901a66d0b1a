"""How much repetition is too much: the loop guard's thresholds, by the form of what is repeated.

Hold-back hides a loop from its third copy on, so a threshold that waits longer costs tokens but shows nothing. What
repeats by nature (code, tables, JSON, verse, lists) may therefore wait, and what says nothing (rules, zeros, hex)
longest of all; nothing may go on for ever.
"""

from dataclasses import dataclass

from specialists.engine.loop_novelty import SUSPECT_COPIES, CopyLimits
from specialists.engine.syntactic_context import STRUCTURED, Context, has_words


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
    verse: RunLimit = RunLimit(copies=4, beyond=16, tokens=64)
    items: RunLimit = RunLimit(copies=3, beyond=16, tokens=64)
    code: RunLimit = RunLimit(copies=6, beyond=0, tokens=192)
    table: RunLimit = RunLimit(copies=6, beyond=0, tokens=384)
    json: RunLimit = RunLimit(copies=6, beyond=0, tokens=512)
    blank: RunLimit = RunLimit(copies=2, beyond=0, tokens=128)
    filler: RunLimit = RunLimit(copies=2, beyond=0, tokens=384)
    structured_filler: RunLimit = RunLimit(copies=2, beyond=0, tokens=2048)
    near: NearLimit = NearLimit(window=160, share=0.9)
    patterned_near: NearLimit = NearLimit(window=1024, share=0.98)
    suspect: CopyLimits = SUSPECT_COPIES
    fence: BlockLimit = BlockLimit(chars=120, copies=3, share=0.75, anyway=6)
    paragraph: BlockLimit = BlockLimit(chars=160, copies=3, share=0.9, anyway=12)
    request_slack: float = 1.25

    def run_limit(self, text: str, context: Context) -> RunLimit:
        """What an exact run of a unit like `text` may do."""
        if text.isspace():
            return self.blank
        if not has_words(text):
            return self.structured_filler if context in STRUCTURED else self.filler
        return {
            Context.PROSE: self.prose,
            Context.VERSE: self.verse,
            Context.LIST: self.items,
            Context.TABLE: self.table,
            Context.CODE: self.code,
            Context.JSON: self.json,
        }[context]
