"""LiteLLM, as a client of both dialects, against a running starter college: `python litellm_python.py URL`.

Runs in an environment that has litellm, see `install`; imports nothing of this project.
"""

import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the network for prices

import litellm

MATH, ENCODER = "coe-smollm2-math:q4", "coe-supervisor-minilm"
TALK = [{"role": "user", "content": "What is two plus two?"}]


def require(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"FAILED: {what}")


def openai(url: str, **fields: object) -> dict[str, object]:
    return {"model": f"openai/{MATH}", "api_base": f"{url}/v1", "api_key": "none", "max_tokens": 12, **fields}


def ollama(url: str, **fields: object) -> dict[str, object]:
    return {"model": f"ollama_chat/{MATH}", "api_base": url, "max_tokens": 12, **fields}


def openai_answers(url: str) -> None:
    answer = litellm.completion(messages=TALK, **openai(url))
    require(bool(answer.choices[0].message.content) and answer.usage.total_tokens > 0, "a text and usage")


def openai_streams(url: str) -> None:
    pieces = litellm.completion(messages=TALK, stream=True, **openai(url))
    require(bool("".join(piece.choices[0].delta.content or "" for piece in pieces)), "a streamed text")


def ollama_answers(url: str) -> None:
    answer = litellm.completion(messages=TALK, **ollama(url))
    require(bool(answer.choices[0].message.content) and answer.usage.completion_tokens <= 12, "a text and counts")


def ollama_streams(url: str) -> None:
    pieces = litellm.completion(messages=TALK, stream=True, **ollama(url))
    require(bool("".join(piece.choices[0].delta.content or "" for piece in pieces)), "a streamed text")


def openai_embeds(url: str) -> None:
    found = litellm.embedding(input=["bake bread"], **openai(url, model=f"openai/{ENCODER}", max_tokens=None))
    require(len(found.data[0]["embedding"]) == 384, "a vector")


def an_unknown_model_is_its_not_found(url: str) -> None:
    try:
        litellm.completion(messages=TALK, num_retries=0, **openai(url, model="openai/no-such"))
    except litellm.NotFoundError:
        return
    require(False, "a NotFoundError")


def an_overlong_conversation_is_its_context_window_error(url: str) -> None:
    long = [{"role": "user", "content": "word " * 6000}]
    try:
        litellm.completion(messages=long, num_retries=0, **openai(url))
    except litellm.ContextWindowExceededError:
        return
    require(False, "a ContextWindowExceededError")


CHECKS = (
    openai_answers, openai_streams, ollama_answers, ollama_streams, openai_embeds, an_unknown_model_is_its_not_found,
    an_overlong_conversation_is_its_context_window_error,
)  # fmt: skip

if __name__ == "__main__":
    for check in CHECKS:
        check(sys.argv[1])
        sys.stdout.write(f"ok: {check.__name__.replace('_', ' ')}\n")
