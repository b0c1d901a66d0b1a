"""The official OpenAI SDK against a live gateway: answers, streams, its error classes, its retries."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from specialists.errors import ModelTooLarge, QueueFull, SpecialistError, WorkerTimeout
from specialists.request import GenerationRequest
from tests.fakes import Script
from tests.gateway.college import GENERAL, MATH, FakePool, live_server

pytestmark = pytest.mark.anyio

ASK: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}


@asynccontextmanager
async def sdk(pool: FakePool | None = None, *, key: str = "none", **changes: Any) -> AsyncIterator[AsyncOpenAI]:
    async with (
        live_server(pool, **changes) as live,
        AsyncOpenAI(base_url=f"{live.url}/v1", api_key=key, timeout=10) as client,
    ):
        yield client


async def test_whole_and_streamed_answers_agree() -> None:
    """Text, finish reason and usage are the same either way."""
    async with sdk(FakePool(Script(pieces=("a\u2028", "🦙", "z")))) as client:
        whole = await client.chat.completions.create(**ASK)
        stream = await client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]

    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content == "a\u2028🦙z"
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert whole.model == GENERAL


async def test_the_stream_helper_assembles_every_choice() -> None:
    """Its snapshot depends on the order of choices, single roles, and usage coming last."""

    def script(request: GenerationRequest) -> Script:
        return Script(pieces=("one" if request.id.endswith("-0") else "two",))

    async with (
        sdk(FakePool(script)) as client,
        client.chat.completions.stream(**ASK, n=2, stream_options={"include_usage": True}) as stream,
    ):
        final = await stream.get_final_completion()

    assert [choice.message.content for choice in final.choices] == ["one", "two"]
    assert [choice.message.role for choice in final.choices] == ["assistant", "assistant"]
    assert final.usage is not None
    assert final.usage.completion_tokens == 2


class Sum(BaseModel):
    result: int


async def test_parsed_answers_are_asked_for_by_schema() -> None:
    """The helper's schema reaches the engine as text, and its object comes back."""
    pool = FakePool(Script(pieces=('{"result"', ": 4}")))
    async with sdk(pool) as client:
        completion = await client.chat.completions.parse(**ASK, response_format=Sum)

    assert completion.choices[0].message.parsed == Sum(result=4)
    assert pool.submitted[0].json_schema is not None
    assert '"result"' in pool.submitted[0].json_schema


async def test_models_can_be_listed_and_retrieved() -> None:
    """As any client does at its start."""
    async with sdk() as client:
        listed = [model.id async for model in client.models.list()]
        one = await client.models.retrieve(MATH)

    assert listed[:2] == ["auto", GENERAL]
    assert one.id == MATH


async def test_raw_completions_stream() -> None:
    """The older endpoint, too."""
    async with sdk(FakePool(Script(pieces=(" upon", " a time")))) as client:
        stream = await client.completions.create(model=MATH, prompt="Once", stream=True)
        text = "".join([chunk.choices[0].text async for chunk in stream])

    assert text == " upon a time"


@pytest.mark.parametrize(
    ("fields", "error", "code"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found"),
        ({"max_tokens": 0}, openai.BadRequestError, "invalid_value"),
        ({"functions": [{"name": "f"}]}, openai.BadRequestError, "unsupported_parameter"),
    ],
)
async def test_refusals_become_its_own_error_classes(
    fields: dict[str, Any], error: type[openai.APIStatusError], code: str
) -> None:
    """With code, param and request id where it looks for them."""
    async with sdk() as client:
        with pytest.raises(error) as caught:
            await client.chat.completions.create(**(ASK | fields))

    assert caught.value.code == code
    assert caught.value.param == next(iter(fields))
    assert caught.value.request_id


async def test_a_wrong_key_is_an_authentication_error() -> None:
    """And the right one is none."""
    async with sdk(api_key="secret", key="wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()
    async with sdk(api_key="secret", key="secret") as client:
        await client.models.list()


class Countdown(FakePool):
    """Refuses a number of leases, then gives them."""

    def __init__(self, error: SpecialistError, refusals: int) -> None:
        super().__init__()
        self.num_asked = 0
        self._error = error
        self._refusals = refusals

    def acquire(self, manifest: Any, ticket: Any = None, *, prompt: Any = None) -> Any:
        self.num_asked += 1
        self.error = self._error if self.num_asked <= self._refusals else None
        return super().acquire(manifest, ticket, prompt=prompt)


def soon(error: SpecialistError) -> SpecialistError:
    """The same error with the shortest wait there is."""
    error.retry_after_seconds = 1
    return error


async def test_what_will_pass_is_tried_again_by_the_sdk() -> None:
    """A full queue costs its client a second and nothing else."""
    pool = Countdown(soon(QueueFull("full")), refusals=1)
    async with sdk(pool) as client:
        await client.chat.completions.create(**ASK)

    assert pool.num_asked == 2


async def test_what_is_permanent_is_not_tried_again() -> None:
    """A model that can never fit costs one request, not three."""
    pool = Countdown(ModelTooLarge("20 GiB of 16 GiB"), refusals=99)
    async with sdk(pool) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(**ASK)

    assert (caught.value.code, pool.num_asked) == ("model_too_large", 1)


async def test_a_stream_that_failed_raises_and_never_looks_complete() -> None:
    """The SDK raises on the in-band error, after the text that came before it."""
    async with sdk(FakePool(Script(pieces=("a", "b"), error=WorkerTimeout("silent"), error_before=1))) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        first = [await anext(stream), await anext(stream)]
        with pytest.raises(openai.APIError, match="silent") as caught:
            await anext(stream)

    assert "".join(chunk.choices[0].delta.content or "" for chunk in first) == "a"
    assert caught.value.code == "worker_timeout"


async def test_a_worker_lost_before_the_first_token_goes_unnoticed() -> None:
    """No error, no retry by the SDK: the gateway has seen to it."""
    pool = FakePool(Script(crash_before=0), Script(pieces=("fine",)))
    async with sdk(pool) as client:
        answer = await client.with_options(max_retries=0).chat.completions.create(**ASK)

    assert answer.choices[0].message.content == "fine"
