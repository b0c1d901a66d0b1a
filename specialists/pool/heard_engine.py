"""An engine whose generations are listened to: which conversations it holds by then, and how fast it reads prompts."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, cast

from specialists.engine.protocol import Engine, EngineSpec
from specialists.pool.histories import HeldHistories, history_of
from specialists.pool.pace import Pace
from specialists.request import GenerationEvent, GenerationRequest, Started


class HeardEngine:
    """`engine`, loaded as `spec`; what it holds is kept in `held`, its pace in `pace`."""

    def __init__(
        self, engine: Engine, spec: EngineSpec, held: HeldHistories, pace: Pace, clock: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._held = held
        self._pace = pace
        self._clock = clock

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """See `protocol.Engine`. Closing it closes the engine's own."""
        computed, since = 0, None
        events = cast(AsyncGenerator[GenerationEvent], self._engine.generate(request))
        async with aclosing(events):
            async for event in events:
                if type(event) is Started:
                    self._note(request, event)
                    computed, since = event.prompt_tokens - event.cached_tokens, self._clock()
                elif since is not None:
                    self._pace.note_prefill(self._spec, computed, self._clock() - since)
                    since = None
                yield event

    def _note(self, request: GenerationRequest, event: Started) -> None:
        self._held.note(
            request.specialist,
            history_of(request.prompt),
            prompt_tokens=event.prompt_tokens,
            cached_tokens=event.cached_tokens,
        )

    def __getattr__(self, name: str) -> Any:
        """All else is the engine's own."""
        return getattr(self._engine, name)


def heard(engine: Engine, spec: EngineSpec, held: HeldHistories, pace: Pace, clock: Callable[[], float]) -> Engine:
    """`engine`, whose generations are listened to."""
    return cast(Engine, HeardEngine(engine, spec, held, pace, clock))
