"""One answer while it is being made: lease, generate every choice, and tell what happened as events.

Knows no HTTP and no dialect. Time comes from a clock, measurements go to an observer.
"""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

from msgspec.structs import replace as replace_struct

from gateway.events import AnswerEvent, ChoiceDelta, ChoiceFinished, ChoiceStarted
from gateway.fan_in import fan_in
from gateway.loop_ledger import LoopLedger
from gateway.policy import Plan
from gateway.second_opinion import with_second_opinion
from specialists.engine.protocol import Engine
from specialists.errors import WorkerLost
from specialists.manifest import SpecialistManifest
from specialists.reasoning import Channel, Piece, ReasoningSplitter
from specialists.request import (
    ChatPrompt,
    Finished,
    GenerationEvent,
    GenerationRequest,
    LoopReport,
    Started,
    TokenLogprob,
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

    def acquire(self, manifest: SpecialistManifest) -> AbstractAsyncContextManager[SpecialistLease]: ...


class GenerationObserver(Protocol):
    """What is told to whoever keeps the metrics; `specialist` is always a tag of the catalogue."""

    def first_token(self, specialist: str, *, seconds: float) -> None:
        """The first text came this long after the request."""

    def next_token(self, specialist: str, *, seconds: float) -> None:
        """Text came this long after the text before, per token."""

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
    that nobody sees before they are complete. `loops` says by choice what the loop guard did.
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

    def events(self) -> AsyncGenerator[AnswerEvent]:
        """Yield the events of all choices. Closing it aborts what still runs and gives the lease back.

        Raises every error of `specialists.errors` that a pool or an engine may raise. An engine lost before any
        text is replaced once, unseen; ChoiceStarted may then come twice. `loops` is complete when the events are.
        """
        return self._generated() if self.fallback is None else self._with_fallback(self.fallback)

    async def _with_fallback(self, fallback: "Answer") -> AsyncGenerator[AnswerEvent]:
        both = with_second_opinion(self._generated(), fallback.some_events, tag=fallback.manifest.tag)
        async with aclosing(both) as events:
            async for event in events:
                if type(event) is ChoiceFinished and event.loop is not None:
                    self.loops[event.index] = event.loop
                yield event

    async def some_events(self, indices: Sequence[int]) -> AsyncGenerator[AnswerEvent]:
        """The events of these choices alone."""
        generations = tuple(self.plan.generations[index] for index in indices)
        part = replace(self, plan=replace(self.plan, generations=generations), fallback=None)
        async with aclosing(part.events()) as events:
            async for event in events:
                yield replace_struct(event, index=indices[event.index])

    async def _generated(self) -> AsyncGenerator[AnswerEvent]:
        begun = self.clock()
        is_first_try = True
        while True:
            has_text = False
            try:
                async with self.pool.acquire(self.manifest) as lease:
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
        speech = _Speech(index, generation)
        stopwatch = _Stopwatch(self.manifest.tag, self.observer, self.clock, begun)
        try:
            async with aclosing(_closable(engine, generation)) as events:
                async for event in events:
                    if type(event) is Tokens:
                        stopwatch.text(event.num_draws)
                        for delta in speech.hear(event):
                            yield delta
                    elif type(event) is Started:
                        stopwatch.started(event)
                        yield ChoiceStarted(index, event)
                    elif type(event) is Finished:
                        stopwatch.finished(event)
                        for delta in speech.end():
                            yield delta
                        if event.loop is not None:
                            self.loops[index] = event.loop
                            self._note_loops(generation.id, event.loop)
                        yield ChoiceFinished(index, event.reason, event.usage, event.loop)
        finally:
            stopwatch.stop()

    def _note_loops(self, id: str, report: LoopReport) -> None:
        self.observer.guarded(self.manifest.tag, self.decision.domain, report)
        self.ledger.record(id, self.manifest.tag, self.decision.domain, report)


def _says_something(event: AnswerEvent) -> bool:
    return type(event) is ChoiceFinished or (type(event) is ChoiceDelta and bool(event.content or event.reasoning))


def _closable(engine: Engine, generation: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
    """An engine's iterator is aborted by closing it, so it is a generator; the protocol's type does not say so."""
    return cast(AsyncGenerator[GenerationEvent], engine.generate(generation))


class _Speech:
    """Turns the text of one generation into deltas, with reasoning apart from content.

    Log-probabilities wait for the content they belong to; those of reasoning are dropped with it.
    """

    def __init__(self, index: int, generation: GenerationRequest) -> None:
        self._index = index
        # A schema leaves no room for reasoning, and its strings may well speak of markers; raw text is raw.
        is_free_chat = isinstance(generation.prompt, ChatPrompt) and generation.json_schema is None
        self._splitter = ReasoningSplitter() if is_free_chat else None
        self._logprobs: tuple[TokenLogprob, ...] = ()

    def hear(self, event: Tokens) -> Iterator[ChoiceDelta]:
        if self._splitter is None:
            yield ChoiceDelta(self._index, event.text, "", event.logprobs)
            return
        self._logprobs += event.logprobs
        yield from self._deltas(self._splitter.push(event.text))

    def end(self) -> Iterator[ChoiceDelta]:
        if self._splitter is not None:
            yield from self._deltas(self._splitter.finish())

    def _deltas(self, pieces: list[Piece]) -> Iterator[ChoiceDelta]:
        for channel, text in pieces:
            logprobs, self._logprobs = self._logprobs, ()
            if channel is Channel.CONTENT:
                yield ChoiceDelta(self._index, text, "", logprobs)
            else:
                yield ChoiceDelta(self._index, "", text, ())


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
