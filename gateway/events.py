"""What happens while an answer is made, choice by choice; plain data.

Knows neither engines nor dialects: `gateway.answer` makes these events, the encoders turn them into bytes.
"""

from msgspec import Struct

from gateway.calculator.calls import Calculation
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


class ChoiceToolCall(Struct, frozen=True):
    """More of call number `call` of choice `index`: a piece of its arguments, which are JSON text when joined.

    The first piece of a call, and no other, has its `id` and the function's `name`.
    """

    index: int
    call: int
    arguments: str
    id: str = ""
    name: str = ""


class ChoiceFinished(Struct, frozen=True):
    """`loop` is None where no guard watched. `calculations` are those that the calculator made for this choice."""

    index: int
    reason: FinishReason
    usage: Usage
    loop: LoopReport | None = None
    calculations: tuple[Calculation, ...] = ()


AnswerEvent = ChoiceStarted | ChoiceDelta | ChoiceToolCall | ChoiceFinished
