"""How many answers loop with the loop guard off and on, what the loops cost, and what the guard costs.

    python -m bench.loops
    python -m bench.loops --prompts 40 --max-tokens 600 --whole

Starts a gateway of its own on a free loopback port and asks one small model every prompt twice, greedily: a temperature
of 0, which the policy is told to allow, provokes the most loops. Who looped is decided by `bench.loop_judge`, which
knows nothing of the guard. See bench/README.md for what the numbers mean.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from bench.loop_prompts import PROMPTS
from bench.loop_report import Answer, compare, to_text
from bench.servers import gateway

COLLEGE = Path(__file__).with_name("loops.toml")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.loops", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--college", type=Path, default=COLLEGE, help="college to serve (default: one small model)")
    parser.add_argument("--model", default="plain:q4", help="model to ask for (default: plain:q4)")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help=f"how many (default: all {len(PROMPTS)})")
    parser.add_argument("--max-tokens", type=int, default=400, help="longest answer, in tokens (default: 400)")
    parser.add_argument("--concurrency", type=int, default=8, help="answers at once (default: 8)")
    parser.add_argument("--temperature", type=float, default=0.0, help="what to ask for (default: 0, greedy)")
    parser.add_argument("--whole", action="store_true", help="ask for whole answers instead of streams")
    parser.add_argument(
        "--answers", type=Path, metavar="FILE", help="write every answer to FILE, one JSON object a line"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser.parse_args(arguments)


def body(options: argparse.Namespace, prompt: str, index: int, guard: str) -> dict[str, Any]:
    return {
        "model": options.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "seed": index,
        "stream": not options.whole,
        "coe": {"loop_guard": guard},
    } | ({} if options.whole else {"stream_options": {"include_usage": True}})


async def ask(client: httpx.AsyncClient, request: dict[str, Any]) -> Answer:
    """One answer, whole or put together from its chunks. Raises httpx.HTTPError or ValueError."""
    response = await client.post("/v1/chat/completions", json=request)
    response.raise_for_status()
    if not request["stream"]:
        said = response.json()
        choice = said["choices"][0]
        return _answer(request, choice["message"]["content"], choice["finish_reason"], said)
    chunks = [json.loads(line[6:]) for line in response.text.split("\n") if line.startswith("data: {")]
    if "error" in chunks[-1]:
        raise ValueError(chunks[-1]["error"]["message"])
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return _answer(request, text, choices[-1]["finish_reason"], chunks[-1])


def _answer(request: dict[str, Any], text: str, reason: str, last: dict[str, Any]) -> Answer:
    loop = last["coe"]["loop"] or {}
    return Answer(
        prompt=request["messages"][0]["content"],
        text=text,
        finish_reason=reason,
        completion_tokens=last["usage"]["completion_tokens"],
        hits=loop.get("hits", 0),
        rung=loop.get("rung"),
        tokens_discarded=loop.get("tokens_discarded", 0),
    )


async def ask_all(client: httpx.AsyncClient, requests: Sequence[dict[str, Any]], concurrency: int) -> list[Answer]:
    gate = asyncio.Semaphore(concurrency)

    async def one(request: dict[str, Any]) -> Answer:
        async with gate:
            return await ask(client, request)

    return await asyncio.gather(*(one(request) for request in requests))


async def measure(url: str, options: argparse.Namespace) -> dict[str, tuple[list[Answer], float]]:
    """By guard mode: the answers, in the order of their prompts, and how many seconds they took in all."""
    prompts = PROMPTS[:: max(1, len(PROMPTS) // options.prompts)][: options.prompts]
    async with httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(1200, connect=5), trust_env=False) as client:
        await ask(client, body(options, "Hello", 0, "off"))  # the model is loaded now
        measured = {}
        for guard in ("off", "rescue"):
            requests = [body(options, prompt, index, guard) for index, prompt in enumerate(prompts)]
            started = time.perf_counter()
            answers = await ask_all(client, requests, options.concurrency)
            measured[guard] = (answers, time.perf_counter() - started)
        return measured


def run(arguments: Sequence[str]) -> int:
    """0 when the guard met its aims: 90 % fewer looped answers, 95 % fewer wasted tokens, no answer worse."""
    options = parse_arguments(arguments)
    with gateway(options.college, COE_TEMPERATURE_POLICY="allow") as url:
        measured = asyncio.run(measure(url, options))
    (off, off_seconds), (on, on_seconds) = measured["off"], measured["rescue"]
    if options.answers:
        lines = [json.dumps({"guard": guard} | answer.as_dict()) for guard in measured for answer in measured[guard][0]]
        options.answers.write_text("\n".join(lines) + "\n", encoding="utf-8")
    comparison = compare(off, on, off_seconds=off_seconds, on_seconds=on_seconds)
    print(json.dumps(comparison.as_dict(), indent=2) if options.json else to_text(comparison))
    return 0 if comparison.meets_aims else 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
