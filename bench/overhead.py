"""What the gateway itself adds to a request, in milliseconds.

    python -m bench.overhead --url http://127.0.0.1:8000 --model auto

Sends one-token chats one after another and takes from each one's time the `engine_ms` that the response's `coe`
object reports: from handing the request to the engine to its last event. What is left is HTTP, JSON, validation,
policy, leasing and the loopback.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import httpx

from bench.load import openai_base
from bench.report import Percentiles, percentiles_ms


def overhead_seconds(
    client: httpx.Client, url: str, model: str, *, requests: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """One value a request. Raises httpx.HTTPStatusError, or SystemExit when the server is not one of ours."""
    found = []
    for index in range(requests):
        body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": f"Count from {index}."}]}
        started = clock()
        response = client.post(f"{openai_base(url)}/chat/completions", json=body)
        answer = response.raise_for_status().json()
        elapsed = clock() - started
        engine_ms = answer.get("coe", {}).get("engine_ms")
        if engine_ms is None:
            raise SystemExit(f"{url} reports no coe.engine_ms: it is not this gateway")
        found.append(elapsed - engine_ms / 1e3)
    return found


def measure(client: httpx.Client, url: str, model: str, *, requests: int) -> Percentiles:
    overhead_seconds(client, url, model, requests=5)  # warm-up: the model loads, the connection opens
    return percentiles_ms(overhead_seconds(client, url, model, requests=requests))


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--url", required=True, help="the gateway, such as http://127.0.0.1:8000")
    parser.add_argument("--model", default="auto", help="specialist to ask (default: auto)")
    parser.add_argument("--requests", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(timeout=120, headers=headers, trust_env=False) as client:
        added = measure(client, options.url, options.model, requests=options.requests)
    print(json.dumps({"overhead_ms": asdict(added)}) if options.json else f"gateway adds, in ms: {_words(added)}")
    return 0


def _words(added: Percentiles) -> str:
    return f"p50 {added.p50:.2f}, p95 {added.p95:.2f}, p99 {added.p99:.2f}"


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
