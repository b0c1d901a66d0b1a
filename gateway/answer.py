"""One answer while it is being made: lease, generate every choice, and tell what happened as events.

Knows no HTTP and no dialect. Time comes from a clock, measurements go to an observer.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

from msgspec.structs import replace as replace_struct

from gateway.calculator.answering import with_calculator
from gateway.calculator.calls import Calculation
from gateway.events import AnswerEvent, ChoiceDelta, ChoiceFinished, ChoiceStarted
from gateway.fan_in import fan_in
from gateway.knowledge.librarian import LookUp
from gateway.loop_ledger import LoopLedger
from gateway.policy import Plan
from gateway.second_opinion import with_second_opinion
from gateway.speech import Speech
from specialists.engine.protocol import Engine
from specialists.errors import ContextOverflow, WorkerLost
from specialists.manifest import SpecialistManifest
from specialists.pool.forecast import Ticket
from specialists.request import (
    Finished,
    GenerationEvent,
    GenerationRequest,
    LoopReport,
    Prompt,
    Started,
    Tokens,
    Usage,
)


class SpecialistLease(Protocol):
    """The right to use an engine until the context that gave it ends."""

    @property
    def engine(self) -> Engine: ...

    @property
    def waited_seconds(self) -> float: ...

    @property
    def swap_seconds(self) -> float: ...


class LeasingPool(Protocol):
    """What a pool must offer for answering requests."""

    def acquire(
        self, manifest: SpecialistManifest, ticket: Ticket | None = None, *, prompt: Prompt | None = None
    ) -> AbstractAsyncContextManager[SpecialistLease]:
        """`ticket` tells how long the wait may be, as long as it lasts; `prompt` is what will be asked first."""
        ...


class GenerationObserver(Protocol):
    """What is told to whoever keeps the metrics; `specialist` is always a tag of the catalogue."""

    def first_token(self, specialist: str, *, seconds: float) -> None:
        """The first text came this long after the request."""

    def next_token(self, specialist: str, *, seconds: float) -> None:
        """Text came this long after the text before, per token."""

    def calculated(self, specialist: str, *, is_error: bool) -> None:
        """The calculator was asked."""

    def generated(self, specialist: str, usage: Usage) -> None:
        """A generation ended, complete or not."""

    def guarded(self, specialist: str, domain: str, report: LoopReport) -> None:
        """A generation that the loop guard watched is complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingDecision:
    """Which specialist answers, and why. `confidence` is a probability, None where nothing was classified.

    `decision_id` names the decision for feedback, None where the client decided. `is_fallback`: nobody could classify.
    """

    tag: str
    domain: str
    confidence: float | None
    reason: str
    decision_id: str | None = None
    is_fallback: bool = False


@dataclass(slots=True)
class AnswerTimes:
    """How long the steps of an answer took, in seconds; None as long as a step is not over.

    `waited_seconds` until there was a lease, `swap_seconds` of them for loading the specialist, `engine_seconds`
    from handing the request to the engine to its last event.
    """

    waited_seconds: float | None = None
    swap_seconds: float | None = None
    engine_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One request on its way: who answers it, under which rules, and the events as they come.

    `fallback` is the same request put to another specialist, for choices that loop beyond rescue; only for answers
    that nobody sees before they are complete. `loops` says by choice what the loop guard did, `calculations` what the
    calculator, `looked_up` what of the specialist's documents is in the prompt; `without_context` is the plan for a
    prompt that proves too long with them. `ticket` tells how long the wait for the specialist may be.
    """

    manifest: SpecialistManifest
    decision: RoutingDecision
    plan: Plan
    pool: LeasingPool
    observer: GenerationObserver
    ledger: LoopLedger
    clock: Callable[[], float]
    times: AnswerTimes = field(default_factory=AnswerTimes)
    fallback: "Answer | None" = None
    loops: dict[int, LoopReport] = field(default_factory=dict)
    calculations: dict[int, tuple[Calculation, ...]] = field(default_factory=dict)
    ticket: Ticket = field(default_factory=Ticket)
    looked_up: LookUp | None = None
    without_context: Plan | None = None

    def events(self) -> AsyncGenerator[AnswerEvent]:
        """Yield the events of all choices. Closing it aborts what still runs and gives the lease back.

        Raises every error of `specialists.errors` that a pool or an engine may raise. An engine lost before any
        text is replaced once, unseen; ChoiceStarted may then come twice. `loops` is complete when the events are.
        """
        events = self._generated() if self.fallback is None else self._with_fallback(self.fallback)
        return events if self.without_context is None else self._or_without(events, self.without_context)

    async def _or_without(self, events: AsyncGenerator[AnswerEvent], plan: Plan) -> AsyncGenerator[AnswerEvent]:
        """What was looked up never pushes out the conversation: if both are too long, the latter goes alone."""
        has_begun = False
        try:
            async with aclosing(events):
                async for event in events:
                    has_begun = True
                    yield event
            return
        except ContextOverflow:
            if has_begun or self.looked_up is None:
                raise
            self.looked_up.drop("What was found has no room beside the conversation; raise context, or shorten it.")
        async with aclosing(replace(self, plan=plan, without_context=None).events()) as alone:
            async for event in alone:
                yield event

    async def _with_fallback(self, fallback: "Answer") -> AsyncGenerator[AnswerEvent]:
        both = with_second_opinion(self._generated(), fallback.some_events, tag=fallback.manifest.tag)
        async with aclosing(both) as events:
            async for event in events:
                if type(event) is ChoiceFinished:
                    self._note(event)
                yield event

    async def some_events(self, indices: Sequence[int]) -> AsyncGenerator[AnswerEvent]:
        """The events of these choices alone."""
        generations = tuple(self.plan.generations[index] for index in indices)
        part = replace(self, plan=replace(self.plan, generations=generations), fallback=None, without_context=None)
        async with aclosing(part.events()) as events:
            async for event in events:
                yield replace_struct(event, index=indices[event.index])

    async def _generated(self) -> AsyncGenerator[AnswerEvent]:
        begun = self.clock()
        is_first_try = True
        while True:
            has_text = False
            try:
                prompt = self.plan.generations[0].prompt
                async with self.pool.acquire(self.manifest, self.ticket, prompt=prompt) as lease:
                    self.times.waited_seconds = lease.waited_seconds
                    self.times.swap_seconds = lease.swap_seconds
                    leased = self.clock()
                    async with aclosing(self._generate(lease.engine, begun)) as events:
                        async for event in events:
                            has_text = has_text or _says_something(event)
                            if type(event) is ChoiceFinished:
                                self.times.engine_seconds = self.clock() - leased
                            yield event
                    return
            except WorkerLost:
                if has_text or not is_first_try:
                    raise
                is_first_try = False

    def _generate(self, engine: Engine, begun: float) -> AsyncGenerator[AnswerEvent]:
        choices: Sequence[AsyncGenerator[AnswerEvent]] = [
            self._choice(index, generation, engine, begun) for index, generation in enumerate(self.plan.generations)
        ]
        return choices[0] if len(choices) == 1 else fan_in(choices)

    async def _choice(
        self, index: int, generation: GenerationRequest, engine: Engine, begun: float
    ) -> AsyncGenerator[AnswerEvent]:
        speech = Speech(index, generation)
        stopwatch = _Stopwatch(self.manifest.tag, self.observer, self.clock, begun)
        calculations: list[Calculation] = []
        try:
            async with aclosing(self._events_of(generation, engine, calculations)) as events:
                async for event in events:
                    if type(event) is Tokens:
                        if event.num_draws:
                            stopwatch.text(event.num_draws)
                        for delta in speech.hear(event):
                            yield delta
                    elif type(event) is Started:
                        stopwatch.started(event)
                        speech.started(event)
                        yield ChoiceStarted(index, event)
                    elif type(event) is Finished:
                        stopwatch.finished(event)
                        for delta in speech.end():
                            yield delta
                        end = ChoiceFinished(
                            index, speech.reason(event.reason), event.usage, event.loop, tuple(calculations)
                        )
                        self._note(end)
                        if event.loop is not None:
                            self._note_loops(generation.id, event.loop)
                        yield end
        finally:
            stopwatch.stop()

    def _events_of(
        self, generation: GenerationRequest, engine: Engine, calculations: list[Calculation]
    ) -> AsyncGenerator[GenerationEvent]:
        if generation.call_marks is None:
            return _closable(engine, generation)

        def note(calculation: Calculation) -> None:
            calculations.append(calculation)
            self.observer.calculated(self.manifest.tag, is_error=calculation.result.is_error)

        return with_calculator(engine, generation, note)

    def _note(self, end: ChoiceFinished) -> None:
        if end.loop is not None:
            self.loops[end.index] = end.loop
        self.calculations[end.index] = end.calculations

    def _note_loops(self, id: str, report: LoopReport) -> None:
        self.observer.guarded(self.manifest.tag, self.decision.domain, report)
        self.ledger.record(id, self.manifest.tag, self.decision.domain, report)


def _says_something(event: AnswerEvent) -> bool:
    if type(event) is ChoiceDelta:
        return bool(event.content or event.reasoning)
    return type(event) is not ChoiceStarted


def _closable(engine: Engine, generation: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
    """An engine's iterator is aborted by closing it, so it is a generator; the protocol's type does not say so."""
    return cast(AsyncGenerator[GenerationEvent], engine.generate(generation))


class _Stopwatch:
    """Times and counts one generation for the observer; an aborted one is counted as far as it got."""

    def __init__(self, tag: str, observer: GenerationObserver, clock: Callable[[], float], begun: float) -> None:
        self._tag = tag
        self._observer = observer
        self._clock = clock
        self._begun = begun
        self._last: float | None = None
        self._usage = Usage(prompt_tokens=0, completion_tokens=0)
        self._num_draws = 0

    def started(self, event: Started) -> None:
        self._usage = Usage(prompt_tokens=event.prompt_tokens, completion_tokens=0, cached_tokens=event.cached_tokens)

    def text(self, num_draws: int) -> None:
        now = self._clock()
        if self._last is None:
            self._observer.first_token(self._tag, seconds=now - self._begun)
        else:
            self._observer.next_token(self._tag, seconds=(now - self._last) / num_draws)
        self._last = now
        self._num_draws += num_draws

    def finished(self, event: Finished) -> None:
        self._usage = event.usage

    def stop(self) -> None:
        usage = self._usage
        self._observer.generated(
            self._tag,
            Usage(
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens or self._num_draws,
                cached_tokens=usage.cached_tokens,
            ),
        )
