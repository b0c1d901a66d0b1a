"""What happens while an answer is made, choice by choice; plain data.

Knows neither engines nor dialects: `gateway.answer` makes these events, the encoders turn them into bytes.
"""

from msgspec import Struct

from specialists.request import FinishReason, LoopReport, Started, TokenLogprob, Usage


class ChoiceStarted(Struct, frozen=True):
    """The prompt of choice `index` was accepted. Comes again if the answer had to be begun anew."""

    index: int
    event: Started


class ChoiceDelta(Struct, frozen=True):
    """More text of choice `index`; one of the two texts may be empty. `logprobs` belong to the content."""

    index: int
    content: str
    reasoning: str
    logprobs: tuple[TokenLogprob, ...]


class ChoiceFinished(Struct, frozen=True):
    """`loop` is None where no guard watched."""

    index: int
    reason: FinishReason
    usage: Usage
    loop: LoopReport | None = None


AnswerEvent = ChoiceStarted | ChoiceDelta | ChoiceFinished
