"""The supervisor as the gateway sees it: one call that says which specialist answers this turn.

Composes the classifier, the conversation's belief, the choice by expected quality and the log. Whatever is missing
or broken, the answer is a Decision: without a classifier the default specialist's. Synchronous and bound to the CPU;
call it off the event loop. Knows neither HTTP nor the pool: what is in memory and what a swap takes is in the
candidates.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from supervisor.conversation import Turn
from supervisor.decisions import Classification, Classifier, Decision, DecisionLog, Outcome
from supervisor.feedback import FeedbackDesk
from supervisor.follow_up import is_follow_up
from supervisor.hygiene import strip_harness
from supervisor.shadow import Shadow
from supervisor.stickiness import (
    Belief,
    Conversation,
    ConversationKey,
    ConversationStore,
    StickinessParams,
    fingerprint,
    is_continued,
    updated,
)
from supervisor.transfer import Choice, Considerations, Costs, choose, normalised
from supervisor.transfer_fit import TransferTable
from supervisor.transfer_model import Candidate, TransferModel

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """One classification, checked: `evidence` sums to 1, most likely first."""

    evidence: Belief
    abstained: bool
    said: Classification
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """One turn to decide on. `num_turns` and `seen` count and digest the user's turns, `known` is the conversation that
    they continue, None for a new one."""

    turns: Sequence[Turn]
    question: str
    num_turns: int
    seen: str
    key: ConversationKey | None
    known: Conversation | None
    candidates: Sequence[Candidate]
    started: float


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """`default` is the tag of the specialist that answers what nobody else should. `classifier` may be replaced while
    requests are being decided, and is None as long as there is none."""

    default: str
    classifier: Classifier | None = None
    transfer: TransferModel = field(default_factory=lambda: TransferModel(TransferTable.load()))
    costs: Costs = field(default_factory=Costs)
    considerations: Considerations = field(default_factory=Considerations)
    stickiness: StickinessParams = field(default_factory=StickinessParams)
    conversations: ConversationStore = field(default_factory=lambda: ConversationStore(clock=time.monotonic))
    log: DecisionLog = field(default_factory=lambda: DecisionLog(unix_time=time.time))
    shadow: Shadow | None = None
    feedback: FeedbackDesk[Any] | None = None
    clock: Callable[[], float] = time.perf_counter
    new_id: Callable[[], str] = lambda: secrets.token_hex(8)

    def decide(
        self, conversation: Iterable[Turn], conversation_key: ConversationKey | None, candidates: Sequence[Candidate]
    ) -> Decision:
        """Who answers the last user turn. Raises nothing, whatever the conversation holds.

        1. No user has said anything: the default.
        2. The turn leans on a known conversation, or is one already decided: its specialist stays.
        3. Otherwise it is classified. In a known conversation it is read alone, because the belief holds the rest.
        4. The belief, updated by that evidence, and the candidates' costs give the choice.
        """
        request = self._request(conversation, conversation_key, candidates)
        if not request.question.strip():  # 1
            decision = self._fallback(request, "no_text", "no text to classify")
        elif request.known is not None and self._stays(request, request.known):  # 2
            decision = self._follow_up(request, request.known)
        else:
            reading = self._classify(request)  # 3
            decision = self._choose(request, reading)  # 4
        self.log.record(decision, request.question)
        return decision

    def status(self) -> dict[str, Any]:
        """Counts as plain data: conversations in memory, decisions by outcome, and what shadow and feedback say."""
        return {
            "default": self.default,
            "has_classifier": self.classifier is not None,
            "conversations": len(self.conversations),
            "decisions": self.log.outcomes(),
            "shadow": None if self.shadow is None else msgspec.to_builtins(self.shadow.report()),
            "feedback": None if self.feedback is None else msgspec.to_builtins(self.feedback.status()),
        }

    def _request(
        self, conversation: Iterable[Turn], key: ConversationKey | None, candidates: Sequence[Candidate]
    ) -> _Request:
        started = self.clock()
        turns = [turn for turn in conversation if isinstance(turn.text, str)]
        known = self.conversations.get(key) if key is not None and self.considerations.use_stickiness else None
        if known is not None and key is not None and not is_continued(known, turns, key):
            known = None
        return _Request(
            turns=turns,
            question=next((turn.text for turn in reversed(turns) if turn.role == "user"), ""),
            num_turns=sum(turn.role == "user" for turn in turns),
            seen=fingerprint(turns),
            key=key,
            known=known,
            candidates=candidates,
            started=started,
        )

    def _stays(self, request: _Request, known: Conversation) -> bool:
        """Whether the turn was decided before, or leans on what was said before."""
        is_same = (request.num_turns, request.seen) == (known.num_turns, known.fingerprint)
        return is_same or is_follow_up(strip_harness(request.question))

    def _follow_up(self, request: _Request, known: Conversation) -> Decision:
        """The conversation's specialist, or the best one for its belief if that one has gone."""
        if any(each.tag == known.tag and each.is_available for each in request.candidates):
            said = f"A follow-up stays with '{known.tag}'."
            choice = Choice(tag=known.tag, domain=known.domain, kind="kept", sentence=said, terms=())
        else:
            choice = self._weigh(request, known.belief, abstained=known.abstained)
            said = f"A follow-up, but '{known.tag}' is not available. {choice.sentence}"
        self._remember(request, known.belief, choice, abstained=known.abstained)
        return self._decision(
            request, choice=choice, outcome="follow_up", belief=known.belief, reason=said, abstained=known.abstained
        )

    def _choose(self, request: _Request, reading: _Reading | None) -> Decision:
        if reading is None:
            return self._fallback(request, "no_classifier", "no classifier")
        known = request.known
        update = updated(known.belief if known else None, reading.evidence, self.stickiness)
        is_settled = (
            known is not None and not update.is_drift and update.belief[0][1] >= self.stickiness.keep_confidence
        )
        abstained = reading.abstained and not is_settled
        choice = self._weigh(request, update.belief, abstained=abstained)
        self._remember(request, update.belief, choice, abstained=abstained)
        decision = self._decision(
            request,
            choice=choice,
            outcome="abstained" if abstained else "classified",
            belief=update.belief,
            reason=_why(choice, update.belief, known, is_drift=update.is_drift),
            abstained=abstained,
            is_drift=update.is_drift,
            reading=reading,
        )
        if self.feedback is not None:
            self.feedback.remember(decision.decision_id, request.question)
        if self.shadow is not None:
            self.shadow.observe(_to_read(request), reading.said.domain)
        return decision

    def _classify(self, request: _Request) -> _Reading | None:
        """None when there is no classifier or it failed."""
        classifier = self.classifier
        if classifier is None:
            return None
        started = self.clock()
        try:
            said = classifier.classify(_to_read(request))
            evidence = sorted(normalised((name, float(p)) for name, p in said.probabilities), key=lambda each: -each[1])
            if not evidence:
                raise ValueError("the classifier gave no usable probability")
            return _Reading(
                evidence=tuple(evidence),
                abstained=bool(said.abstained),
                said=said,
                seconds=self.clock() - started,
            )
        except Exception as error:  # noqa: BLE001 - a broken classifier costs the choice, never the request
            _logger.warning("the classifier failed with %s", type(error).__name__)  # its message may quote the text
            return None

    def _weigh(self, request: _Request, belief: Belief, *, abstained: bool) -> Choice:
        return choose(
            belief,
            request.candidates,
            self.transfer,
            self.costs,
            self.considerations,
            default=self.default,
            abstained=abstained,
            current=request.known.tag if request.known else None,
        )

    def _fallback(self, request: _Request, outcome: Outcome, reason: str) -> Decision:
        choice = self._weigh(request, (), abstained=True)
        return self._decision(request, choice=choice, outcome=outcome, belief=(), reason=reason, abstained=True)

    def _remember(self, request: _Request, belief: Belief, choice: Choice, *, abstained: bool) -> None:
        if request.key is None or not self.considerations.use_stickiness:
            return
        conversation = Conversation(
            belief=belief,
            tag=choice.tag,
            domain=choice.domain,
            abstained=abstained,
            num_turns=request.num_turns,
            fingerprint=request.seen,
        )
        self.conversations.put(request.key, conversation)

    def _decision(
        self,
        request: _Request,
        *,
        choice: Choice,
        outcome: Outcome,
        belief: Belief,
        reason: str,
        abstained: bool,
        is_drift: bool = False,
        reading: _Reading | None = None,
    ) -> Decision:
        said = reading.said if reading else None
        return Decision(
            decision_id=self.new_id(),
            tag=choice.tag,
            domain=choice.domain,
            confidence=dict(belief).get(choice.domain, 0.0) if belief else None,
            abstained=abstained,
            outcome=outcome,
            reason=reason,
            domains=belief,
            choice=choice,
            conformal_set=tuple(said.conformal_set) if said else (),
            is_drift=is_drift,
            model_version=said.model_version if said else None,
            conversation=request.key.id if request.key else None,
            classifier_reason=said.reason if said else None,
            evidence=said.evidence if said else None,
            seconds=self.clock() - request.started,
            classifier_seconds=reading.seconds if reading else 0.0,
        )


def _to_read(request: _Request) -> Sequence[Turn]:
    """What the classifier sees: the last question alone where a belief stands for the rest, else everything."""
    return request.turns if request.known is None else [Turn("user", request.question)]


def _why(choice: Choice, belief: Belief, known: Conversation | None, *, is_drift: bool) -> str:
    domain, probability = belief[0]
    sure = f"{domain} with probability {probability:.2f}"
    moved = "" if known is None else "The topic moved: " if is_drift else "In this conversation: "
    return f"{moved}{sure}. {choice.sentence}"
