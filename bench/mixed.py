"""A college under mixed traffic with room for one specialist: ours, which morphs, against llama-server's router.

    python -m bench.mixed --layers 4 --folder /tmp --llama-server PATH
    python -m bench.mixed --layers 4 --folder /tmp              # ours alone

Four specialists of one family, near and far relatives among them. A seeded trace of conversations of several turns,
each with one specialist; `--clients` conversations are held at once, each going on when it has its answer. The same
trace goes to both servers, one after the other. A model of Gemma 4 26B-A4B's widths is made for it, and deleted
again. See bench/README.md for what the numbers mean.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx

from bench.load import FRESH, BrokenStream, Target, Timing, chat_body, openai_base, time_stream
from bench.prompts import PROMPTS
from bench.report import percentile, say
from bench.servers import gateway, router
from bench.wide_family import FAR, NEAR, Relative, WideFamily, make_family
from bench.wide_parent import add_places
from gateway.policy import CLOSED_THINK_BLOCK

FIRST: Final = "math"
RELATIVES: Final = (Relative("physics", FIRST, NEAR), Relative("law", FIRST, FAR), Relative("history", "law", NEAR))
NAMES: Final = (FIRST, *(relative.name for relative in RELATIVES))
MOST_TURNS: Final = 5


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a person says, turn by turn, to one specialist."""

    specialist: str
    turns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One server's trace. Times in seconds from sending a request; `computed_twice` counts prompt tokens."""

    server: str
    seconds: float
    requests: int
    failed: int
    completion_tokens: int
    first_token_p50: float
    first_token_p95: float
    longest_wait: float
    computed_twice: int

    @property
    def goodput(self) -> float:
        """Requests a second that ended well."""
        return (self.requests - self.failed) / self.seconds


def trace(num_requests: int, seed: int) -> list[Conversation]:
    """Conversations of one to five turns, `num_requests` turns in all."""
    rng = random.Random(seed)
    found: list[Conversation] = []
    left = num_requests
    while left:
        count = min(left, rng.randint(1, MOST_TURNS))
        turns = tuple(f"{len(found)}.{turn}: {rng.choice(PROMPTS)}" for turn in range(count))
        found.append(Conversation(rng.choice(NAMES), turns))
        left -= count
    return found


async def hold(
    client: httpx.AsyncClient, target: Target, conversation: Conversation, max_tokens: int
) -> tuple[list[Timing], int, list[str]]:
    """The turns that ended well, prompt tokens computed that had been computed before, and what failed."""
    messages: list[dict[str, str]] = []
    timings: list[Timing] = []
    failures: list[str] = []
    twice = known = 0
    for turn in conversation.turns:
        messages.append({"role": "user", "content": turn})
        body = chat_body(target, messages, max_tokens=max_tokens, seed=1) | {"model": conversation.specialist}
        try:
            timing = await time_stream(client, target, body, time.perf_counter)
        except (BrokenStream, httpx.HTTPError, json.JSONDecodeError) as error:
            failures.append(f"{target.name}: {type(error).__name__}: {error}")
            messages.pop()
            continue
        twice += max(0, known - timing.cached_tokens)
        known = timing.prompt_tokens
        timings.append(timing)
        messages.append({"role": "assistant", "content": "So it is."})  # the same history for every server
    return timings, twice, failures


async def run_trace(target: Target, conversations: Sequence[Conversation], options: argparse.Namespace) -> Outcome:
    waiting: Iterator[Conversation] = iter(conversations)
    timings: list[Timing] = []
    failures: list[str] = []
    twice = 0

    async def one_client(client: httpx.AsyncClient) -> None:
        nonlocal twice
        for conversation in waiting:
            good, again, bad = await hold(client, target, conversation, options.max_tokens)
            timings.extend(good)
            failures.extend(bad)
            twice += again
            say(f"{target.name}: {len(timings) + len(failures)} of {options.requests} requests")

    async with httpx.AsyncClient(timeout=1800, limits=FRESH) as client:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as clients:
            for _ in range(options.clients):
                clients.create_task(one_client(client))
        seconds = time.perf_counter() - started
    for failure in failures[:5]:
        print(failure, file=sys.stderr)
    first = [timing.first_token_seconds for timing in timings]
    return Outcome(
        server=target.name,
        seconds=seconds,
        requests=len(timings) + len(failures),
        failed=len(failures),
        completion_tokens=sum(timing.completion_tokens for timing in timings),
        first_token_p50=percentile(first, 0.5),
        first_token_p95=percentile(first, 0.95),
        longest_wait=max(first, default=0.0),
        computed_twice=twice,
    )


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.mixed", description=(__doc__ or "").split("\n")[0])
    add_places(parser)
    parser.add_argument("--layers", type=int, default=4, help="how many layers (default: 4, files of 1.5 GB)")
    parser.add_argument("--keep", type=int, default=64, help="experts kept of 128 (default: 64)")
    parser.add_argument("--requests", type=int, default=200, help="turns in all (default: 200)")
    parser.add_argument("--clients", type=int, default=8, help="conversations at once (default: 8)")
    parser.add_argument("--max-tokens", type=int, default=8, help="longest answer, in tokens (default: 8)")
    parser.add_argument("--seed", type=int, default=1, help="of the trace and the masks")
    parser.add_argument("--threads", type=int, default=2, help="the router's threads (default: 2)")
    parser.add_argument("--llama-server", type=Path, metavar="PATH", help="start this llama-server's router as well")
    parser.add_argument("--json", action="store_true", help="print one JSON object a server")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="mixed-", dir=options.folder) as name:
        say(f"writing a parent of {options.layers} layers")
        family = make_family(
            options.vocabulary,
            Path(name),
            first=FIRST,
            relatives=RELATIVES,
            layers=options.layers,
            kept=options.keep,
            seed=options.seed,
        )
        outcomes = _outcomes(family, options)
    print("\n".join(json.dumps(asdict(each)) for each in outcomes) if options.json else _words(outcomes))
    return 0 if _is_good(outcomes) else 1


def _outcomes(family: WideFamily, options: argparse.Namespace) -> list[Outcome]:
    conversations = trace(options.requests, options.seed)
    with gateway(family.college, COE_HOME=str(family.folder / "home")) as url:
        us = Target(name="ours", base_url=openai_base(url), model=FIRST)
        found = [asyncio.run(run_trace(us, conversations, options))]
    if options.llama_server:
        models = family.write_files(NAMES)
        with router(options.llama_server, models, "-t", str(options.threads), "-np", "4", "-c", "8192") as url:
            them = Target(name="router", base_url=openai_base(url), model=FIRST, prefill=CLOSED_THINK_BLOCK)
            found.append(asyncio.run(run_trace(them, conversations, options)))
    return found


def _is_good(outcomes: Sequence[Outcome]) -> bool:
    ours = outcomes[0]
    return ours.failed == 0 and all(ours.goodput >= 10 * theirs.goodput for theirs in outcomes[1:])


def _words(outcomes: Sequence[Outcome]) -> str:
    lines = [_line(each) for each in outcomes]
    for theirs in outcomes[1:]:
        ours = outcomes[0]
        ratio = f"{ours.goodput / theirs.goodput:.1f}×" if theirs.goodput else "∞"
        lines.append(f"ours/{theirs.server}: goodput {ratio} · first token p50 "
                     f"{ours.first_token_p50 / max(theirs.first_token_p50, 1e-9):.3f}×")  # fmt: skip
    return "\n".join(lines)


def _line(each: Outcome) -> str:
    return (
        f"{each.server:7s} {each.goodput:6.2f} requests/s ended well ({each.failed} of {each.requests} failed), "
        f"{each.completion_tokens / each.seconds:6.1f} tokens/s; first token p50 {each.first_token_p50:.2f} s, "
        f"p95 {each.first_token_p95:.2f} s, longest {each.longest_wait:.2f} s; "
        f"{each.computed_twice} prompt tokens computed twice"
    )


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
