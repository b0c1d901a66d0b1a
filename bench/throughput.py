"""Throughput and latency of an OpenAI-compatible server under N concurrent chats.

    python -m bench.throughput --url http://127.0.0.1:8000 --model auto
    python -m bench.throughput --url … --peer http://127.0.0.1:8080 --rounds 5

With `--peer` the same load goes to both servers in turn, A B A B, and the ratios are taken round by round, so that
a machine that slows down during the run slows both. See bench/README.md for what the numbers mean.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from bench.load import LoadResult, Target, chat_body, openai_base, run_load
from bench.prompts import PROMPTS, conversation
from bench.report import HEADER, Summary, as_json, middle, ratio_line, ratios, row, summarise

Rounds = dict[str, list[Summary]]


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.throughput", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--url", required=True, help="server to measure, such as http://127.0.0.1:8000")
    parser.add_argument("--model", default="auto", help="model to ask it for (default: auto)")
    parser.add_argument("--peer", metavar="URL", help="second server, given the same load in turn")
    parser.add_argument("--peer-model", help="model to ask the peer for (default: that of --model)")
    parser.add_argument(
        "--peer-prefill",
        default="",
        metavar="TEXT",
        help=r"what the peer's answers begin with, with \n for a line end: give it the think block that ours adds, "
        "and both compute the same prompt",
    )
    parser.add_argument("--concurrency", type=_counts, default=[1, 2, 4, 8], help="clients (default: 1,2,4,8)")
    parser.add_argument("--requests", type=_count, help="requests for each load (default: 4 for each client)")
    parser.add_argument("--max-tokens", type=_count, default=128, help="longest answer, in tokens (default: 128)")
    parser.add_argument("--rounds", type=_count, default=3, help="how often each load is repeated (default: 3)")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="one prompt on each line, instead of our own")
    parser.add_argument(
        "--forbid-tokens",
        type=lambda text: [int(part) for part in text.split(",")],
        default=[],
        metavar="IDS",
        help="token ids no answer may hold; the end-of-turn ones make every answer run to --max-tokens",
    )
    parser.add_argument("--shared-system", action="store_true", help="begin every chat with one long system prompt")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


def targets(options: argparse.Namespace) -> list[Target]:
    key = os.environ.get("OPENAI_API_KEY")
    found = [Target(name="ours", base_url=openai_base(options.url), model=options.model, api_key=key)]
    if options.peer:
        model = options.peer_model or options.model
        prefill = options.peer_prefill.replace("\\n", "\n")
        found.append(Target(name="peer", base_url=openai_base(options.peer), model=model, api_key=key, prefill=prefill))
    return found


def bodies(options: argparse.Namespace, target: Target, prompts: Sequence[str], count: int, mark: str) -> list[Any]:
    return [
        chat_body(
            target,
            conversation(index, f"{mark}.{index}", prompts, shared_system=options.shared_system),
            max_tokens=options.max_tokens,
            seed=index,
            forbidden=options.forbid_tokens,
        )
        for index in range(count)
    ]


async def measure(options: argparse.Namespace, client: httpx.AsyncClient) -> tuple[dict[int, Rounds], list[str]]:
    """Every load on every target: concurrency → target name → one Summary a round; and what failed, in words."""
    prompts = _prompts(options.prompts)
    everyone = targets(options)
    failures: list[str] = []

    async def load(target: Target, concurrency: int, count: int, mark: str) -> LoadResult:
        result = await run_load(client, target, bodies(options, target, prompts, count, mark), concurrency=concurrency)
        failures.extend(f"{target.name}: {failure}" for failure in result.failures)
        return result

    measured: dict[int, Rounds] = {}
    for concurrency in options.concurrency:
        rounds: Rounds = {target.name: [] for target in everyone}
        for target in everyone:  # warm-up: models load, caches and clocks settle; its numbers are dropped
            await load(target, concurrency, concurrency, f"warm.{concurrency}")
        for turn in range(options.rounds):
            for target in everyone:
                count = options.requests or 4 * concurrency
                result = await load(target, concurrency, count, f"{concurrency}.{turn}")
                rounds[target.name].append(summarise(result))
        measured[concurrency] = rounds
        if not options.json:
            _print_rounds(concurrency, rounds)
    return measured, failures


def _prompts(file: Path | None) -> Sequence[str]:
    if file is None:
        return PROMPTS
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise SystemExit(f"--prompts {file}: the file holds no prompt; put one on each line")
    return lines


def _print_rounds(concurrency: int, rounds: Rounds) -> None:
    for name, summaries in rounds.items():
        print(row(concurrency, name, middle(summaries)), flush=True)
    if "peer" in rounds:
        print(ratio_line(concurrency, ratios(rounds["ours"], rounds["peer"])), flush=True)


def to_json(measured: dict[int, Rounds], failures: Sequence[str]) -> dict[str, Any]:
    loads = []
    for concurrency, rounds in measured.items():
        entry: dict[str, Any] = {"concurrency": concurrency}
        entry |= {name: [as_json(summary) for summary in summaries] for name, summaries in rounds.items()}
        if "peer" in rounds:
            found = ratios(rounds["ours"], rounds["peer"])
            entry["ratios"] = {name: asdict(value) if value else None for name, value in found.items()}
        loads.append(entry)
    return {"loads": loads, "failures": list(failures)}


async def run(arguments: Sequence[str]) -> int:
    """0 when every request ended well, 1 otherwise."""
    options = parse_arguments(arguments)
    if not options.json:
        print(HEADER)
    # Some servers close idle connections after 5 s; a request sent into a closing one would count as theirs lost.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=2.0)
    async with httpx.AsyncClient(timeout=httpx.Timeout(600, connect=5), limits=limits, trust_env=False) as client:
        measured, failures = await measure(options, client)
    if options.json:
        print(json.dumps(to_json(measured, failures), indent=2))
    for failure in failures[:5]:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(run(sys.argv[1:])))
