"""What was answered, kept for a while in this process: for those who go on from it, and for those who ask again.

Bounded three ways: how many, how many bytes, how long. The oldest goes first; nothing is written to disk. Each caller
sees what was stored in its own name only.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import GatewayError
from specialists.request import Message


class ResponseNotFound(GatewayError):
    status = 404
    code = "response_not_found"


class PreviousResponseNotFound(GatewayError):
    code = "previous_response_not_found"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """`conversation` is all of it, the answer included; `items` are the input of this response alone, as sent."""

    response: dict[str, Any]
    conversation: tuple[Message, ...]
    items: tuple[dict[str, Any], ...]
    owner: str
    stored_at: float
    num_bytes: int


@dataclass(slots=True)
class ResponseStore:
    """`clock` is in seconds and never jumps. Not for several threads."""

    clock: Callable[[], float]
    max_responses: int = 1024
    max_bytes: int = 64 * 1024**2
    lifetime_seconds: float = 3600.0
    num_bytes: int = 0
    _kept: dict[str, StoredResponse] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, stored: StoredResponse) -> None:
        """Keep it, and forget the oldest until everything fits; one that is larger than all the room is not kept."""
        self._forget_old()
        if stored.num_bytes > self.max_bytes:
            return
        self._kept[stored.response["id"]] = stored
        self.num_bytes += stored.num_bytes
        while len(self._kept) > self.max_responses or self.num_bytes > self.max_bytes:
            self._drop(next(iter(self._kept)))

    def get(self, id: str, *, owner: str) -> StoredResponse | None:
        self._forget_old()
        stored = self._kept.get(id)
        return stored if stored is not None and stored.owner == owner else None

    def delete(self, id: str, *, owner: str) -> bool:
        """Forget it; False if it was not known."""
        if self.get(id, owner=owner) is None:
            return False
        self._drop(id)
        return True

    def _forget_old(self) -> None:
        horizon = self.clock() - self.lifetime_seconds
        while self._kept and next(iter(self._kept.values())).stored_at <= horizon:
            self._drop(next(iter(self._kept)))

    def _drop(self, id: str) -> None:
        self.num_bytes -= self._kept.pop(id).num_bytes


def size_of(response: dict[str, Any], conversation: tuple[Message, ...], text: str) -> int:
    """Roughly what keeping it costs, in bytes; `text` is the response and its input as JSON."""
    said = sum(
        len(message.content) + sum(len(call.arguments) + len(call.name) for call in message.tool_calls) + 200
        for message in conversation
    )
    return len(text) + 4 * said
