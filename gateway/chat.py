"""From a client's request to an Answer: choose the specialist, apply the policy.

Everything that can fail at once fails here (unknown model, a request against the rules); the slow part is in the
Answer's events. Knows no HTTP. Classifying for `auto` is a Chooser's work; without one the college's default
specialist answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.answer import Answer, GenerationObserver, LeasingPool, RoutingDecision
from gateway.caller import current_caller
from gateway.knowledge.librarian import Librarian, LookUp
from gateway.loop_ledger import LoopLedger
from gateway.policy import RequestPolicy
from gateway.request import NO_THREAD, ChatRequest, CompletionRequest, ConversationThread
from specialists.errors import RequestRejected, SpecialistUnavailable
from specialists.manifest import SpecialistManifest
from specialists.request import Message


class SpecialistDirectory(Protocol):
    """What a catalogue must offer."""

    @property
    def name(self) -> str: ...

    @property
    def default(self) -> str: ...

    @property
    def specialists(self) -> Mapping[str, SpecialistManifest]: ...

    def resolve(self, model: str) -> SpecialistManifest:
        """Raises UnknownSpecialist."""
        ...

    def is_auto(self, model: str) -> bool: ...


class Chooser(Protocol):
    """Decides for `auto`."""

    async def choose(self, messages: Sequence[Message], thread: ConversationThread) -> RoutingDecision:
        """The tag is one of the catalogue's. Never fails: who cannot decide names the default, with the reason."""
        ...


@dataclass(frozen=True, slots=True)
class DefaultChooser:
    """Sends everything to the college's default specialist."""

    catalogue: SpecialistDirectory

    async def choose(self, messages: Sequence[Message], thread: ConversationThread) -> RoutingDecision:
        return _decision(self.catalogue.resolve(self.catalogue.default), reason="default")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatService:
    """Opens answers; holds no state of its own."""

    catalogue: SpecialistDirectory
    pool: LeasingPool
    policy: RequestPolicy
    chooser: Chooser
    observer: GenerationObserver
    loops: LoopLedger
    clock: Callable[[], float]
    librarian: Librarian | None = None

    async def open(self, request: ChatRequest | CompletionRequest, *, request_id: str) -> Answer:
        """Decide who answers, and how. Nothing is loaded or generated yet.

        Raises UnknownSpecialist, SpecialistUnavailable or RequestRejected.
        """
        decision = await self._decide(request)
        manifest = self.catalogue.resolve(decision.tag)
        require_answers(manifest)
        if manifest.unavailable is not None:
            raise SpecialistUnavailable(f"Specialist '{manifest.tag}' cannot be served: {manifest.unavailable}")
        asked, looked_up = await self._look_up(request, manifest)
        answer = self._answer(asked, manifest, decision, request_id)
        if looked_up is not None:
            alone = self._answer(request, manifest, decision, request_id).plan if looked_up.hits else None
            answer = replace(answer, looked_up=looked_up, without_context=alone)
        fallback = self._fallback(request, manifest)
        if fallback is None:
            return answer
        return replace(answer, fallback=self._answer(request, fallback, decision, f"{request_id}-again"))

    async def _look_up(
        self, request: ChatRequest | CompletionRequest, manifest: SpecialistManifest
    ) -> tuple[ChatRequest | CompletionRequest, LookUp | None]:
        """The request with what the specialist's documents say, if it has any and the client does not decline."""
        if self.librarian is None or manifest.knowledge is None:
            return request, None
        if not isinstance(request, ChatRequest) or not request.knowledge:
            return request, None
        return await self.librarian.look_up(request, manifest)

    def _answer(
        self,
        request: ChatRequest | CompletionRequest,
        manifest: SpecialistManifest,
        decision: RoutingDecision,
        request_id: str,
    ) -> Answer:
        return Answer(
            manifest=manifest,
            decision=decision,
            plan=self.policy.apply(request, manifest, request_id=request_id, priority=current_caller().priority),
            pool=self.pool,
            observer=self.observer,
            ledger=self.loops,
            clock=self.clock,
        )

    def _fallback(
        self, request: ChatRequest | CompletionRequest, manifest: SpecialistManifest
    ) -> SpecialistManifest | None:
        """Who answers should this specialist loop beyond rescue; nobody where the client watches it answer."""
        tag = manifest.loop_guard.fallback
        if tag is None or request.is_streamed:
            return None
        fallback = self.catalogue.resolve(tag)
        return None if fallback.unavailable is not None or fallback.tag == manifest.tag else fallback

    async def _decide(self, request: ChatRequest | CompletionRequest) -> RoutingDecision:
        if not self.catalogue.is_auto(request.model):
            return _decision(self.catalogue.resolve(request.model), reason="named")
        thread = request.thread if isinstance(request, ChatRequest) else NO_THREAD
        return await self.chooser.choose(_messages(request), thread)


def require_answers(manifest: SpecialistManifest) -> None:
    """Raises RequestRejected for a model that makes embeddings."""
    if manifest.makes_embeddings:
        raise RequestRejected(
            f"'{manifest.tag}' only makes embeddings; ask it under /v1/embeddings or /api/embed.", param="model"
        )


def _messages(request: ChatRequest | CompletionRequest) -> Sequence[Message]:
    """The conversation to classify; raw prompts count as one user turn each, token ids tell nothing."""
    if isinstance(request, ChatRequest):
        return request.messages
    return [Message(role="user", content=prompt) for prompt in request.prompts if isinstance(prompt, str)]


def _decision(manifest: SpecialistManifest, *, reason: str) -> RoutingDecision:
    domain = manifest.domains[0] if manifest.domains else ""
    return RoutingDecision(tag=manifest.tag, domain=domain, confidence=None, reason=reason)
