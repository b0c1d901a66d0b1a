"""A chat in the terminal with a running gateway, over the same HTTP that every other client uses.

Knows no model, no pool and no settings: an address is all it needs. On a terminal the answer is rendered as
Markdown while it streams; through a pipe each line of input is one message and only the answers come out.
"""

import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

HELP = """\
/model TAG   talk to another specialist (auto: let the college choose)
/clear       forget the conversation
/help        this list
/quit        leave; so does Ctrl-D. Ctrl-C stops an answer."""


class ChatFailed(Exception):
    """The gateway could not be reached or refused; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerInfo:
    """What is known when an answer has ended. Times are seconds since the request was sent."""

    specialist: str
    finish_reason: str
    first_token_seconds: float
    total_seconds: float
    completion_tokens: int | None

    def __str__(self) -> str:
        parts = [self.specialist, f"first token {self.first_token_seconds * 1e3:.0f} ms"]
        answering = self.total_seconds - self.first_token_seconds
        if self.completion_tokens is not None:
            parts.append(f"{self.completion_tokens} tokens")
            if self.completion_tokens > 1 and answering > 0:
                parts.append(f"{(self.completion_tokens - 1) / answering:.1f} tokens/s")
        if self.finish_reason == "length":
            parts.append("cut off at its token limit")
        return " · ".join(parts)


class Screen(Protocol):
    """Where the chat is held: a terminal, a pipe, or a test."""

    def ask(self) -> str:
        """The next line of the person; raises EOFError when there is none."""
        ...

    def show_answer(self, pieces: Iterator[str]) -> None:
        """Show the pieces as they come."""
        ...

    def note(self, text: str) -> None:
        """Something about the chat, not of it."""
        ...

    def complain(self, text: str) -> None: ...


@dataclass(slots=True)
class ChatClient:
    """Streams answers from one gateway. `clock` gives seconds."""

    http: httpx.Client
    base_url: str
    clock: Callable[[], float] = time.perf_counter
    last: AnswerInfo | None = field(default=None, init=False)

    def stream(self, model: str, messages: list[dict[str, str]]) -> Generator[str, None, None]:
        """The answer's text, piece by piece; afterwards `last` describes it. Raises ChatFailed."""
        started = self.clock()
        body = {
            "model": model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        self.last = None
        try:
            with self.http.stream("POST", f"{self.base_url}/v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    response.read()
                    raise ChatFailed(refusal(response))
                yield from self._pieces(response, model, started)
        except httpx.ConnectError as error:
            raise ChatFailed(f"Nothing answers at {self.base_url}; start a gateway with `coe serve`.") from error
        except httpx.HTTPError as error:
            raise ChatFailed(f"The connection to {self.base_url} broke: {error or type(error).__name__}") from error

    def _pieces(self, response: httpx.Response, model: str, started: float) -> Generator[str, None, None]:
        first: float | None = None
        specialist, finish, tokens = response.headers.get("x-coe-specialist", model), "", None
        for chunk in sse_objects(response.iter_bytes()):
            if "error" in chunk:
                raise ChatFailed(f"The answer broke off: {chunk['error'].get('message', chunk['error'])}")
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
            specialist = (chunk.get("coe") or {}).get("specialist", specialist)
            for choice in chunk.get("choices", ()):
                finish = choice.get("finish_reason") or finish
                if text := choice.get("delta", {}).get("content"):
                    first = self.clock() if first is None else first
                    yield text
        if not finish:
            raise ChatFailed("The answer broke off: the connection closed before its end.")
        ended = self.clock()
        self.last = AnswerInfo(
            specialist=specialist,
            finish_reason=finish,
            first_token_seconds=(ended if first is None else first) - started,
            total_seconds=ended - started,
            completion_tokens=tokens,
        )


def sse_objects(body: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON objects of an SSE body; lines end at LF alone, comments and [DONE] are passed over."""
    rest = b""
    for piece in body:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                yield json.loads(data)


def refusal(response: httpx.Response) -> str:
    """The error's own words when the body holds them, else the status."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"The gateway answered {response.status_code}: {response.text[:200]}"


@dataclass(slots=True)
class TerminalChat:
    """One conversation. A turn that fails is taken back, so that it can be asked again."""

    client: ChatClient
    screen: Screen
    model: str
    messages: list[dict[str, str]] = field(default_factory=list)
    failed: bool = False

    def run(self) -> None:
        """Until the person leaves."""
        while True:
            try:
                line = self.screen.ask().strip()
            except (EOFError, KeyboardInterrupt):
                return
            if line in ("/quit", "/exit", "/bye"):
                return
            if line:
                self._take(line)

    def _take(self, line: str) -> None:
        match line.split(maxsplit=1):
            case ["/help"]:
                self.screen.note(HELP)
            case ["/clear"]:
                self.messages.clear()
                self.screen.note("The conversation is forgotten.")
            case ["/model", tag]:
                self.model = tag
                self.screen.note(f"Now talking to {tag}.")
            case ["/model"]:
                self.screen.note(f"Talking to {self.model}. Another one: /model TAG; `coe models` lists them.")
            case [word, *_] if word.startswith("/") and word[1:].isalpha():
                self.screen.note(f"{word} is no command here; /help lists them.")
            case _:
                self._answer(line)

    def _answer(self, question: str) -> None:
        self.messages.append({"role": "user", "content": question})
        said: list[str] = []
        stream = self.client.stream(self.model, self.messages)
        try:
            self.screen.show_answer(_recorded(stream, said))
        except ChatFailed as failure:
            self.failed = True
            self.messages.pop()
            self.screen.complain(str(failure))
            return
        except KeyboardInterrupt:
            stream.close()  # closes the connection, which stops the generation
            self.screen.note("(stopped)")
        if not said:
            self.messages.pop()
            return
        self.messages.append({"role": "assistant", "content": "".join(said)})
        if self.client.last is not None:
            self.screen.note(str(self.client.last))


def _recorded(pieces: Iterator[str], into: list[str]) -> Iterator[str]:
    for piece in pieces:
        into.append(piece)
        yield piece
