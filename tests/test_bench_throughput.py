"""The benches against a small server on loopback that speaks just enough HTTP and SSE, and records what it saw."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from bench import overhead, throughput
from bench.load import Target, Timing, chat_body, openai_base, run_load
from bench.report import Percentiles, Summary, middle, percentile, ratio, summarise

pytestmark = pytest.mark.anyio


class SmallServer:
    """Answers every chat with `words`; `gather` holds all answers back until that many requests are in flight."""

    def __init__(self, *, words: tuple[str, ...] = ("one", " two", " three"), gather: int = 1) -> None:
        self.words = words
        self.gather = gather
        self.bodies: list[dict[str, Any]] = []
        self.most_in_flight = 0
        self.broken = False
        self.url = ""
        self._in_flight = 0
        self._gathered = asyncio.Event()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["SmallServer"]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(next(line.split(b":")[1] for line in head.lower().split(b"\r\n") if b"content-length" in line))
        body = json.loads(await reader.readexactly(length))
        self.bodies.append(body)
        await self._wait_for_company()
        kind, payload = self._payload(body)
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: " + kind + b"\r\n\r\n")
        for piece in payload:
            writer.write(piece)
            await writer.drain()
        self._in_flight -= 1
        writer.close()

    async def _wait_for_company(self) -> None:
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        if self._in_flight >= self.gather:
            self._gathered.set()
        await self._gathered.wait()

    def _payload(self, body: dict[str, Any]) -> tuple[bytes, list[bytes]]:
        if not body.get("stream"):
            return b"application/json", [json.dumps({"choices": [], "coe": {"engine_ms": 0.0}}).encode()]
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in self.words
        ]
        usage = {"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}
        end: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]},
            {"choices": [], "usage": usage},
        ]
        lost: list[dict[str, Any]] = [{"error": {"message": "worker lost"}}]
        chunks += lost if self.broken else end
        lines = [b": keepalive\n\n"] + [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
        return b"text/event-stream", lines if self.broken else [*lines, b"data: [DONE]\n\n"]


def ticking() -> Callable[[], float]:
    """A clock that is one second later at every look."""
    counter = itertools.count()
    return lambda: float(next(counter))


def target(server: SmallServer) -> Target:
    return Target(name="ours", base_url=openai_base(server.url), model="auto")


def bodies(server: SmallServer, count: int) -> list[dict[str, Any]]:
    messages = [{"role": "user", "content": "hello"}]
    return [chat_body(target(server), messages, max_tokens=5, seed=index) for index in range(count)]


async def test_counts_come_from_usage_and_times_from_the_clock() -> None:
    """Tokens are the server's count, not the number of chunks, and each time is the clock's difference."""
    async with SmallServer().serving() as server, httpx.AsyncClient() as client:
        result = await run_load(client, target(server), bodies(server, 1), concurrency=1, clock=ticking())

    expected = Timing(
        first_token_seconds=1.0,
        pause_seconds=(1.0, 1.0),
        total_seconds=4.0,
        prompt_tokens=7,
        cached_tokens=2,
        completion_tokens=5,
        reached_limit=True,
    )
    assert result.timings == (expected,)
    assert expected.seconds_per_token == 0.5
    assert result.seconds == 6.0
    assert result.tokens_per_second == pytest.approx(5 / 6)


def test_a_prefill_is_where_the_answer_begins() -> None:
    """A server that is given the beginning of its answers gets it as the last message, from the assistant."""
    peer = Target(name="peer", base_url="http://127.0.0.1/v1", model="m", prefill="<think></think>\n")
    body = chat_body(peer, [{"role": "user", "content": "hello"}], max_tokens=5, seed=0)
    assert body["messages"][-1] == {"role": "assistant", "content": "<think></think>\n"}


async def test_exactly_the_asked_number_of_clients_is_in_flight() -> None:
    """Four clients send four requests before the first answer, and never a fifth beside them."""
    async with SmallServer(gather=4).serving() as server, httpx.AsyncClient() as client:
        result = await run_load(client, target(server), bodies(server, 12), concurrency=4)

    assert len(result.timings) == 12
    assert server.most_in_flight == 4


async def test_an_in_band_error_is_a_failure() -> None:
    """A stream that breaks after its first word is counted as failed, and its words not as tokens."""
    async with SmallServer().serving() as server, httpx.AsyncClient() as client:
        server.broken = True
        result = await run_load(client, target(server), bodies(server, 2), concurrency=1)

    assert result.timings == ()
    assert len(result.failures) == 2
    assert "worker lost" in result.failures[0]


async def test_a_peer_gets_the_same_load_in_turn(capsys: pytest.CaptureFixture[str]) -> None:
    """Both servers see the same conversations, and the report holds one summary a round and the ratios."""
    async with SmallServer().serving() as ours, SmallServer().serving() as peer:
        arguments = ["--url", ours.url, "--peer", peer.url, "--peer-model", "other", "--concurrency", "1,2"]
        code = await throughput.run([*arguments, "--requests", "3", "--rounds", "2", "--max-tokens", "5", "--json"])

    report = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [load["concurrency"] for load in report["loads"]] == [1, 2]
    assert [len(load["peer"]) for load in report["loads"]] == [2, 2]
    assert report["loads"][0]["ratios"]["tokens_per_second"]["lowest"] > 0
    assert {body["model"] for body in peer.bodies} == {"other"}

    def sent(server: SmallServer) -> list[str]:
        return sorted(str(body["messages"]) for body in server.bodies)

    assert sent(ours) == sent(peer)
    assert len(set(sent(ours))) == len(ours.bodies)


async def test_the_shared_system_prompt_begins_every_chat(capsys: pytest.CaptureFixture[str]) -> None:
    """With --shared-system all conversations have an equal first message of some length."""
    async with SmallServer().serving() as server:
        await throughput.run(["--url", server.url, "--concurrency", "2", "--rounds", "1", "--shared-system"])

    openings = {(body["messages"][0]["role"], body["messages"][0]["content"]) for body in server.bodies}
    assert len(openings) == 1
    assert len(openings.pop()[1].split()) > 300
    assert "tokens/s" in capsys.readouterr().out


async def test_a_server_that_is_not_there_is_a_failure_not_a_crash(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing listens: exit code 1, and the reason in words."""
    async with SmallServer().serving() as server:
        url = server.url
    code = await throughput.run(["--url", url, "--concurrency", "1", "--rounds", "1", "--requests", "1"])

    assert code == 1
    assert "ConnectError" in capsys.readouterr().err


async def test_overhead_is_the_time_the_engine_did_not_take() -> None:
    """With an engine that reports 0 ms, all of a request's time is overhead."""
    async with SmallServer().serving() as server:

        def ask() -> list[float]:
            with httpx.Client() as client:
                return overhead.overhead_seconds(client, server.url, "auto", requests=3, clock=ticking())

        assert await asyncio.to_thread(ask) == [1.0, 1.0, 1.0]
    assert {body["max_tokens"] for body in server.bodies} == {1}


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
async def test_an_address_may_end_in_v1_or_not(url: str) -> None:
    """Whatever people paste, one base comes of it."""
    assert openai_base(url) == "http://h:1/v1"


async def test_percentiles_interpolate_and_stand_empty_input() -> None:
    """The ends are the extremes, the middle is the median, and no values give 0."""
    assert [percentile([4.0, 1.0, 3.0, 2.0], share) for share in (0.0, 0.5, 1.0)] == [1.0, 2.5, 4.0]
    assert percentile([], 0.5) == 0.0


async def test_ratios_are_taken_round_by_round() -> None:
    """The spread is that of the pairs, and a server that gave nothing has no ratio."""
    found = ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0])

    assert found is not None
    assert (found.median, found.lowest, found.highest) == (2.0, 1.0, 3.0)
    assert ratio([1.0], [0.0]) is None


async def test_the_middle_round_is_a_real_round() -> None:
    """Of an even number of rounds the lower middle one is shown."""

    def summary(speed: float) -> Summary:
        zero = Percentiles(0.0, 0.0, 0.0)
        return Summary(
            tokens_per_second=speed, first_token_ms=zero, per_token_ms=zero, pause_ms=zero, requests=1, failed=0,
            completion_tokens=1, prompt_tokens=1, cached_tokens=0, reached_limit=0,
        )  # fmt: skip

    assert middle([summary(3.0), summary(1.0), summary(2.0), summary(4.0)]).tokens_per_second == 2.0


async def test_a_summary_counts_failures_among_the_requests() -> None:
    """Requests are those that ended well and those that did not."""
    async with SmallServer().serving() as server, httpx.AsyncClient() as client:
        good = summarise(await run_load(client, target(server), bodies(server, 3), concurrency=1))
        server.broken = True
        bad = summarise(await run_load(client, target(server), bodies(server, 2), concurrency=1))

    assert (good.requests, good.failed, good.completion_tokens, good.cached_tokens) == (3, 0, 15, 6)
    assert (bad.requests, bad.failed, bad.tokens_per_second) == (2, 2, 0.0)
