"""`auto`: asks the supervisor, off the event loop, which specialist should answer a conversation.

Turns the college and the pool into the plain candidates that the supervisor chooses from. Nothing here can fail a
request: without a classifier the supervisor answers with the college's default.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.answer import RoutingDecision
from specialists.engine.protocol import EngineSpec
from specialists.errors import SpecialistError
from specialists.manifest import SpecialistManifest
from specialists.request import Message
from supervisor.classifier import SupervisorClassifier
from supervisor.conversation import Turn
from supervisor.decisions import Decision
from supervisor.errors import SupervisorError
from supervisor.stickiness import conversation_key
from supervisor.supervisor import Supervisor
from supervisor.transfer_model import Candidate

logger = logging.getLogger("gateway")

LOAD_BYTES_PER_SECOND = 1e9  # weights from a disk's cache; the pool does not measure its own loads yet


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorChooser:
    """`resident` says which engines are in memory now; `footprint_bytes` what one would have to load."""

    supervisor: Supervisor
    specialists: Mapping[str, SpecialistManifest]
    resident: Callable[[], Iterable[EngineSpec]]
    footprint_bytes: Callable[[EngineSpec], int]

    async def choose(self, messages: Sequence[Message]) -> RoutingDecision:
        decision = await self.decide(messages)
        return RoutingDecision(
            tag=decision.tag, domain=decision.domain, confidence=decision.confidence, reason=decision.reason
        )

    async def decide(self, messages: Sequence[Message]) -> Decision:
        """The whole decision, with its probabilities and what it was weighed against."""
        return await asyncio.to_thread(self._decide, messages, frozenset(self.resident()))

    def _decide(self, messages: Sequence[Message], resident: frozenset[EngineSpec]) -> Decision:
        turns = [Turn(message.role, message.content) for message in messages]
        return self.supervisor.decide(turns, conversation_key(turns), self._candidates(resident))

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
            return self.footprint_bytes(manifest.engine) / LOAD_BYTES_PER_SECOND
        except SpecialistError:
            return 0.0  # its file has gone since the start; the request that needs it will hear why


def load_classifier(embedder: str) -> SupervisorClassifier | None:
    """The shipped classifier; None, with the reason in the log, if it cannot be loaded: `auto` then means default."""
    try:
        return SupervisorClassifier.load(embedder=embedder)
    except (SupervisorError, OSError, ImportError, ValueError) as error:
        logger.error("the supervisor's classifier cannot be loaded, auto goes to the default specialist: %s", error)
        return None
