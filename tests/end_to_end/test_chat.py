"""The starter college with real weights, through the official SDK: what a newcomer does first."""

import json
from collections.abc import Iterator

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

QUESTION: ChatCompletionUserMessageParam = {
    "role": "user",
    "content": "What is the capital of France? Answer in one sentence.",
}
MATH = "coe-smollm2-math:q4"


@pytest.fixture
def client(college_url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{college_url}/v1", api_key="unused", timeout=120.0) as client:
        yield client


def test_a_real_model_answers_sensibly(client: OpenAI) -> None:
    """Of eight answers from a 135-million-parameter model some know the capital; random weights never would."""
    completion = client.chat.completions.create(
        model="coe-smollm2-general:q4", messages=[QUESTION], max_tokens=40, seed=1, n=8
    )
    assert any("Paris" in (choice.message.content or "") for choice in completion.choices)
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


def test_streaming_gives_the_same_answer_with_usage_last(client: OpenAI) -> None:
    """Concatenated deltas equal the answer given whole; usage is in the last chunk only."""
    whole = client.chat.completions.create(model=MATH, messages=[QUESTION], max_tokens=30, seed=7)
    chunks = list(
        client.chat.completions.create(
            model=MATH, messages=[QUESTION], max_tokens=30, seed=7, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_auto_says_who_answered(client: OpenAI) -> None:
    """`auto` names the specialist, keeps T = 0.6 and the closed think block, and says so."""
    response = client.chat.completions.with_raw_response.create(
        model="auto", messages=[QUESTION], max_tokens=8, temperature=1.5
    )
    assert response.headers["x-coe-specialist"] == "coe-smollm2-general:q4"
    assert "temperature=0.6" in response.headers["x-coe-sampling"]
    assert response.parse().choices[0].message.content


def test_auto_asks_the_specialist_of_the_domain(client: OpenAI, college_url: str) -> None:
    """An integral goes to math, an eviction to law, and the log of decisions tells."""
    for question, tag in (
        ("What is the integral of x squared?", MATH),
        ("Can my landlord evict me without notice?", "coe-smollm2-law:q4"),
    ):
        completion = client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": question}], max_tokens=4
        )
        assert completion.model == tag
        said = httpx.post(f"{college_url}/coe/classify", json={"text": question}, timeout=30).json()
        assert said["specialist"] == tag
    decisions = httpx.get(f"{college_url}/coe/decisions", timeout=30).json()["decisions"]
    assert {"coe-smollm2-law:q4", MATH} <= {decision["tag"] for decision in decisions}


def test_a_schema_shapes_the_answer(client: OpenAI) -> None:
    """json_schema answers parse and fit."""
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 30}, "population": {"type": "integer"}},
        "required": ["city", "population"],
        "additionalProperties": False,
    }
    completion = client.chat.completions.create(
        model=MATH,
        messages=[{"role": "user", "content": "Describe Paris as JSON."}],
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema}},
        max_tokens=100,
    )
    value = json.loads(completion.choices[0].message.content or "")
    assert set(value) == {"city", "population"}


def test_several_choices_and_logprobs(client: OpenAI) -> None:
    """n answers come with their indices and their tokens' log-probabilities."""
    completion = client.chat.completions.create(
        model=MATH, messages=[QUESTION], max_tokens=5, n=3, logprobs=True, top_logprobs=2
    )
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    for choice in completion.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in choice.logprobs.content)


def test_completions_continue_text_and_score_prompts(client: OpenAI, college_url: str) -> None:
    """Raw completions work, and `echo` with logprobs scores the prompt as evaluation harnesses need."""
    completion = client.completions.create(model=MATH, prompt="Once upon a time", max_tokens=8)
    assert completion.choices[0].text
    scored = httpx.post(
        f"{college_url}/v1/completions",
        json={"model": MATH, "prompt": "Paris is in France", "max_tokens": 1, "logprobs": 1, "echo": True},
        timeout=60,
    ).json()["choices"][0]["logprobs"]
    assert scored["token_logprobs"][0] is None
    assert all(value <= 0 for value in scored["token_logprobs"][1:])
    assert "".join(scored["tokens"]).startswith("Paris is in France")


def test_models_lists_every_tag_and_auto(client: OpenAI) -> None:
    """Seventeen specialists, `auto` and the supervisor's encoder."""
    tags = {model.id for model in client.models.list()}
    assert {"auto", MATH, "coe-smollm2-general:q4"} <= tags
    assert len(tags) == 19


def test_mistakes_raise_the_sdks_own_errors(client: OpenAI) -> None:
    """Unknown models and impossible requests are 404 and 400 in OpenAI's shape."""
    with pytest.raises(NotFoundError) as unknown:
        client.chat.completions.create(model="no-such", messages=[QUESTION])
    assert unknown.value.code == "model_not_found"
    with pytest.raises(BadRequestError) as overflow:
        client.chat.completions.create(model=MATH, messages=[{"role": "user", "content": "word " * 20_000}])
    assert overflow.value.code == "context_length_exceeded"
