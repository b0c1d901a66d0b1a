"""`auto`: asks the supervisor, off the event loop, which specialist should answer a conversation.

Turns the college and the pool into the plain candidates that the supervisor chooses from. Nothing here can fail a
request: without a classifier, or when anything goes wrong on the way, the college's default specialist answers.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.answer import RoutingDecision
from gateway.request import NO_THREAD, ConversationThread
from specialists.engine.protocol import EngineSpec
from specialists.errors import SpecialistError
from specialists.manifest import SpecialistManifest
from specialists.request import Message
from supervisor.conversation import Turn
from supervisor.decisions import Decision
from supervisor.domains import GENERAL
from supervisor.stickiness import conversation_key
from supervisor.supervisor import Supervisor
from supervisor.transfer_model import Candidate

logger = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorChooser:
    """`resident` says which engines are in memory now; `load_seconds` how long one that is not would take to load."""

    supervisor: Supervisor
    specialists: Mapping[str, SpecialistManifest]
    resident: Callable[[], Iterable[EngineSpec]]
    load_seconds: Callable[[EngineSpec], float]

    async def choose(self, messages: Sequence[Message], thread: ConversationThread = NO_THREAD) -> RoutingDecision:
        try:
            decision = await self.decide(messages, thread)
        except Exception as error:  # noqa: BLE001 - the boundary to a part that requests must outlive
            name = type(error).__name__  # its message may quote the text
            logger.error("the supervisor failed with %s, the default specialist answers", name)
            reason = "the supervisor failed"
            return RoutingDecision(
                tag=self.supervisor.default, domain=GENERAL, confidence=None, reason=reason, is_fallback=True
            )
        return RoutingDecision(
            tag=decision.tag,
            domain=decision.domain,
            confidence=decision.confidence,
            reason=decision.reason,
            decision_id=decision.decision_id,
            is_fallback=decision.outcome == "no_classifier",
        )

    async def decide(self, messages: Sequence[Message], thread: ConversationThread = NO_THREAD) -> Decision:
        """The whole decision, with its probabilities and what it was weighed against."""
        return await asyncio.to_thread(self._decide, messages, thread, frozenset(self.resident()))

    def _decide(
        self, messages: Sequence[Message], thread: ConversationThread, resident: frozenset[EngineSpec]
    ) -> Decision:
        turns = [Turn(message.role, message.content) for message in messages]
        key = conversation_key(turns, user=thread.user, conversation_id=thread.conversation_id)
        return self.supervisor.decide(turns, key, self._candidates(resident))

    def _candidates(self, resident: frozenset[EngineSpec]) -> list[Candidate]:
        return [
            Candidate(
                tag=manifest.tag,
                domains=manifest.domains,
                is_resident=manifest.engine in resident,
                swap_seconds=0.0 if manifest.engine in resident else self._swap_seconds(manifest),
                is_available=manifest.unavailable is None,
            )
            for manifest in self.specialists.values()
        ]

    def _swap_seconds(self, manifest: SpecialistManifest) -> float:
        if manifest.unavailable is not None:
            return 0.0  # it is never chosen, so there is no need to look at its file again
        try:
            return self.load_seconds(manifest.engine)
        except SpecialistError:
            return 0.0  # its file has gone since the start; the request that needs it will hear why
