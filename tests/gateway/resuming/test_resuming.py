"""Streams that break and are read on, over real sockets: word for word what an undisturbed client reads."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from gateway.auth import KeyDesk
from gateway.keys import ApiKey, KeyFile, digest_of
from specialists.errors import ModelTooLarge
from specialists.pool.forecast import Forecast
from tests.fakes import FakeClock, Script
from tests.gateway import sse
from tests.gateway.college import FakePool, LiveServer, chat, live_services, services

pytestmark = pytest.mark.anyio

SHORT = 0.02  # seconds; stands in for what takes many of them
PIECES = ("one", " two", " three", " four")
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: chat(stream=True, stream_options={"include_usage": True}),
    COMPLETIONS: {"model": "auto", "prompt": "Count: ", "echo": True, "stream": True},
    RESPONSES: {"model": "auto", "input": "Count", "stream": True},
}
GRACE_SECONDS = 60
RESUMABLE = {"x-resumable": str(GRACE_SECONDS)}


class House:
    """A live gateway whose ids, dates and timers are the test's."""

    def __init__(self, live: LiveServer, clock: FakeClock) -> None:
        self.live = live
        self.clock = clock
        self.client = httpx.AsyncClient(base_url=live.url, timeout=5)

    async def begin(self, path: str = CHAT, *, until: int = 0, **headers: str) -> tuple[str, str]:
        """Ask for a stream, read so many events of it, and hang up: its id, and what was read."""
        async with self.client.stream("POST", path, json=BODIES[path], headers=RESUMABLE | headers) as response:
            assert response.status_code == 200, await response.aread()
            text = await read_events(response, until)
            return response.headers["x-coe-stream"], text

    async def rest(self, id: str, after: int | None, **headers: str) -> httpx.Response:
        last = {} if after is None else {"last-event-id": str(after)}
        return await self.client.get(f"/coe/streams/{id}", headers=last | headers)

    async def detached(self) -> None:
        """Return once the gateway has noticed that the reader left."""
        while "coe_detached_streams 1.0" not in (await self.client.get("/metrics")).text:
            pass


@asynccontextmanager
async def house(pool: FakePool, *, keys: KeyDesk | None = None, **changes: Any) -> AsyncIterator[House]:
    clock = FakeClock()
    made = services(pool, **changes)
    made = replace(
        made, new_id=lambda: "5e" * 12, unix_time=lambda: 1e9, clock=clock, call_later=clock.call_later, keys=keys
    )
    async with live_services(made) as live:
        opened = House(live, clock)
        async with opened.client:
            yield opened


def without_comments(text: str) -> str:
    return re.sub(r"^:.*\n", "", text, flags=re.MULTILINE)


async def read_events(response: httpx.Response, number: int) -> str:
    """So many whole events, none of them a comment."""
    text = ""
    if number:
        async for part in response.aiter_text():
            text += part
            if without_comments(text).count("\n\n") >= number:
                break
    return "".join(f"{block}\n\n" for block in without_comments(text).split("\n\n")[:number])


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"^id: ([0-9]+)$", text, flags=re.MULTILINE)]


async def undisturbed(path: str) -> str:
    async with house(FakePool(Script(pieces=PIECES))) as calm:
        response = await calm.client.post(path, json=BODIES[path], headers=RESUMABLE)
        return without_comments(response.text)


@pytest.mark.parametrize("path", BODIES)
async def test_a_stream_that_breaks_is_read_on_word_for_word(path: str) -> None:
    """Wherever it breaks, with more text to come or none: both parts together are the undisturbed whole."""
    whole = await undisturbed(path)
    num_events = whole.count("\n\n")
    assert numbers(whole) == list(range(num_events))

    for num_read in range(1, num_events + 1):
        gate = asyncio.Event()
        pool = FakePool(Script(pieces=PIECES, gates={min(num_read, len(PIECES)): gate}))
        async with house(pool, keepalive_seconds=SHORT) as broken:
            if num_read > len(PIECES):
                gate.set()
            id, first = await broken.begin(path, until=num_read)
            gate.set()
            response = await broken.rest(id, numbers(first)[-1])
        assert first + without_comments(response.text) == whole
        assert pool.engines[0].aborted == []


async def test_one_that_breaks_in_the_queue_is_read_from_the_start() -> None:
    """Its name came with the early 200; nothing had been said."""
    pool = FakePool(Script(pieces=PIECES))
    pool.gate, pool.forecast = asyncio.Event(), Forecast(2, 3.14)
    async with house(pool, hold_headers_seconds=SHORT) as broken:
        id, _ = await broken.begin()
        await broken.detached()
        assert pool.num_waiting == 1
        pool.gate.set()
        response = await broken.rest(id, None)

    assert without_comments(response.text) == await undisturbed(CHAT)


async def test_one_that_breaks_in_prefill_or_after_its_end_is_read_as_well() -> None:
    """Before the first text, and when everything had been said; twice, since reading takes nothing away."""
    gate = asyncio.Event()
    pool = FakePool(Script(pieces=PIECES, gates={0: gate}))
    async with house(pool, hold_headers_seconds=SHORT) as broken:
        id, _ = await broken.begin()
        gate.set()
        first, second = await broken.rest(id, None), await broken.rest(id, None)
        assert first.headers["x-coe-specialist"] == "coe-general:q4"
        last = numbers(first.text)[-1]
        nothing = await broken.rest(id, last)

    whole = await undisturbed(CHAT)
    assert [without_comments(each.text) for each in (first, second, nothing)] == [whole, whole, ""]


async def test_a_client_that_leaves_before_it_has_the_name_ends_the_generation() -> None:
    """It can never come back, so its slot is free at once."""
    pool = FakePool(Script(gates={0: asyncio.Event()}))
    async with house(pool) as broken:
        asking = asyncio.ensure_future(broken.begin())
        await pool.leased_one.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await pool.released.wait()

    assert len(pool.engines[0].aborted) == 1


async def test_when_nobody_comes_back_the_slot_is_freed() -> None:
    """After the grace that was asked for; whoever comes later still reads what there was, and that it was cancelled."""
    pool = FakePool(Script(pieces=PIECES, gates={2: asyncio.Event()}))
    async with house(pool) as broken:
        id, _ = await broken.begin(until=2)
        await broken.detached()
        broken.clock.advance(GRACE_SECONDS - 1)
        assert pool.num_held == 1
        broken.clock.advance(1)
        await pool.released.wait()
        text = (await broken.rest(id, None)).text
        broken.clock.advance(broken.live.services.settings.resumable_kept_seconds)
        gone = await broken.rest(id, None)

    assert len(pool.engines[0].aborted) == 1
    assert sse.finish_reasons(without_ids(text)) == []
    assert json.loads(text.rpartition("data: ")[2])["error"]["code"] == "stream_cancelled"
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "stream_not_found")


def without_ids(text: str) -> str:
    return re.sub(r"^id: [0-9]+\n", "", text, flags=re.MULTILINE)


async def test_a_resumable_stream_says_what_any_other_says() -> None:
    """Numbers, and two headers, are all that is different; without the header, or with 0, there are none."""
    async with house(FakePool(Script(pieces=PIECES))) as calm:
        plain = await calm.client.post(CHAT, json=BODIES[CHAT], headers={"x-resumable": "0"})
        resumable = await calm.client.post(CHAT, json=BODIES[CHAT], headers=RESUMABLE)

    assert "x-coe-stream" not in plain.headers
    assert "id: " not in plain.text.replace('"id": ', "")
    assert without_ids(resumable.text) == plain.text
    assert resumable.headers["x-coe-stream"] == sse.chunks(plain.text)[0]["id"]
    assert resumable.headers["x-coe-stream-seconds"] == str(GRACE_SECONDS)


async def test_openais_client_reads_numbers_and_comments_between_them() -> None:
    """It fails on a comment with a blank line after an id, so there is none."""
    gate = asyncio.Event()
    pool = FakePool(Script(pieces=("a", "b"), gates={1: gate}))
    async with house(pool, keepalive_seconds=SHORT, empty_delta_seconds=2 * SHORT) as calm:
        client = AsyncOpenAI(base_url=f"{calm.live.url}/v1", api_key="none", timeout=5)
        async with client:
            stream = await client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "Hi"}], stream=True, extra_headers=RESUMABLE
            )
            text, num_empty = "", 0
            async for chunk in stream:
                delta = chunk.choices[0].delta.content
                text += delta or ""
                num_empty += delta is None
                if num_empty >= 2:
                    gate.set()

    assert text == "ab"


async def test_several_readers_see_the_same() -> None:
    """At once, from different places, beside the one who began it; one who leaves disturbs nobody."""
    gate = asyncio.Event()
    pool = FakePool(Script(pieces=PIECES, gates={2: gate}))
    async with house(pool) as calm:
        first = asyncio.ensure_future(calm.client.post(CHAT, json=BODIES[CHAT], headers=RESUMABLE))
        await pool.leased_one.wait()
        id = f"chatcmpl-{'5e' * 12}"
        others = [asyncio.ensure_future(calm.rest(id, after)) for after in (None, 0, 1)]
        async with calm.client.stream("GET", f"/coe/streams/{id}") as response:
            await read_events(response, 2)
        gate.set()
        texts = [without_comments((await reading).text) for reading in (first, *others)]

    whole = await undisturbed(CHAT)
    blocks = whole.split("\n\n")
    assert texts == [whole, whole, "\n\n".join(blocks[1:]), "\n\n".join(blocks[2:])]


async def test_another_key_neither_reads_nor_ends_it(tmp_path: Path) -> None:
    """For it the stream does not exist; its owner ends it, and pays for what was made, also without a reader."""
    secrets = {"ann": "secret of ann", "bob": "secret of bob"}
    file = KeyFile(tmp_path / "keys.json")
    for name, secret in secrets.items():
        file.add(ApiKey(name=name, sha256=digest_of(secret.encode())))
    ann, bob = ({"x-api-key": secret} for secret in secrets.values())
    pool = FakePool(Script(pieces=PIECES, gates={1: asyncio.Event()}))
    made = services(pool)
    desk = KeyDesk(api_key=None, file=file, observer=made.metrics, clock=FakeClock()).open()
    async with house(pool, keys=desk) as guarded:
        id, _ = await guarded.begin(until=1, **ann)
        for headers in (bob, {}):
            for method in ("GET", "DELETE"):
                refused = await guarded.client.request(method, f"/coe/streams/{id}", headers=headers)
                assert refused.status_code == (404 if headers else 401)
        assert pool.num_held == 1
        ended = await guarded.client.delete(f"/coe/streams/{id}", headers=ann)
        again = await guarded.client.delete(f"/coe/streams/{id}", headers=ann)

    assert (ended.status_code, again.status_code) == (200, 404)
    assert b'coe_key_tokens_total{key="ann",kind="completion"} 1.0' in made.metrics.render()
    assert len(pool.engines[0].aborted) == 1


async def test_whoever_reads_a_stream_that_is_ended_is_told() -> None:
    """An error in it, and no end mark."""
    pool = FakePool(Script(pieces=PIECES, gates={1: asyncio.Event()}))
    async with (
        house(pool) as calm,
        calm.client.stream("POST", CHAT, json=BODIES[CHAT], headers=RESUMABLE) as response,
    ):
        await calm.client.delete(f"/coe/streams/{response.headers['x-coe-stream']}")
        text = "".join([part async for part in response.aiter_text()])

    assert json.loads(text.rpartition("data: ")[2])["error"]["code"] == "stream_cancelled"
    assert sse.DONE not in text


async def test_what_fell_off_is_refused_with_where_it_can_be_read_from() -> None:
    """A 410 that names the oldest event; from there on it is all there."""
    gate = asyncio.Event()
    pool = FakePool(Script(pieces=("x" * 8000,) * 40, gates={1: gate}))
    async with house(pool, resumable_max_bytes=64 * 1024) as small:
        id, first = await small.begin(until=2)
        gate.set()
        await small.live.services.lifecycle.wait_idle()
        lost = await small.rest(id, numbers(first)[-1])
        oldest = int(re.findall(r"oldest that can be read is ([0-9]+)", lost.text)[0])
        found = await small.client.get(f"/coe/streams/{id}?after={oldest - 1}")
        reconnected = await small.rest(f"{id}?after=0", oldest - 1)

    assert (lost.status_code, lost.json()["error"]["code"]) == (410, "events_lost")
    assert numbers(found.text)[0] == oldest > 1
    assert found.text == reconnected.text
    assert found.text.endswith("data: [DONE]\n\n")


async def test_a_reader_that_stalls_is_dropped_and_the_answer_is_made() -> None:
    """The engine does not wait for it: everything has been recorded, and the connection is gone."""
    pool = FakePool(Script(pieces=("x" * 60_000,) * 200))
    async with house(pool, stalled_reader_seconds=SHORT, resumable_max_bytes=16 * 1024**2) as calm:
        body = json.dumps(BODIES[CHAT]).encode()
        reader, writer = await asyncio.open_connection(calm.live.host, calm.live.port, limit=4096)
        head = b"POST %s HTTP/1.1\r\nhost: x\r\nx-resumable: 60\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % (CHAT.encode(), len(body)) + body)
        await reader.readuntil(b"x-coe-stream: ")
        await calm.live.services.lifecycle.wait_idle()
        metrics = (await calm.client.get("/metrics")).text
        writer.close()

    assert len(pool.engines[0].finished) == 1
    assert float(re.findall(r"^coe_resumable_bytes (.*)$", metrics, flags=re.MULTILINE)[0]) > 60_000 * 200


async def test_no_more_are_made_at_once_than_allowed() -> None:
    """Beyond it, a 429 that says when to come again; streams without the header are served as ever."""
    pool = FakePool(Script(pieces=PIECES, gates={1: asyncio.Event()}), Script(pieces=PIECES))
    async with house(pool, resumable_max_streams=1) as small:
        await small.begin(until=1)
        full = await small.client.post(CHAT, json=BODIES[CHAT], headers=RESUMABLE)
        plain = await small.client.post(CHAT, json=BODIES[CHAT])

    assert (full.status_code, full.json()["error"]["code"]) == (429, "too_many_streams")
    assert full.headers["retry-after"] == "5"
    assert plain.status_code == 200


@pytest.mark.parametrize("said", ["-1", "soon", "1.5", "9" * 16, "1e3"])
async def test_a_wish_that_is_no_number_of_seconds_is_refused(said: str) -> None:
    """By the name of the header."""
    async with house(FakePool()) as calm:
        refused = await calm.client.post(CHAT, json=BODIES[CHAT], headers={"x-resumable": said})

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "X-Resumable")


@pytest.mark.parametrize("after", ["-2", "x", "1000"])
async def test_a_number_that_no_event_has_is_refused(after: str) -> None:
    """By its own name; nobody waits for what may never come."""
    async with house(FakePool(Script(pieces=PIECES))) as calm:
        id, _ = await calm.begin(until=1)
        in_query = await calm.client.get(f"/coe/streams/{id}?after={after}")
        in_header = await calm.client.get(f"/coe/streams/{id}", headers={"last-event-id": after})

    assert [(each.status_code, each.json()["error"]["param"]) for each in (in_query, in_header)] == [
        (400, "after"),
        (400, "Last-Event-ID"),
    ]


@pytest.mark.parametrize("path", BODIES)
async def test_a_failure_before_the_first_text_has_an_honest_status(path: str) -> None:
    """As without the header; nothing is kept of it."""
    async with house(FakePool(Script(error=ModelTooLarge("20 GiB of 16 GiB"), error_before=0))) as calm:
        refused = await calm.client.post(path, json=BODIES[path], headers=RESUMABLE)
        metrics = (await calm.client.get("/metrics")).text

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_too_large")
    assert "coe_resumable_bytes 0.0" in metrics


async def test_a_failure_later_on_is_read_by_who_comes_back() -> None:
    """The error is an event of the stream."""
    gate = asyncio.Event()
    pool = FakePool(Script(pieces=PIECES, gates={1: gate}, crash_before=2))
    async with house(pool) as broken:
        id, first = await broken.begin(until=2)
        gate.set()
        text = (await broken.rest(id, numbers(first)[-1])).text

    assert json.loads(text.rpartition("data: ")[2])["error"]["code"] == "worker_lost"
    assert numbers(text) == list(range(2, 2 + len(numbers(text))))


async def test_a_failure_after_an_early_200_is_read_by_who_comes_back() -> None:
    """Its reader left while it waited in the queue, and it never got its turn."""
    pool = FakePool()
    pool.gate, pool.error = asyncio.Event(), ModelTooLarge("20 GiB of 16 GiB")
    async with house(pool, hold_headers_seconds=SHORT) as broken:
        id, _ = await broken.begin()
        await broken.detached()
        pool.gate.set()
        text = (await broken.rest(id, None)).text

    assert json.loads(text.rpartition("data: ")[2])["error"]["code"] == "model_too_large"
    assert sse.finish_reasons(without_ids(without_comments(text))) == []
