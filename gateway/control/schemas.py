"""What the control routes read and say."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from gateway.openai.schemas import MAX_MESSAGES, ChatMessage, Strict
from specialists.request import Message
from supervisor.decisions import Decision


class ClassifyBody(Strict):
    """A question to classify: one text, or a conversation."""

    text: str | None = None
    messages: Annotated[list[ChatMessage] | None, Field(min_length=1, max_length=MAX_MESSAGES)] = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.messages is None):
            raise ValueError("send either 'text' or 'messages'")
        return self

    def conversation(self) -> list[Message]:
        if self.messages is not None:
            return [Message(message.role, message.content or "") for message in self.messages]
        return [Message("user", self.text or "")]


def classification_object(decision: Decision) -> dict[str, Any]:
    return {
        "domain": decision.domain,
        "confidence": decision.confidence,
        "specialist": decision.tag,
        "abstained": decision.abstained,
        "reason": decision.reason,
        "domains": [{"domain": domain, "probability": probability} for domain, probability in decision.domains],
        "model_version": decision.model_version,
    }
