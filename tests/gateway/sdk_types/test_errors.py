"""What goes wrong is raised by both SDKs as the class, or with the status, that its users catch."""

from operator import attrgetter
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from openai.types.shared import ErrorObject
from pydantic import TypeAdapter

from gateway.app import create_app
from specialists.errors import ModelTooLarge, QueueFull, SpecialistError, WorkerLost, WorkerTimeout
from tests.fakes import Script
from tests.gateway.college import MATH, FakePool
from tests.gateway.sdk_types.answers import NULLS
from tests.gateway.sdk_types.driving import Recorded, collected, ollama_client, openai_client, services
from tests.gateway.sdk_types.strict import Reading, parts, read

pytestmark = pytest.mark.anyio

ASK: dict[str, Any] = {"model": MATH, "messages": [{"role": "user", "content": "Hello"}]}
KEY = {"api_key": "secret"}
SMALL = {"max_body_bytes": 1024}
LONG = {"messages": [{"role": "user", "content": "Hello" * 300}]}
BROKEN = Script(pieces=("a", "b"), error=WorkerTimeout("silent"), error_before=1)


def failing(error: SpecialistError | None) -> FakePool:
    pool = FakePool()
    pool.error = error
    return pool


@pytest.mark.parametrize(
    ("sent", "error", "settings", "kind", "status"),
    [
        ({"temperature": 9}, None, {}, openai.BadRequestError, 400),
        ({}, None, KEY, openai.AuthenticationError, 401),
        ({"model": "nobody"}, None, {}, openai.NotFoundError, 404),
        (LONG, None, SMALL, openai.APIStatusError, 413),
        ({}, QueueFull("full"), {}, openai.RateLimitError, 429),
        ({}, WorkerLost("lost"), {}, openai.InternalServerError, 503),
        ({}, ModelTooLarge("too large"), {}, openai.InternalServerError, 503),
        ({}, WorkerTimeout("silent"), {}, openai.InternalServerError, 504),
    ],
)
async def test_openais_classes(
    tmp_path: Path,
    sent: dict[str, Any],
    error: SpecialistError | None,
    settings: dict[str, Any],
    kind: type[openai.APIStatusError],
    status: int,
) -> None:
    """Whole or streamed, with an error object of the SDK's own type and no field beyond it."""
    for stream in (False, True):
        recorded = Recorded()
        app = create_app(services(tmp_path / str(stream), failing(error), **settings))
        async with openai_client(app, recorded) as client:
            with pytest.raises(kind) as caught:
                await collected(await client.chat.completions.create(**{**ASK, **sent, "stream": stream}))
        told = TypeAdapter(dict[str, ErrorObject]).validate_json(recorded.bodies[0], strict=True)["error"]

        assert (caught.value.status_code, caught.value.type) == (status, told.type)
        assert (caught.value.code, caught.value.param) == (told.code, told.param)
        assert not told.model_extra


@pytest.mark.parametrize(
    ("call", "sent", "kind"),
    [
        ("chat.completions.create", ASK, ChatCompletionChunk),
        ("completions.create", {"model": MATH, "prompt": "Once"}, Completion),
        ("responses.create", {"model": MATH, "input": "Hello"}, ResponseStreamEvent),
    ],
)
async def test_openais_class_within_a_stream(tmp_path: Path, call: str, sent: dict[str, Any], kind: Any) -> None:
    """An answer that breaks off raises; what came before is sound, the last is an error object."""
    recorded = Recorded()
    async with openai_client(create_app(services(tmp_path, FakePool(BROKEN))), recorded) as client:
        with pytest.raises(openai.APIError, match="silent"):
            await collected(await attrgetter(call)(client)(**sent, stream=True))
    *chunks, last = parts(recorded.bodies[0])

    before = [read(kind, chunk) for chunk in chunks]
    assert {path for each in before for path in each.complaints} <= set(NULLS)
    assert (before[-1].event == "response.failed") == (kind is ResponseStreamEvent)
    assert read(dict[str, ErrorObject], last) == Reading(frozenset(), frozenset())


@pytest.mark.parametrize(
    ("sent", "error", "settings", "status"),
    [
        ({"options": {"temperature": 9}}, None, {}, 400),
        ({}, None, KEY, 401),
        ({"model": "nobody"}, None, {}, 404),
        (LONG, None, SMALL, 413),
        ({}, QueueFull("full"), {}, 503),
        ({}, WorkerLost("lost"), {}, 503),
        ({}, ModelTooLarge("too large"), {}, 500),
        ({}, WorkerTimeout("silent"), {}, 504),
    ],
)
async def test_ollamas_status(
    tmp_path: Path, sent: dict[str, Any], error: SpecialistError | None, settings: dict[str, Any], status: int
) -> None:
    """Whole or streamed, with a text."""
    for stream in (False, True):
        app = create_app(services(tmp_path / str(stream), failing(error), **settings))
        async with ollama_client(app, Recorded()) as client:
            with pytest.raises(ollama.ResponseError) as caught:
                await collected(await client.chat(**{**ASK, **sent, "stream": stream}))

        assert caught.value.status_code == status
        assert caught.value.error


async def test_ollamas_error_within_a_stream(tmp_path: Path) -> None:
    """An answer that breaks off raises."""
    app = create_app(services(tmp_path, FakePool(BROKEN)))
    async with ollama_client(app, Recorded()) as client:
        for call in (client.chat(**ASK, stream=True), client.generate(model=MATH, prompt="Hello", stream=True)):
            with pytest.raises(ollama.ResponseError, match="silent"):
                await collected(await call)
