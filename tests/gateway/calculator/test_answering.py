"""Calls are answered in the middle of one generation, which stays one to everybody who watches."""

from collections.abc import Callable
from contextlib import aclosing

import pytest
from msgspec.structs import replace

from gateway.calculator.answering import MAX_CALLS, MAX_SAME_IN_A_ROW, with_calculator
from gateway.calculator.calls import CALL_MARKS, Calculation
from specialists.errors import ContextOverflow, WorkerLost
from specialists.request import (
    ChatPrompt,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    LoopReport,
    Message,
    SamplingParams,
    Started,
    Tokens,
    Usage,
)
from tests.fakes import FakeEngine, Script, spec_named

pytestmark = pytest.mark.anyio


class ModelThatCalls(FakeEngine):
    """Says one of `parts` per generation and ends each as the engine would: at a closing, or of itself."""

    def __init__(self, *parts: tuple[str, str | None], loop: LoopReport | None = None, tokens: int = 3) -> None:
        super().__init__(spec_named("math"), script=lambda request: Script())
        self._parts = list(parts)
        self._loop = loop
        self._tokens = tokens

    async def generate(self, request: GenerationRequest):  # type: ignore[no-untyped-def]
        self.submitted.append(request)
        text, stop = self._parts.pop(0) if len(self._parts) > 1 else self._parts[0]
        yield Started(prompt_tokens=10 * len(self.submitted), cached_tokens=4, queue_seconds=0.0)
        yield Tokens(text, num_draws=self._tokens)
        usage = Usage(prompt_tokens=10 * len(self.submitted), completion_tokens=self._tokens, cached_tokens=4)
        yield Finished(FinishReason.STOP, usage, self._loop, stop)


def request(**changes: object) -> GenerationRequest:
    made = GenerationRequest(
        id="r-0",
        prompt=ChatPrompt((Message("user", "How many?"),), "<think></think>\n", "So "),
        sampling=SamplingParams(seed=5),
        max_tokens=100,
        context_tokens=1000,
        call_marks=CALL_MARKS,
    )
    return replace(made, **changes)


async def events_of(
    engine: FakeEngine, asked: GenerationRequest, note: Callable[[Calculation], None] = lambda _: None
) -> list[GenerationEvent]:
    async with aclosing(with_calculator(engine, asked, note)) as events:
        return [event async for event in events]


def text_of(events: list[GenerationEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Tokens))


async def test_a_call_is_answered_and_the_answer_goes_on() -> None:
    """One Started, the text with the result in it, one Finished with what was drawn; the rest is asked for as a
    continuation of the same conversation."""
    engine = ModelThatCalls(("12*48 = <<12*48", "="), ("576 pens.", None))
    calculations: list[Calculation] = []

    events = await events_of(engine, request(), calculations.append)

    assert text_of(events) == "12*48 = <<12*48=576>>576 pens."
    assert [type(event) for event in events] == [Started, Tokens, Tokens, Tokens, Finished]
    assert events[-1] == Finished(
        FinishReason.STOP, Usage(prompt_tokens=10, completion_tokens=6, cached_tokens=4), None, None
    )
    assert [(each.expression, each.result.text) for each in calculations] == [("12*48", "576")]
    first, second = engine.submitted
    assert isinstance(first.prompt, ChatPrompt)
    assert second.prompt == replace(first.prompt, continuation="So 12*48 = <<12*48=576>>")
    assert (second.max_tokens, second.call_marks, first.id == second.id) == (97, CALL_MARKS, False)


async def test_a_result_is_not_a_draw() -> None:
    """So that it is neither timed nor billed."""
    events = await events_of(ModelThatCalls(("<<1+1", ">>"), ("", None)), request())

    assert [event.num_draws for event in events if isinstance(event, Tokens)] == [3, 0, 3]


@pytest.mark.parametrize("closing", ["=", ">>"])
async def test_what_is_no_calculation_is_left_alone(closing: str) -> None:
    """A shift operator or a heredoc goes on as it was written."""
    calculations: list[Calculation] = []
    events = await events_of(ModelThatCalls(('cout <<"a;', closing), (" b", None)), request(), calculations.append)

    assert text_of(events) == f'cout <<"a;{closing} b'
    assert calculations == []


async def test_an_error_is_told_to_the_model() -> None:
    """In the place of the result, so that it can do something about it."""
    events = await events_of(ModelThatCalls(("<<1/0", "="), (" undefined.", None)), request())

    assert text_of(events) == "<<1/0=error: division by zero>> undefined."


async def test_calls_are_bounded() -> None:
    """After so many the model has to go on by itself, in one generation that the loop guard sees whole."""
    parts = [(f"<<{number}+1", "=") for number in range(MAX_CALLS)]
    engine = ModelThatCalls(*parts, ("done", None), tokens=1)

    events = await events_of(engine, request())

    assert len(engine.submitted) == MAX_CALLS + 1
    assert engine.submitted[-1].call_marks is None
    assert text_of(events).endswith("done")


async def test_the_same_call_over_and_over_is_not_answered_for_ever() -> None:
    """A loop of calls becomes one generation, so that it can be seen as a loop."""
    engine = ModelThatCalls(*[("<<1+1", "=")] * MAX_SAME_IN_A_ROW, ("<<1+1=2>>" * 9, None))

    await events_of(engine, request())

    assert [each.call_marks is None for each in engine.submitted] == [False] * MAX_SAME_IN_A_ROW + [True]


async def test_max_tokens_bounds_what_all_parts_draw() -> None:
    """The answer ends with its length as the reason, after the result."""
    engine = ModelThatCalls(("<<1+1", "="))

    events = await events_of(engine, request(max_tokens=3))

    assert text_of(events) == "<<1+1=2>>"
    assert isinstance(events[-1], Finished)
    assert events[-1].reason is FinishReason.LENGTH
    assert len(engine.submitted) == 1


async def test_the_clients_own_stop_string_ends_the_answer() -> None:
    """Also where it is one of our closings."""
    engine = ModelThatCalls(("a <<1+1", "="))

    events = await events_of(engine, request(stop=("=",)))

    assert text_of(events) == "a <<1+1"
    assert len(engine.submitted) == 1


async def test_a_seed_gives_each_part_its_own() -> None:
    """The same every time, and not the same draws again after each result."""
    engine = ModelThatCalls(("<<1+1", "="), ("<<2+2", "="), ("", None))

    await events_of(engine, request())

    assert len({each.sampling.seed for each in engine.submitted}) == 3


async def test_what_the_loop_guard_did_is_summed_up() -> None:
    """Over the parts; places are counted in what was drawn."""
    engine = ModelThatCalls(
        ("<<1+1", "="), ("b", None), loop=LoopReport(hits=1, rewinds=2, rung="resample", onset=1, tokens_discarded=5)
    )

    events = await events_of(engine, request())

    assert isinstance(events[-1], Finished)
    assert events[-1].loop == LoopReport(hits=2, rewinds=4, rung="resample", onset=4, tokens_discarded=10)


async def test_a_full_context_ends_the_answer() -> None:
    """There is text already, so it is no error that no more fits."""

    class Full(ModelThatCalls):
        async def generate(self, request: GenerationRequest):  # type: ignore[no-untyped-def]
            if self.submitted:
                raise ContextOverflow.of(prompt_tokens=1000, context_tokens=1000)
            async for event in super().generate(request):
                yield event

    events = await events_of(Full(("<<1+1", "=")), request())

    assert text_of(events) == "<<1+1=2>>"
    assert events[-1] == Finished(
        FinishReason.LENGTH, Usage(prompt_tokens=10, completion_tokens=3, cached_tokens=4), None, None
    )


async def test_errors_of_the_engine_pass_through() -> None:
    """A prompt that is too long, and a worker that dies between two parts."""
    engine = FakeEngine(spec_named("math"), script=Script(error=ContextOverflow("too long")))
    with pytest.raises(ContextOverflow):
        await events_of(engine, request())

    lost = FakeEngine(spec_named("math"), script=Script(crash_before=0))
    with pytest.raises(WorkerLost):
        await events_of(lost, request())
