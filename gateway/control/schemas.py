"""What the control routes read and say."""

from typing import Annotated, Any, Self

import msgspec
from pydantic import Field, model_validator

from gateway.openai.schemas import MAX_MESSAGES, ChatMessage, ConversationId, UserName
from gateway.openai.strict import Strict
from gateway.request import ConversationThread
from specialists.request import Message
from supervisor.decisions import Decision

MAX_DECISION_ID_CHARACTERS = 64
MAX_DOMAIN_CHARACTERS = 64
MAX_LESSON_CHARACTERS = 16_384
MAX_CHECKED_SLOTS = 1024  # of a frame: one slot of a large parent is some 3 MB, and nothing is decoded meanwhile


class ClassifyBody(Strict):
    """A question to classify: one text, or a conversation."""

    text: str | None = None
    messages: Annotated[list[ChatMessage] | None, Field(min_length=1, max_length=MAX_MESSAGES)] = None
    user: UserName | None = None
    metadata: ConversationId = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.messages is None):
            raise ValueError("send either 'text' or 'messages'")
        return self

    def conversation(self) -> list[Message]:
        if self.messages is not None:
            return [Message(message.role, message.content or "") for message in self.messages]
        return [Message("user", self.text or "")]

    def thread(self) -> ConversationThread:
        return ConversationThread(user=self.user, conversation_id=self.metadata)


class FeedbackBody(Strict):
    """Whose question it was, and where it belongs; `text` stands in for a question that is no longer remembered."""

    decision_id: Annotated[str, Field(min_length=1, max_length=MAX_DECISION_ID_CHARACTERS)]
    domain: Annotated[str, Field(min_length=1, max_length=MAX_DOMAIN_CHARACTERS)]
    text: Annotated[str, Field(min_length=1, max_length=MAX_LESSON_CHARACTERS)] | None = None


class CheckBody(Strict):
    """How many slots of each frame to compare, and which random sample of them."""

    slots: Annotated[int, Field(ge=1, le=MAX_CHECKED_SLOTS)] = 64
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class PinBody(Strict):
    pinned: bool = True


def classification_object(decision: Decision) -> dict[str, Any]:
    """What was decided and why. `evidence` quotes the message, to whoever sent it, and may be None."""
    return {
        "domain": decision.domain,
        "confidence": decision.confidence,
        "specialist": decision.tag,
        "abstained": decision.abstained,
        "reason": decision.reason,
        "domains": [{"domain": domain, "probability": probability} for domain, probability in decision.domains],
        "conformal_set": list(decision.conformal_set),
        "classifier_reason": decision.classifier_reason,
        "evidence": msgspec.to_builtins(decision.evidence, enc_hook=str),
        "candidates": msgspec.to_builtins(decision.choice.terms),
        "model_version": decision.model_version,
        "decision_id": decision.decision_id,
    }
