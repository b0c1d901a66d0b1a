"""What to do about an answer that loops: a ladder, each rung with a bound, as a pure function.

Rungs, tried in this order:

1. RESAMPLE: back to where the answer began to repeat itself. The token that stood there is banned for one draw, and
   for a while repetition is penalised and the temperature is at least 0.6.
2. PARAGRAPH: back to the start of the paragraph, with fresh randomness.
3. RESTART: back to the prompt, as long as nobody has seen any of the answer.
4. END: the answer ends where it began to repeat itself.

What has been shown is never taken back: every rung stops at the first token that has not been. Knows no tokens, no
cache and no sampler; `rewind` carries out what is decided here.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from specialists.request import LoopGuardParams

LONGEST_RESCUE_TOKENS = 1024


class Rung(StrEnum):
    RESAMPLE = "resample"
    PARAGRAPH = "paragraph"
    RESTART = "restart"
    END = "end"


class Hit(NamedTuple):
    """A loop, in answer tokens: `onset` is the first of the second copy, `paragraph_start` begins its paragraph.

    The first `num_shown` cannot be taken back.
    """

    onset: int
    paragraph_start: int
    num_shown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Climbed:
    """How far up the ladder an answer is.

    `place` and `calm_from` are of the last rewind, in answer tokens: where it went back to, and from where on
    sampling was as usual again. `resamples` counts those at this place.
    """

    place: int = 0
    calm_from: int = 0
    resamples: int = 0
    paragraphs: int = 0
    attempts: int = 1
    rewinds: int = 0


NOT_CLIMBED = Climbed()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Keep the first `keep` tokens of the answer; then end it, or draw on with `rescue_tokens` of changed sampling."""

    rung: Rung
    keep: int
    rescue_tokens: int = 0


def climb(climbed: Climbed, hit: Hit, params: LoopGuardParams) -> tuple[Step, Climbed]:
    """The next step for an answer that loops, and how far up it is then."""
    onset = max(hit.onset, hit.num_shown)
    start = max(hit.paragraph_start, hit.num_shown)
    is_same_place = hit.onset < climbed.calm_from
    resamples = climbed.resamples if is_same_place else 0
    if climbed.rewinds >= params.rewinds:
        return Step(rung=Rung.END, keep=onset), climbed
    if resamples < params.resamples:
        return _back_to(onset, Rung.RESAMPLE, replace(climbed, resamples=resamples + 1), params)
    if climbed.paragraphs < params.paragraphs and start < (min(onset, climbed.place) if is_same_place else onset):
        return _back_to(start, Rung.PARAGRAPH, replace(climbed, paragraphs=climbed.paragraphs + 1), params)
    if climbed.attempts < params.attempts and hit.num_shown == 0:
        return _back_to(0, Rung.RESTART, replace(climbed, attempts=climbed.attempts + 1, resamples=0), params)
    return Step(rung=Rung.END, keep=onset), climbed


def _back_to(keep: int, rung: Rung, climbed: Climbed, params: LoopGuardParams) -> tuple[Step, Climbed]:
    rescue_tokens = min(params.rescue_tokens << min(climbed.rewinds, 16), LONGEST_RESCUE_TOKENS)
    step = Step(rung=rung, keep=keep, rescue_tokens=rescue_tokens)
    return step, replace(climbed, place=keep, calm_from=keep + rescue_tokens, rewinds=climbed.rewinds + 1)
