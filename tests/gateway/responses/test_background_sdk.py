"""Responses in the background through the official SDK: begun, polled, read as a stream from anywhere, cancelled."""

import asyncio
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from specialists.errors import WorkerTimeout
from specialists.request import FinishReason
from tests.fakes import Script
from tests.gateway.college import FakePool
from tests.gateway.responses.test_responses_sdk import TEXT_EVENTS, asked
from tests.gateway.test_openai_sdk import sdk

pytestmark = pytest.mark.anyio

ASK: dict[str, Any] = {"model": "auto", "input": "Hi", "background": True}
EVENTS = [TEXT_EVENTS[0], "response.queued", *TEXT_EVENTS[1:]]


async def finished(client: AsyncOpenAI, id: str) -> Response:
    """Poll as OpenAI's guide does, without the pauses."""
    while True:
        response = await client.responses.retrieve(id)
        if response.status not in ("queued", "in_progress"):
            return response


async def events_of(stream: Any) -> list[Any]:
    return [event async for event in stream]


async def test_it_is_answered_at_once_and_made_afterwards() -> None:
    """Queued, then in progress with what there is, then the very response that would have come at once."""
    gate, gate_of_text = asyncio.Event(), asyncio.Event()
    pool = FakePool(Script(pieces=("Hello", " there"), gates={1: gate_of_text}))
    pool.gate = gate
    async with sdk(pool) as client:
        begun = await client.responses.create(**ASK)
        waiting = await client.responses.retrieve(begun.id)
        gate.set()
        await pool.leased_one.wait()
        while (running := await client.responses.retrieve(begun.id)).output_text != "Hello":
            pass
        items = [item async for item in client.responses.input_items.list(begun.id)]
        gate_of_text.set()
        done = await finished(client, begun.id)
        whole = await client.responses.create(model="auto", input="Hi")

    assert [each.status for each in (begun, waiting, running, done)] == ["queued", "queued", "in_progress", "completed"]
    assert [each.background for each in (begun, done, whole)] == [True, True, False]
    assert [item.type for item in items] == ["message"]
    assert (done.output_text, done.usage) == (whole.output_text, whole.usage)


async def test_it_is_made_also_when_the_client_has_gone() -> None:
    """Another client with the same key finds it."""
    gate = asyncio.Event()
    pool = FakePool(Script(gates={1: gate}))
    async with sdk(pool) as client:
        async with AsyncOpenAI(base_url=client.base_url, api_key="none") as other:
            stream = await other.responses.create(**ASK, stream=True)
            first = await anext(aiter(stream))
            assert first.type == "response.created"
        gate.set()
        done = await finished(client, first.response.id)

    assert (done.status, done.output_text) == ("completed", "Hello there")


@pytest.mark.parametrize("stream", [True, False])
async def test_it_is_read_on_from_any_event(stream: bool) -> None:
    """Whether it was asked for as a stream or not: numbers from 0 in OpenAI's order, and after each the exact rest."""
    async with sdk(FakePool(Script(pieces=("Hel", "lo")))) as client:
        begun: Any = await client.responses.create(**ASK, stream=stream)
        id = (await events_of(begun))[0].response.id if stream else begun.id
        whole = await events_of(await client.responses.retrieve(id, stream=True))
        for after in range(len(whole)):
            rest = await events_of(await client.responses.retrieve(id, stream=True, starting_after=after))
            assert rest == whole[after + 1 :]
        done = await client.responses.retrieve(id)

    assert [event.type for event in whole] == EVENTS
    assert [event.sequence_number for event in whole] == list(range(len(whole)))
    assert whole[-1].response == done


async def test_a_stream_that_broke_goes_on_while_it_is_made() -> None:
    """What was read before and after the break is the whole, and the SDK puts the text together."""
    gate = asyncio.Event()
    pool = FakePool(Script(pieces=("Hel", "lo"), gates={1: gate}))
    async with sdk(pool) as client:
        stream: Any = await client.responses.create(**ASK, stream=True)
        before = []
        async for event in stream:
            before.append(event)
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        gate.set()
        rest = await client.responses.retrieve(
            before[0].response.id, stream=True, starting_after=before[-1].sequence_number
        )
        events = before + await events_of(rest)

    assert [event.type for event in events] == EVENTS
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Hello"


async def test_it_can_be_cancelled() -> None:
    """The engine stops, the response says so and keeps what there was; once more changes nothing; nobody goes on
    from it, and whoever reads it hears an error."""
    pool = FakePool(Script(pieces=("Hello", " there"), gates={1: asyncio.Event()}))
    async with sdk(pool) as client:
        begun = await client.responses.create(**ASK)
        while (await client.responses.retrieve(begun.id)).output_text != "Hello":
            pass
        reading = asyncio.ensure_future(events_of(await client.responses.retrieve(begun.id, stream=True)))
        cancelled = await client.responses.cancel(begun.id)
        assert await client.responses.cancel(begun.id) == cancelled
        assert await client.responses.retrieve(begun.id) == cancelled
        with pytest.raises(openai.APIError, match="cancelled"):
            await reading
        with pytest.raises(openai.BadRequestError, match="cancelled"):
            await client.responses.create(model="auto", input="Go on", previous_response_id=begun.id)

    assert (cancelled.status, cancelled.output_text, cancelled.error) == ("cancelled", "Hello", None)
    assert len(pool.engines[0].aborted) == 1


async def test_it_can_be_cancelled_while_it_waits() -> None:
    """Its turn never comes."""
    pool = FakePool()
    pool.gate = asyncio.Event()
    async with sdk(pool) as client:
        begun = await client.responses.create(**ASK)
        cancelled = await client.responses.cancel(begun.id)

    assert cancelled.status == "cancelled"
    assert pool.leased == []


async def test_only_the_background_can_be_cancelled() -> None:
    """A response that was waited for has nothing to cancel; one that ended in the background stays as it ended."""
    async with sdk() as client:
        whole = await client.responses.create(model="auto", input="Hi")
        with pytest.raises(openai.BadRequestError, match="background"):
            await client.responses.cancel(whole.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.cancel("resp_of_nobody")
        begun = await client.responses.create(**ASK)
        done = await finished(client, begun.id)
        assert await client.responses.cancel(begun.id) == done


async def test_a_failure_is_kept_for_who_asks_later() -> None:
    """With its reason; also what fails before any text, since the 200 has gone out."""
    for script in (
        Script(error=WorkerTimeout("silent"), error_before=0),
        Script(pieces=("a", "b"), error=WorkerTimeout("silent"), error_before=1),
    ):
        async with sdk(FakePool(script)) as client:
            begun = await client.responses.create(**ASK)
            failed = await finished(client, begun.id)
            with pytest.raises(openai.APIError, match="silent"):
                await events_of(await client.responses.retrieve(begun.id, stream=True))

        assert failed.status == "failed"
        assert failed.error is not None
        assert failed.error.message == "silent"


async def test_conversations_go_on_from_it() -> None:
    """Once it has ended, complete or cut; until then there is nothing to go on from."""
    gate = asyncio.Event()
    pool = FakePool(Script(reason=FinishReason.LENGTH, gates={1: gate}), Script())
    async with sdk(pool) as client:
        begun = await client.responses.create(**ASK)
        while (await client.responses.retrieve(begun.id)).status == "queued":
            pass
        with pytest.raises(openai.BadRequestError, match="in_progress"):
            await client.responses.create(model="auto", input="Go on", previous_response_id=begun.id)
        gate.set()
        cut = await finished(client, begun.id)
        await client.responses.create(model="auto", input="Go on", previous_response_id=begun.id)

    assert cut.status == "incomplete"
    assert [message.content for message in asked(pool, 1).messages[1:]] == ["Hi", "Hello there", "Go on"]


async def test_one_that_is_deleted_stops_and_is_forgotten() -> None:
    """By the response's own route, while it is made."""
    pool = FakePool(Script(gates={1: asyncio.Event()}))
    async with sdk(pool) as client:
        begun = await client.responses.create(**ASK)
        await pool.leased_one.wait()
        await client.responses.delete(begun.id)
        for stream in (False, True):
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(begun.id, stream=stream)

    assert len(pool.engines[0].aborted) == 1


async def test_what_was_not_recorded_is_not_streamed_again() -> None:
    """A 400 that says so; the response itself is there."""
    async with sdk() as client:
        whole = await client.responses.create(model="auto", input="Hi")
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.retrieve(whole.id, stream=True)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve("resp_of_nobody", stream=True)

    assert caught.value.param == "stream"


async def test_there_is_a_bound_on_how_many_are_made_at_once() -> None:
    """The next one is refused as beyond any other limit."""
    pool = FakePool(Script(gates={0: asyncio.Event()}))
    async with sdk(pool, resumable_max_streams=2) as client:
        once = client.with_options(max_retries=0)
        for _ in range(2):
            await once.responses.create(**ASK)
        with pytest.raises(openai.RateLimitError) as caught:
            await once.responses.create(**ASK)

    assert caught.value.code == "too_many_streams"


async def test_its_stream_is_one_of_those_that_can_be_resumed() -> None:
    """The same log under both names, with the same numbers."""
    async with sdk() as client, httpx.AsyncClient(base_url=str(client.base_url)) as plain:
        begun = await client.responses.create(**ASK)
        await finished(client, begun.id)
        theirs = await plain.get(f"/responses/{begun.id}", params={"stream": "true", "starting_after": 3})
        ours = await plain.get(f"{client.base_url.copy_with(path='/coe/streams/' + begun.id)}", params={"after": 3})

    assert theirs.text == ours.text
    assert theirs.text.startswith("id: 4\nevent: response.content_part.added\n")
