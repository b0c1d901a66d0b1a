"""OpenAI's Python package against a running starter college: `python -m tests.clients.openai_python URL`.

Says what it has checked, a line each, and ends with 0 when all of it held.
"""

import asyncio
import json
import sys
from typing import Any

from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from pydantic import BaseModel

MATH = "coe-smollm2-math:q4"
ENCODER = "coe-supervisor-minilm"
QUESTION: list[Any] = [{"role": "user", "content": "What is two plus two?"}]


class Place(BaseModel):
    city: str
    river: str


def require(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"FAILED: {what}")


def answers(client: OpenAI) -> None:
    whole = client.chat.completions.create(model=MATH, messages=QUESTION, max_tokens=12, seed=7)
    require(bool(whole.choices[0].message.content), "a text")
    require(whole.choices[0].finish_reason in ("stop", "length"), "a reason to end")
    usage = whole.usage
    require(usage is not None and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, "usage adds up")


def streams_what_it_would_say_whole(client: OpenAI) -> None:
    whole = client.chat.completions.create(model=MATH, messages=QUESTION, max_tokens=12, seed=7)
    chunks = list(
        client.chat.completions.create(
            model=MATH,
            messages=QUESTION,
            max_tokens=12,
            seed=7,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    require(text == whole.choices[0].message.content, "streamed as whole")
    require(chunks[-1].usage is not None, "usage in the last chunk")


def keeps_to_a_schema(client: OpenAI) -> None:
    asked: list[Any] = [{"role": "user", "content": "Paris lies on the Seine. Give the city and the river."}]
    schema = Place.model_json_schema()
    for field in schema["properties"].values():
        field["maxLength"] = 30
    schema["additionalProperties"] = False
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}}
    answer = client.chat.completions.create(model="auto", messages=asked, max_tokens=80, response_format=wanted)
    require(set(json.loads(answer.choices[0].message.content or "")) == {"city", "river"}, "JSON of the schema")


def gives_logprobs_and_choices(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MATH,
        messages=QUESTION,
        max_tokens=4,
        n=2,
        logprobs=True,
        top_logprobs=3,
    )
    require([choice.index for choice in answer.choices] == [0, 1], "two choices")
    logprobs = answer.choices[0].logprobs
    require(logprobs is not None and len((logprobs.content or [])[0].top_logprobs) == 3, "three alternatives")


def continues_texts(client: OpenAI) -> None:
    answer = client.completions.create(model=MATH, prompt=["Once upon a", "The sum of"], max_tokens=6)
    require(len(answer.choices) == 2 and all(choice.text for choice in answer.choices), "a text for each prompt")


def embeds(client: OpenAI) -> None:
    found = client.embeddings.create(model=ENCODER, input=["sort a list", "bake bread"])
    require([len(each.embedding) for each in found.data] == [384, 384], "two vectors, decoded from base64")


def lists(client: OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    require({"auto", MATH} <= names, "auto and the specialists")
    require(client.models.retrieve(MATH).id == MATH, "one of them by name")


def refuses(client: OpenAI) -> None:
    for wanted, model, messages in ((NotFoundError, "no-such", QUESTION), (BadRequestError, MATH, [])):
        try:
            client.chat.completions.create(model=model, messages=messages)
        except APIStatusError as error:
            require(type(error) is wanted and error.request_id is not None, f"{wanted.__name__} with a request id")
        else:
            require(False, f"a {wanted.__name__}")


def serves_several_at_once(client: OpenAI) -> None:
    async def ask_all() -> list[str]:
        async with AsyncOpenAI(base_url=str(client.base_url), api_key="none", timeout=120) as many:
            calls = [many.chat.completions.create(model="auto", messages=QUESTION, max_tokens=8) for _ in range(8)]
            return [answer.choices[0].message.content or "" for answer in await asyncio.gather(*calls)]

    require(all(asyncio.run(ask_all())), "eight answers")


CHECKS = (
    answers, streams_what_it_would_say_whole, keeps_to_a_schema, gives_logprobs_and_choices, continues_texts, embeds,
    lists, refuses, serves_several_at_once,
)  # fmt: skip


def main(url: str) -> None:
    with OpenAI(base_url=f"{url}/v1", api_key="none", timeout=120) as client:
        for check in CHECKS:
            check(client)
            sys.stdout.write(f"ok: {check.__name__.replace('_', ' ')}\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
