"""Put a load on an OpenAI-compatible server and time what comes back; reports nothing itself.

Closed loop: each of N clients sends its next request when its last one has ended. Every time is in seconds from
the moment the request was sent. Token counts are the server's own (`stream_options.include_usage`). Servers differ in
how many tokens they put into one chunk, so time per token is the whole of the answer after its first text divided by
its tokens, and what a reader notices besides, the pauses, is between two chunks that carry text.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

Clock = Callable[[], float]

# A connection for each request: llama-server closes idle ones without a word, while a request may be on its way.
FRESH = httpx.Limits(max_keepalive_connections=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One server: its address up to and including /v1, and what to ask it for.

    `prefill` is what its answers are made to begin with, by an assistant message at the end.
    """

    name: str
    base_url: str
    model: str
    api_key: str | None = None
    prefill: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One finished stream. `pause_seconds` has one entry fewer than there were chunks of text."""

    first_token_seconds: float
    pause_seconds: tuple[float, ...]
    total_seconds: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reached_limit: bool

    @property
    def seconds_per_token(self) -> float | None:
        """Mean over the tokens after the first; None for an answer of one."""
        if self.completion_tokens < 2:
            return None
        return sum(self.pause_seconds) / (self.completion_tokens - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What one load gave; `seconds` runs from the first request's start to the last one's end."""

    seconds: float
    timings: tuple[Timing, ...]
    failures: tuple[str, ...]

    @property
    def completion_tokens(self) -> int:
        return sum(timing.completion_tokens for timing in self.timings)

    @property
    def tokens_per_second(self) -> float:
        return self.completion_tokens / self.seconds if self.seconds > 0 else 0.0


class BrokenStream(Exception):
    """The server answered, but not with a complete stream."""


def openai_base(url: str) -> str:
    """`http://host:8000`, with or without a slash or /v1 at its end, as the base that paths are added to."""
    bare = url.rstrip("/")
    return bare if bare.endswith("/v1") else f"{bare}/v1"


def chat_body(
    target: Target, messages: list[dict[str, str]], *, max_tokens: int, seed: int, forbidden: Sequence[int] = ()
) -> dict[str, Any]:
    """The same sampling for every server: T = 0.6, which ours enforces anyway.

    `forbidden` token ids get a bias of −100: with a model's end-of-turn tokens among them every answer runs to
    `max_tokens`, so that two servers do the same work.
    """
    prefill = [{"role": "assistant", "content": target.prefill}] if target.prefill else []
    bias = {"logit_bias": {str(token): -100 for token in forbidden}} if forbidden else {}
    return bias | {
        "model": target.model,
        "messages": [*messages, *prefill],
        "max_tokens": max_tokens,
        "temperature": 0.6,
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def time_stream(client: httpx.AsyncClient, target: Target, body: dict[str, Any], clock: Clock) -> Timing:
    """Send one streamed chat and time it. Raises BrokenStream, or httpx.HTTPError when the server is not there."""
    started = clock()
    arrivals: list[float] = []
    usage: dict[str, Any] | None = None
    finish: str | None = None
    async with client.stream(
        "POST", f"{target.base_url}/chat/completions", json=body, headers=target.headers
    ) as response:
        if response.status_code != 200:
            detail = (await response.aread())[:200].decode("utf-8", "replace")
            raise BrokenStream(f"HTTP {response.status_code}: {detail}")
        async for chunk in _chunks(response):
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices") or ():
                finish = choice.get("finish_reason") or finish
                if _text(choice.get("delta") or {}):
                    arrivals.append(clock())
    ended = clock()
    if finish is None or usage is None:
        raise BrokenStream("the stream ended without a finish_reason" if finish is None else "no usage was sent")
    return Timing(
        first_token_seconds=(arrivals[0] if arrivals else ended) - started,
        pause_seconds=tuple(later - earlier for earlier, later in itertools.pairwise(arrivals)),
        total_seconds=ended - started,
        prompt_tokens=int(usage.get("prompt_tokens", 0)),
        cached_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens", 0)),
        reached_limit=finish == "length",
    )


async def run_load(
    client: httpx.AsyncClient,
    target: Target,
    bodies: Sequence[dict[str, Any]],
    *,
    concurrency: int,
    clock: Clock = time.perf_counter,
) -> LoadResult:
    """Send every body once, at most `concurrency` at a time. A failure is recorded and the load goes on."""
    waiting = iter(bodies)
    timings: list[Timing] = []
    failures: list[str] = []

    async def one_client() -> None:
        for body in waiting:
            try:
                timings.append(await time_stream(client, target, body, clock))
            except (BrokenStream, httpx.HTTPError, json.JSONDecodeError) as error:
                failures.append(f"{type(error).__name__}: {error}")

    started = clock()
    async with asyncio.TaskGroup() as clients:
        for _ in range(concurrency):
            clients.create_task(one_client())
    return LoadResult(seconds=clock() - started, timings=tuple(timings), failures=tuple(failures))


async def _chunks(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of an SSE body. Lines are split at LF alone: U+2028 may stand raw inside a string."""
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            data = line.strip().removeprefix(b"data:").strip()
            if not line.startswith(b"data:") or data == b"[DONE]":
                continue
            chunk: dict[str, Any] = json.loads(data)
            if chunk.get("error"):
                raise BrokenStream(f"in-band error: {chunk['error']}")
            yield chunk


def _text(delta: dict[str, Any]) -> str:
    return delta.get("content") or delta.get("reasoning_content") or ""
