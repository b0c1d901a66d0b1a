"""No body costs more than its bounds allow: size, pauses, depth, and numbers that are none."""

import asyncio
import math
from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from gateway.errors import BodyTooLarge, BodyTooSlow, MalformedBody
from gateway.limits import BodyLimits, parse_json

pytestmark = pytest.mark.anyio

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.binary(max_size=200) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    """There is no third outcome: nothing else is ever raised."""
    with suppress(MalformedBody):
        parse_json(body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"a": {"b": [1, NaN]}}', "a.b.1"),
        (b'{"temperature": Infinity}', "temperature"),
        (b'{"temperature": -1e999}', "temperature"),
        (b"1E400", None),
    ],
)
def test_numbers_that_are_not_finite_are_refused_where_they_are(body: bytes, param: str | None) -> None:
    """NaN, Infinity and 1e999 are found anywhere, even in fields nobody reads."""
    with pytest.raises(MalformedBody, match="finite") as caught:
        parse_json(body)

    assert caught.value.param == param


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"[" * 300 + b"]" * 300,
        b"",
        b"{",
        b"\xff\xfe",
        b'"\\ud800"',
        b"1" * 5000,
        b"{'a': 1}",
        b'{"a": 1} {"b": 2}',
    ],
)
def test_what_is_no_moderate_json_is_refused(body: bytes) -> None:
    """Depth, encoding, lone surrogates and endless numbers end in the same plain error."""
    with pytest.raises(MalformedBody, match="not acceptable JSON"):
        parse_json(body)


def test_huge_but_finite_integers_are_left_to_the_schema() -> None:
    """2^63 is a legal number; what it means is decided where the field is known."""
    assert parse_json(b'{"max_tokens": 9223372036854775808}') == {"max_tokens": 2**63}
    assert math.isclose(parse_json(b"1e3"), 1000.0)  # type: ignore[arg-type]


# ── the middleware ───────────────────────────────────────────────────────────


class Recorder:
    """An application that reads its whole body, then waits for one message more."""

    def __init__(self) -> None:
        self.body = b""
        self.error: Exception | None = None
        self.after: Message | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            more = True
            while more:
                message = await receive()
                self.body += message.get("body", b"")
                more = message.get("more_body", False)
            self.after = await receive()
        except (BodyTooLarge, BodyTooSlow) as error:
            self.error = error


async def offer(
    chunks: Iterable[bytes], *, declared: int | None = None, pause: asyncio.Event | None = None
) -> tuple[Recorder, list[Message]]:
    """Send chunks through the limits (10 bytes, 10 ms); `pause` is awaited after them."""
    waiting = list(chunks)
    sent: list[Message] = []

    async def receive() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting) or pause is not None}
        if pause is not None:
            await pause.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    app = Recorder()
    headers = [] if declared is None else [(b"content-length", str(declared).encode())]
    limits = BodyLimits(app, max_body_bytes=10, body_timeout_seconds=0.01)
    await limits({"type": "http", "headers": headers, "state": {}}, receive, send)
    return app, sent


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=6))
def test_a_body_within_bounds_passes_unchanged(chunks: list[bytes]) -> None:
    """Up to the limit nothing is altered; beyond it the reader is told."""
    app, sent = asyncio.run(offer(chunks))

    if sum(map(len, chunks)) <= 10:
        assert (app.body, app.error) == (b"".join(chunks), None)
    else:
        assert isinstance(app.error, BodyTooLarge)
    assert sent == []


async def test_a_declared_size_is_judged_before_a_byte_is_read() -> None:
    """The application is not even called."""
    app, sent = await offer([b"x"], declared=11)

    assert app.body == b""
    assert sent[0]["status"] == 413
    assert (b"connection", b"close") in sent[0]["headers"]


async def test_a_body_that_pauses_too_long_is_given_up() -> None:
    """Somebody who sends a byte now and then does not hold a request open."""
    app, _ = await offer([b"x"], pause=asyncio.Event())

    assert isinstance(app.error, BodyTooSlow)


async def test_the_limits_end_with_the_body() -> None:
    """Waiting for the client to leave may take as long as an answer takes."""
    app, _ = await offer([b"x"])

    assert app.after == {"type": "http.disconnect"}
