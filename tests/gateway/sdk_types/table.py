"""One line of a compatibility table: a field of an SDK's, what becomes of it here, and how that is proven."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gateway.request import NO_THREAD, ConversationThread
from specialists.request import ChatPrompt, GenerationRequest, Message, SamplingParams, Tool, ToolChoice, ToolUse
from tests.fakes import Script

Fields = Mapping[str, Any]
KEPT = "<what was made before>"
VECTORS = "coe-vectors:q8"  # a model that makes embeddings


class Treatment(StrEnum):
    """As the page says it."""

    HONOURED = "honoured"
    ACCEPTED = "accepted, without effect"
    REFUSED = "refused by name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one call came to: what the engines were asked, and what the SDK made of the answer.

    `error` is the SDK's own, where it raised one; `after` what the call left behind.
    `answer` is the SDK's object, a list of them where it was streamed. `raw` is the last body, with what tells two
    equal answers apart left out.
    """

    requests: Sequence[GenerationRequest]
    thread: ConversationThread = NO_THREAD
    answer: Any = None
    raw: str = ""
    after: Any = None
    keep_alive_seconds: float | None = None
    error: Exception | None = None

    @property
    def request(self) -> GenerationRequest:
        return self.requests[0]

    @property
    def sampling(self) -> SamplingParams:
        return self.request.sampling

    @property
    def messages(self) -> Sequence[Message]:
        prompt = self.request.prompt
        return prompt.messages if isinstance(prompt, ChatPrompt) else ()

    @property
    def texts(self) -> list[str]:
        return [message.content for message in self.messages]

    @property
    def tool_use(self) -> ToolUse | None:
        prompt = self.request.prompt
        return prompt.tool_use if isinstance(prompt, ChatPrompt) else None

    @property
    def tools(self) -> Sequence[Tool]:
        return self.tool_use.tools if self.tool_use else ()

    @property
    def choice(self) -> ToolChoice | None:
        return self.tool_use.choice if self.tool_use else None


Proof = Callable[[Seen], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`sent` are the call's arguments with the field, `beside` those without it that the field needs beside itself.

    `proof` holds of a call with the field and not of one without. `param` is what a refusal calls the field.
    """

    path: str
    treatment: Treatment
    note: str
    sent: Fields
    beside: Fields = field(default_factory=dict)
    proof: Proof | None = None
    param: str = ""
    is_whole: bool = False
    script: Script = field(default_factory=Script)
    settings: Fields = field(default_factory=dict)

    @property
    def ends_the_walk(self) -> bool:
        return self.is_whole or self.treatment is not Treatment.HONOURED


def _sent(path: str, value: Any) -> Fields:
    """The value of a plain argument; of what lies deeper, the arguments that hold it are given."""
    return value if "." in path or "[" in path else {path: value}


def honoured(path: str, value: Any, proof: Proof, note: str = "", **options: Any) -> Row:
    return Row(path=path, treatment=Treatment.HONOURED, note=note, sent=_sent(path, value), proof=proof, **options)


def accepted(path: str, value: Any, note: str, **options: Any) -> Row:
    """`note` says why nothing is lost."""
    return Row(path=path, treatment=Treatment.ACCEPTED, note=note, sent=_sent(path, value), **options)


def refused(path: str, value: Any, note: str = "", *, param: str = "", **options: Any) -> Row:
    return Row(
        path=path, treatment=Treatment.REFUSED, note=note, sent=_sent(path, value), param=param or path, **options
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One method of an SDK's client: `base` are arguments that are answered, `rows` what becomes of each field.

    `body` is the SDK's type of what it sends, if it has one; `route` is where it sends it. `before` makes what the call
    needs to be there, and its id takes the place of KEPT; `after` looks at what the call has left behind.
    """

    name: str
    route: str
    method: Callable[..., Any]
    body: Any = None
    base: Fields = field(default_factory=dict)
    rows: Sequence[Row] = ()
    before: Callable[[Any], Awaitable[str]] | None = None
    after: Callable[[Any, Any], Awaitable[Any]] | None = None

    @property
    def is_ollamas(self) -> bool:
        return " /api/" in self.route
