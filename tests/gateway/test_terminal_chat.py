"""The terminal chat against an in-memory HTTP transport that speaks SSE, and a screen that records."""

import io
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gateway.terminal_chat import ChatClient, ChatFailed, TerminalChat, sse_objects
from gateway.terminal_screen import PlainScreen, RichScreen, finished_blocks

Handler = Callable[[httpx.Request], httpx.Response]


def sse(*chunks: dict[str, Any]) -> bytes:
    return b": keepalive\n\n" + b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def word(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 11}}


def ticking() -> Callable[[], float]:
    counter = itertools.count()
    return lambda: float(next(counter))


def client(handler: Handler) -> ChatClient:
    return ChatClient(httpx.Client(transport=httpx.MockTransport(handler)), "http://college", clock=ticking())


def answering(*chunks: dict[str, Any], status: int = 200) -> tuple[ChatClient, list[dict[str, Any]]]:
    """A client whose gateway always answers with these chunks, and the request bodies it will see."""
    seen: list[dict[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        headers = {"content-type": "text/event-stream", "x-coe-specialist": "math:q4"}
        return httpx.Response(status, content=sse(*chunks), headers=headers)

    return client(handler), seen


class RecordingScreen:
    def __init__(self, *lines: str) -> None:
        self.lines = iter(lines)
        self.answers: list[str] = []
        self.notes: list[str] = []
        self.complaints: list[str] = []

    def ask(self) -> str:
        try:
            return next(self.lines)
        except StopIteration:
            raise EOFError from None

    def show_answer(self, pieces: Iterator[str]) -> None:
        self.answers.append("".join(pieces))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def complain(self, text: str) -> None:
        self.complaints.append(text)


def test_an_answer_is_streamed_and_described() -> None:
    """The pieces come out in order; specialist, tokens and times are known at the end."""
    chat, _ = answering(word("Four"), word("."), STOP, USAGE)

    assert list(chat.stream("auto", [])) == ["Four", "."]
    assert chat.last is not None
    assert (chat.last.specialist, chat.last.completion_tokens) == ("math:q4", 11)
    assert (chat.last.first_token_seconds, chat.last.total_seconds) == (1.0, 2.0)
    assert "10.0 tokens/s" in str(chat.last)


def test_the_conversation_is_sent_whole() -> None:
    """Each question goes out with everything said before it."""
    chat, seen = answering(word("Four."), STOP, USAGE)
    TerminalChat(chat, RecordingScreen("2+2?", "sure?"), "auto").run()

    assert [message["content"] for message in seen[1]["messages"]] == ["2+2?", "Four.", "sure?"]


def test_commands_change_the_chat_and_are_not_sent() -> None:
    """/model and /clear act at once; a word with a slash that is no command is explained, a path is a question."""
    chat, seen = answering(word("ok"), STOP)
    screen = RecordingScreen("hi", "/model law:q4", "/clear", "/help", "/bogus", "/etc/fstab is what?", "/quit", "x")
    TerminalChat(chat, screen, "auto").run()

    assert [body["model"] for body in seen] == ["auto", "law:q4"]
    assert [message["content"] for message in seen[1]["messages"]] == ["/etc/fstab is what?"]
    assert any("/bogus is no command" in note for note in screen.notes)


def test_a_refusal_is_shown_in_its_own_words_and_the_turn_taken_back() -> None:
    """The error's message reaches the person, and the next question does not drag the failed one along."""
    seen: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(len(json.loads(request.content)["messages"]))
        return httpx.Response(404, json={"error": {"message": "no such specialist: lwa"}})

    screen = RecordingScreen("one", "two")
    chat = TerminalChat(client(handler), screen, "lwa")
    chat.run()

    assert screen.complaints == ["no such specialist: lwa"] * 2
    assert seen == [1, 1]
    assert chat.failed


@pytest.mark.parametrize("chunks", [(word("Fo"),), (word("Fo"), {"error": {"message": "worker lost"}})])
def test_an_answer_that_breaks_off_is_a_failure(chunks: tuple[dict[str, Any], ...]) -> None:
    """Neither a closed connection nor an in-band error passes for a complete answer."""
    chat, _ = answering(*chunks)

    with pytest.raises(ChatFailed, match="broke off"):
        list(chat.stream("auto", []))
    assert chat.last is None


def test_a_missing_gateway_is_named_with_the_mend() -> None:
    """Nothing listens: the message says where, and how to start one."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(ChatFailed, match=r"http://college.*coe serve"):
        list(client(refuse).stream("auto", []))


def test_ctrl_c_stops_the_answer_and_keeps_the_conversation() -> None:
    """What had been said stays part of the conversation, and the chat goes on."""

    class Interrupting(RecordingScreen):
        def show_answer(self, pieces: Iterator[str]) -> None:
            next(pieces)
            raise KeyboardInterrupt

    chat, seen = answering(word("One"), word("two"), STOP)
    TerminalChat(chat, Interrupting("count", "again"), "auto").run()

    assert [message["content"] for message in seen[1]["messages"]] == ["count", "One", "again"]


@given(st.lists(st.text(max_size=20), max_size=6), st.integers(min_value=1, max_value=30))
def test_sse_does_not_depend_on_how_bytes_arrive(texts: list[str], size: int) -> None:
    """However the body is cut into pieces, the same objects come out, U+2028 and all."""
    body = b"".join(b"data: " + json.dumps({"t": text}, ensure_ascii=False).encode() + b"\n\n" for text in texts)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]

    assert [chunk["t"] for chunk in sse_objects(pieces)] == texts


def test_a_pipe_gets_answers_alone() -> None:
    """No prompt, no timing and no banner on standard output; complaints on the error stream."""
    answers, errors = io.StringIO(), io.StringIO()
    chat, _ = answering(word("Four"), word("."), STOP, USAGE)
    TerminalChat(chat, PlainScreen(io.StringIO("2+2?\n\n3+3?\n"), answers, errors), "auto").run()

    assert answers.getvalue() == "Four.\nFour.\n"
    assert errors.getvalue() == ""


def test_a_terminal_shows_all_of_a_long_answer() -> None:
    """An answer taller than the screen is there from its first block to its last."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=40, height=8)
    blocks = [f"paragraph {number}" for number in range(30)]
    RichScreen(console).show_answer(iter("\n\n".join(blocks)))

    assert all(block in output.getvalue() for block in blocks)


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("one", 0),
        ("one\n\ntwo", 5),
        ("one\n\n", 5),
        ("```\na\n\nb", 0),
        ("x\n\n```\na\n\nb", 3),
        ("```\na\n\nb\n```\n\nc", 14),
    ],
)
def test_a_block_ends_at_a_blank_line_outside_code(text: str, finished: int) -> None:
    """A blank line inside a code fence does not end the block."""
    assert finished_blocks(text) == finished
