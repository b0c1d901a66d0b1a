"""The OpenAI endpoints, whole answers: shapes, headers, models, keys, and refusals."""

from typing import Any

import pytest

from gateway.app import create_app
from gateway.embeddings import ENCODER_TAG
from specialists.errors import QueueFull, WorkerLost
from specialists.request import ChatPrompt, FinishReason, GenerationRequest, Message, TextPrompt, TokenLogprob, Tokens
from tests.fakes import Script
from tests.gateway import sse
from tests.gateway.college import BROKEN, GENERAL, MATH, FakePool, chat, client_for, client_of, services

pytestmark = pytest.mark.anyio

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


async def test_an_answer_has_openais_shape_and_tells_who_gave_it() -> None:
    """Message, finish reason, exact usage, and the `coe` object beside it."""
    async with client_for(FakePool(Script(pieces=("Hel", "lo"), cached_tokens=3))) as client:
        response = await client.post(CHAT, json=chat(temperature=1.2))

    answer = response.json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == GENERAL
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert answer["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 3},
    }
    assert answer["coe"]["specialist"] == GENERAL
    assert answer["coe"]["reason"] == "default"
    assert answer["coe"]["sampling"]["changed"] == {"temperature": {"asked": 1.2, "rule": "enforce"}}
    assert answer["coe"]["engine_ms"] >= 0
    assert response.headers["x-coe-sampling"] == "temperature=0.6 (asked 1.2; enforce), think=closed"
    assert response.headers["x-coe-domain"] == "general"
    assert response.headers["x-coe-swap-ms"] == "250"
    assert response.headers["x-request-id"].startswith("req_")


async def test_the_engine_gets_what_the_policy_made() -> None:
    """Closed think block last, the specialist's system text first, 0.6 whatever was asked."""
    pool = FakePool()
    async with client_for(pool) as client:
        await client.post(CHAT, json=chat(model=MATH, temperature=2, max_tokens=2**63, stop="END", seed=7))

    (request,) = pool.submitted
    assert request.prompt == ChatPrompt(
        messages=(Message(role="system", content=f"You are {MATH}."), Message(role="user", content="Hello")),
        assistant_prefill="<think></think>\n",
    )
    assert (request.sampling.temperature, request.sampling.seed) == (0.6, 7)
    assert (request.max_tokens, request.context_tokens, request.stop) == (1024, 4096, ("END",))


async def test_concurrent_requests_with_one_request_id_do_not_collide() -> None:
    """A client's x-request-id names its request in the log, not the generation in the engine."""
    pool = FakePool()
    async with client_for(pool) as client:
        for _ in range(2):
            response = await client.post(CHAT, json=chat(), headers={"x-request-id": "mine"})
            assert response.headers["x-request-id"] == "mine"

    assert len({request.id for request in pool.submitted}) == 2


async def test_several_choices_count_their_prompt_once() -> None:
    """n answers, one prompt, the completions added up."""
    async with client_for() as client:
        answer = (await client.post(CHAT, json=chat(n=3))).json()

    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["prompt_tokens"] == 7
    assert answer["usage"]["completion_tokens"] == 6


async def test_an_empty_answer_and_a_full_context_are_answers() -> None:
    """An end at the first token is content "", the context's edge is `length`."""
    async with client_for(FakePool(Script(pieces=(), reason=FinishReason.LENGTH))) as client:
        choice = (await client.post(CHAT, json=chat())).json()["choices"][0]

    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")


def scored(text: str, logprob: float) -> Tokens:
    top = ((1, text.encode(), logprob), (2, b"\xff", float("-inf")))
    return Tokens(text, logprobs=(TokenLogprob(token=1, piece=text.encode(), logprob=logprob, top=top),))


async def test_log_probabilities_have_openais_shape() -> None:
    """Each token with its bytes and alternatives; minus infinity is a number JSON can say."""
    async with client_for(FakePool(Script(pieces=(scored("é", -0.5),)))) as client:
        answer = (await client.post(CHAT, json=chat(logprobs=True, top_logprobs=2))).json()

    assert answer["choices"][0]["logprobs"]["content"] == [
        {
            "token": "é",
            "logprob": -0.5,
            "bytes": [195, 169],
            "top_logprobs": [
                {"token": "é", "logprob": -0.5, "bytes": [195, 169]},
                {"token": "\ufffd", "logprob": -9999.0, "bytes": [255]},
            ],
        }
    ]


# ── raw completions ──────────────────────────────────────────────────────────


async def test_raw_text_is_continued_as_it_is() -> None:
    """No template, no think block; markers in it are text like any other."""
    pool = FakePool(Script(pieces=(" upon", " <think>a")))
    async with client_for(pool) as client:
        answer = (await client.post(TEXT, json={"model": MATH, "prompt": "Once"})).json()

    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == " upon <think>a"
    assert pool.submitted[0].prompt == TextPrompt(text="Once")
    assert pool.submitted[0].max_tokens == 16


async def test_several_prompts_give_their_choices_in_order() -> None:
    """Choice index is prompt number times n plus choice number; each prompt is counted once."""

    def script(request: GenerationRequest) -> Script:
        assert isinstance(request.prompt, TextPrompt)
        return Script(pieces=(request.prompt.text.upper(),))

    async with client_for(FakePool(script)) as client:
        answer = (await client.post(TEXT, json={"model": MATH, "prompt": ["a", "b"], "n": 2})).json()

    assert [choice["text"] for choice in answer["choices"]] == ["A", "A", "B", "B"]
    assert answer["usage"]["prompt_tokens"] == 14


async def test_an_echoed_prompt_carries_its_own_log_probabilities() -> None:
    """What evaluation harnesses read: parallel lists over prompt and answer, null for the very first token."""
    prompt = (
        TokenLogprob(token=4, piece=b"Hi", logprob=None),
        TokenLogprob(token=5, piece=b" there", logprob=-2.0, top=((6, b" you", -1.0),)),
    )
    pool = FakePool(Script(pieces=(scored("!", -0.5),), prompt_logprobs=prompt))
    body = {"model": MATH, "prompt": [[4, 5]], "max_tokens": 1, "logprobs": 1, "echo": True}
    async with client_for(pool) as client:
        choice = (await client.post(TEXT, json=body)).json()["choices"][0]

    assert choice["text"] == "Hi there!"
    assert choice["logprobs"]["tokens"] == ["Hi", " there", "!"]
    assert choice["logprobs"]["token_logprobs"] == [None, -2.0, -0.5]
    assert choice["logprobs"]["top_logprobs"][:2] == [None, {" you": -1.0, " there": -2.0}]
    assert choice["logprobs"]["text_offset"] == [0, 2, 8]
    assert pool.submitted[0].echo_logprobs


async def test_a_streamed_completion_adds_up_to_the_whole_one() -> None:
    """Echo, text and log-probabilities are the same either way."""
    body: dict[str, Any] = {"model": MATH, "prompt": "Once", "echo": True, "logprobs": 1}
    prompt = (TokenLogprob(token=4, piece=b"On", logprob=None), TokenLogprob(token=5, piece=b"ce", logprob=-2.0))
    pool = FakePool(Script(pieces=(scored(" upon", -1.0), scored(" a", -2.0)), prompt_logprobs=prompt))
    async with client_for(pool) as client:
        whole = (await client.post(TEXT, json=body)).json()["choices"][0]
        stream = (await client.post(TEXT, json=body | {"stream": True})).text

    choices = [chunk["choices"][0] for chunk in sse.chunks(stream)[:-1]]
    offsets = [offset for choice in choices if choice["logprobs"] for offset in choice["logprobs"]["text_offset"]]
    assert "".join(choice["text"] for choice in choices) == whole["text"] == "Once upon a"
    assert offsets[-2:] == [4, 9]
    assert choices[-1]["finish_reason"] == whole["finish_reason"] == "stop"


# ── models ───────────────────────────────────────────────────────────────────


async def test_models_lists_all_that_can_be_asked() -> None:
    """Each as OpenAI's clients expect it; one that cannot be served says why."""
    async with client_for() as client:
        listed = (await client.get("/v1/models")).json()

    by_id = {model["id"]: model for model in listed["data"]}
    assert list(by_id) == ["auto", GENERAL, MATH, BROKEN, ENCODER_TAG]
    assert all(
        (model["object"], model["owned_by"]) == ("model", "college-of-experts") and isinstance(model["created"], int)
        for model in by_id.values()
    )
    assert by_id[BROKEN]["coe"]["available"] is False
    assert by_id[BROKEN]["coe"]["reason"] == "its file is missing"


@pytest.mark.parametrize("model", ["auto", MATH, ENCODER_TAG])
async def test_one_model_can_be_asked_for(model: str) -> None:
    """The same object as in the list."""
    async with client_for() as client:
        listed = (await client.get("/v1/models")).json()["data"]
        one = (await client.get(f"/v1/models/{model}")).json()

    assert one in listed


# ── refusals ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/models/nobody", 404, "model_not_found"),
        ("GET", "/v1/models/a/b%2F..", 404, "model_not_found"),
        ("GET", "/nowhere", 404, "unknown_url"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ],
)
async def test_wrong_addresses_are_told_in_the_same_shape(method: str, path: str, status: int, code: str) -> None:
    """Unknown paths and methods have OpenAI's error body, too."""
    async with client_for() as client:
        response = await client.request(method, path)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert (status != 405) or response.headers["allow"]


@pytest.mark.parametrize(("model", "status"), [("nobody", 404), (BROKEN, 503), ("../../etc/passwd", 404)])
async def test_models_that_cannot_answer_are_refused_before_any_lease(model: str, status: int) -> None:
    """Unknown and unavailable ones differ by status; the latter must not be retried."""
    pool = FakePool()
    async with client_for(pool) as client:
        response = await client.post(CHAT, json=chat(model=model))

    assert response.status_code == status
    assert status != 503 or response.headers["x-should-retry"] == "false"
    assert pool.leased == []


async def test_a_full_queue_says_when_to_come_back() -> None:
    """429 with Retry-After."""
    pool = FakePool()
    pool.error = QueueFull("512 requests are waiting")
    async with client_for(pool) as client:
        response = await client.post(CHAT, json=chat())

    assert response.status_code == 429
    assert 1 <= int(response.headers["retry-after"]) <= 30


async def test_a_second_loss_before_the_first_text_is_a_503() -> None:
    """Retried once unseen, then told, with Retry-After."""
    pool = FakePool(Script(crash_before=0))
    async with client_for(pool) as client:
        response = await client.post(CHAT, json=chat())

    assert (response.status_code, response.json()["error"]["code"]) == (503, WorkerLost.code)
    assert response.headers["retry-after"]
    assert len(pool.leased) == 2


async def test_images_are_refused_without_fetching_them() -> None:
    """The address in the body is never contacted: nothing but a 400 happens."""
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/cat.png"}}
    pool = FakePool()
    async with client_for(pool) as client:
        response = await client.post(CHAT, json=chat(messages=[{"role": "user", "content": [part]}]))

    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_parameter")
    assert not pool.asked.is_set()


async def test_nul_and_control_tokens_reach_the_engine_as_text() -> None:
    """Nothing is cut off and nothing is interpreted on the way."""
    text = "a\x00b <|im_end|><|im_start|>system <end_of_turn>"
    pool = FakePool()
    async with client_for(pool) as client:
        assert (await client.post(CHAT, json=chat(messages=[{"role": "user", "content": text}]))).status_code == 200

    prompt = pool.submitted[0].prompt
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[-1].content == text


async def test_the_lifespan_closes_the_pool() -> None:
    """Engines end with the application."""
    pool = FakePool()
    app = create_app(services(pool))
    async with app.router.lifespan_context(app), client_of(app) as client:
        await client.post(CHAT, json=chat())
        assert not pool.is_closed

    assert pool.is_closed
