"""What the engine has to say, and when saying it is worth a write.

An engine that computes on the CPU shares its cores with everybody who handles its words: each write wakes the gateway
and the client, and the next token waits meanwhile. So text may wait a few hundredths of a second for more of the same
request, too short to be seen; the first text of an answer, ends and failures leave at once and take along what waits.
"""

from specialists.engine.messages import Event, Failed, FromEngine, Heartbeat
from specialists.request import Finished, Started, Tokens


class Outbox:
    """Messages in order; waiting texts of one request become one. `text_interval_seconds` 0 sends after every step."""

    def __init__(self, *, text_interval_seconds: float) -> None:
        self._text_interval_seconds = text_interval_seconds
        self._messages: list[FromEngine] = []
        self._last_text: dict[str, int] = {}  # request id → where in `_messages` its waiting text is
        self._expecting: set[str] = set()  # requests that have started and said nothing yet
        self._is_urgent = False
        self._last_taken = float("-inf")

    def put(self, message: FromEngine) -> None:
        if isinstance(message, Event) and isinstance(message.event, Tokens):
            self._put_text(message.id, message.event)
            return
        self._messages.append(message)
        match message:
            case Event(id, Started()):
                self._expecting.add(id)
                self._is_urgent = True
            case Event(id, Finished()) | Failed(id):
                self.forget(id)
                self._is_urgent = True
            case Heartbeat():
                pass
            case _:
                self._is_urgent = True

    def _put_text(self, id: str, more: Tokens) -> None:
        index = self._last_text.get(id)
        if index is not None:
            waiting = self._messages[index]
            assert isinstance(waiting, Event)
            assert isinstance(waiting.event, Tokens)
            self._messages[index] = Event(id, _joined(waiting.event, more))
            return
        self._last_text[id] = len(self._messages)
        self._messages.append(Event(id, more))
        if id in self._expecting:
            self._expecting.remove(id)
            self._is_urgent = True

    def forget(self, id: str) -> None:
        """The request is over: nothing of it is expected, and what it has said stays as it is."""
        self._expecting.discard(id)
        self._last_text.pop(id, None)

    def take(self, now: float, *, is_idle: bool) -> list[FromEngine]:
        """What is to be written now, often nothing. `is_idle`: no step will follow soon, so nothing may wait."""
        is_due = self._is_urgent or is_idle or now - self._last_taken >= self._text_interval_seconds
        if not is_due or not self._messages:
            return []
        taken, self._messages = self._messages, []
        self._last_text.clear()
        self._is_urgent = False
        self._last_taken = now
        return taken


def _joined(first: Tokens, second: Tokens) -> Tokens:
    return Tokens(first.text + second.text, first.logprobs + second.logprobs, first.num_draws + second.num_draws)
