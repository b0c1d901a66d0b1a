"""Who asks, for as long as one request takes: known to whoever works for it, without being handed through every call.

The guard sets it once the key is known; the tasks that a request starts inherit it. Without keys it is nobody, who has
no limits and no priority.
"""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from gateway.answer import GenerationObserver
from specialists.request import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """`spend` is told what was used in the caller's name, in tokens: of prompts, then of answers."""

    name: str = ""
    priority: int = 0
    spend: Callable[[int, int], None] = lambda prompt_tokens, completion_tokens: None


NOBODY = Caller()
_caller: ContextVar[Caller] = ContextVar("caller", default=NOBODY)


def current_caller() -> Caller:
    return _caller.get()


def set_caller(caller: Caller) -> None:
    """For the rest of this request."""
    _caller.set(caller)


class Billed:
    """A GenerationObserver that also tells the caller what each generation cost, complete or not."""

    def __init__(self, observer: GenerationObserver) -> None:
        self._observer = observer
        self.first_token = observer.first_token
        self.next_token = observer.next_token  # once per token: no call in between
        self.guarded = observer.guarded
        self.calculated = observer.calculated

    def generated(self, specialist: str, usage: Usage) -> None:
        self._observer.generated(specialist, usage)
        current_caller().spend(usage.prompt_tokens, usage.completion_tokens)
