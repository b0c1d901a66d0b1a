"""One generation in which calculations are answered as they are asked.

The engine ends its generation at a complete call (`CallMarks`); the result is put behind it and the answer continued
from there, as a conversation with the same beginning, which the engine has in its cache. To the outside it is one
generation: one Started, one Finished. What the model drew is counted and bounded by `max_tokens`; results are neither.

After `MAX_CALLS`, or when the same calculation comes over and over, calls are no longer answered: what follows is one
generation again, which the loop guard watches as a whole.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import cast

from msgspec.structs import replace

from gateway.calculator.calls import Calculation, answer_to, is_calculation, open_call, reply_text
from gateway.calculator.reports import merged
from specialists.engine.protocol import Engine
from specialists.errors import ContextOverflow
from specialists.request import (
    ChatPrompt,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    LoopReport,
    Started,
    Tokens,
    Usage,
)

MAX_CALLS = 32
MAX_SAME_IN_A_ROW = 3
NUM_SEEDS = 2**32 - 1
_SEED_STEP = 7919  # far from the +1 by which the seeds of a request's choices differ


@dataclass(slots=True)
class _Course:
    """How far an answer has come. `written` is all of its text, results included; `num_drawn` excludes them."""

    request: GenerationRequest
    written: str = ""
    num_drawn: int = 0
    num_parts: int = 0
    calculations: list[Calculation] = field(default_factory=list)
    usage: Usage = field(default_factory=lambda: Usage(prompt_tokens=0, completion_tokens=0))
    loops: list[tuple[int, LoopReport]] = field(default_factory=list)

    def next_part(self) -> GenerationRequest:
        """The request for the rest of the answer."""
        number, request = self.num_parts, self.request
        self.num_parts += 1
        if number == 0:
            return request
        prompt, sampling = request.prompt, request.sampling
        assert isinstance(prompt, ChatPrompt), "raw prompts have no calculator"
        if sampling.seed is not None:
            sampling = replace(sampling, seed=(sampling.seed + number * _SEED_STEP) % NUM_SEEDS)
        return replace(
            request,
            id=f"{request.id}-part{number}",
            prompt=replace(prompt, continuation=prompt.continuation + self.written),
            sampling=sampling,
            max_tokens=request.max_tokens - self.num_drawn,
            call_marks=request.call_marks if self._may_call() else None,
        )

    def _may_call(self) -> bool:
        last = [each.expression for each in self.calculations[-MAX_SAME_IN_A_ROW:]]
        is_stuck = len(last) == MAX_SAME_IN_A_ROW and len(set(last)) == 1
        return self.num_parts <= MAX_CALLS and not is_stuck

    def end_part(self, finished: Finished) -> None:
        if self.num_parts == 1:
            self.usage = finished.usage
        if finished.loop is not None:
            self.loops.append((self.num_drawn, finished.loop))
        self.num_drawn += finished.usage.completion_tokens

    def is_asked(self, finished: Finished) -> bool:
        """Whether a call has ended the part; what the client itself named as a stop string ends the answer."""
        marks = self.request.call_marks
        return marks is not None and finished.stop in marks.closings and finished.stop not in self.request.stop

    def end(self, reason: FinishReason, stop: str | None = None) -> Finished:
        usage = replace(self.usage, completion_tokens=self.num_drawn)
        return Finished(reason, usage, merged(self.loops), stop)


async def with_calculator(
    engine: Engine, request: GenerationRequest, note: Callable[[Calculation], None]
) -> AsyncGenerator[GenerationEvent]:
    """The events of `request`, which has `call_marks`, with `note` told of each calculation. Raises as the engine does.

    A result is a Tokens event of no draws. Closing the generator aborts what runs.
    """
    course = _Course(request)
    while True:
        finished: Finished | None = None
        async with aclosing(_part(engine, course)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    finished = event
                else:
                    yield event
        if finished is None:  # the context has no room for more
            yield course.end(FinishReason.LENGTH)
            return
        course.end_part(finished)
        if not course.is_asked(finished):
            yield course.end(finished.reason, finished.stop)
            return
        reply = _reply(course, finished.stop or "", note)
        course.written += reply
        yield Tokens(reply, num_draws=0)
        if course.num_drawn >= request.max_tokens:
            yield course.end(FinishReason.LENGTH)
            return


async def _part(engine: Engine, course: _Course) -> AsyncGenerator[GenerationEvent]:
    """The events of the next part, Started only of the first; without Finished if the answer fills the context."""
    part = course.next_part()
    is_first = course.num_parts == 1
    try:
        async with aclosing(cast(AsyncGenerator[GenerationEvent], engine.generate(part))) as events:
            async for event in events:
                if isinstance(event, Tokens):
                    course.written += event.text
                if is_first or not isinstance(event, Started):
                    yield event
    except ContextOverflow:
        if is_first:
            raise


def _reply(course: _Course, closing: str, note: Callable[[Calculation], None]) -> str:
    """What follows the open call: its result, or its own closing where it was none."""
    inside = open_call(course.written)
    if not is_calculation(inside):
        return closing
    calculation = answer_to(inside)
    course.calculations.append(calculation)
    note(calculation)
    return reply_text(calculation)
