"""What a change of specialist costs the one who waits: our morph and our full load against llama-server's router.

    python -m bench.swap --layers 10 --folder /tmp --llama-server PATH
    python -m bench.swap --layers 10 --folder /tmp              # ours alone

Everything is over HTTP: a chat is sent to a specialist that is not being served, and the time to the end of its first
token is taken. The same chat each time, as when a conversation comes back. In each round, in turn: ours to a near
relative (9 % of the slots differ) and back, ours to a far one (22 %) and back, ours after an unload, the router to the
near one and back. A model of Gemma 4 26B-A4B's widths is made for it, and deleted again; everything is in the page
cache. See bench/README.md for what the numbers mean.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx

from bench.load import FRESH, Target, chat_body, openai_base, time_stream
from bench.report import say
from bench.servers import gateway, router
from bench.wide_family import FAR, NEAR, Relative, WideFamily, make_family
from bench.wide_parent import add_places
from gateway.policy import CLOSED_THINK_BLOCK
from specialists.expert_slots import plan_morph

HOME: Final = "home"
RELATIVES: Final = (Relative("near", HOME, NEAR), Relative("far", HOME, FAR))
MESSAGES: Final = [{"role": "user", "content": "A train leaves the town at nine and another one an hour later. "}]


@dataclass(frozen=True, slots=True)
class Swaps:
    """One kind of swap: seconds from sending a chat to its first token, a figure for each round."""

    name: str
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`morph_seconds` and `num_bytes` are what the gateway says of each morph to a specialist.

    `planned_bytes` are what the masks say of it, one number for each specialist it may come from.
    """

    layers: int
    file_bytes: int
    swaps: dict[str, Swaps]
    morph_seconds: dict[str, list[float]]
    num_bytes: dict[str, set[int]]
    planned_bytes: dict[str, set[int]]

    @property
    def bytes_as_planned(self) -> bool:
        return all(found <= self.planned_bytes[name] for name, found in self.num_bytes.items())

    def faster(self, kind: str) -> float | None:
        """How many times faster than the router's swap, at the median; None without a router."""
        theirs = self.swaps.get("router")
        return None if theirs is None else theirs.median / self.swaps[kind].median


async def first_token(client: httpx.AsyncClient, target: Target, specialist: str) -> float:
    """Seconds until `specialist` has said one token. Raises BrokenStream."""
    body = chat_body(target, MESSAGES, max_tokens=1, seed=1) | {"model": specialist}
    return (await time_stream(client, target, body, time.perf_counter)).total_seconds


async def measure(ours: str, theirs: str | None, family: WideFamily, rounds: int, layers: int) -> Measured:
    """The first round warms caches and is dropped."""
    us = Target(name="ours", base_url=openai_base(ours), model=HOME)
    them = (
        None
        if theirs is None
        else Target(name="router", base_url=openai_base(theirs), model=HOME, prefill=CLOSED_THINK_BLOCK)
    )
    names = ["near", "far", "load", "warm", *(["router", "router-warm"] if them else [])]
    swaps = {name: Swaps(name) for name in names}
    async with httpx.AsyncClient(timeout=600, limits=FRESH) as client:
        for turn in range(rounds + 1):
            say(f"round {turn} of {rounds}" if turn else "warming up")
            for name, seconds in await _round(client, ours, us, them):
                if turn:
                    swaps[name].seconds.append(seconds)
        morphs = (await client.get(f"{ours}/coe/status")).json()["pool"]["morphs"]
    return _measured(swaps, morphs, family, layers)


async def _round(client: httpx.AsyncClient, ours: str, us: Target, them: Target | None) -> list[tuple[str, float]]:
    for name in ("near", "far", HOME):  # each conversation begins; the engine is new since the last round's unload
        await first_token(client, us, name)
    found = [("warm", await first_token(client, us, HOME))]
    for name in ("near", "far"):
        found.append((name, await first_token(client, us, name)))
        found.append((name, await first_token(client, us, HOME)))
    (await client.post(f"{ours}/coe/specialists/{HOME}/unload")).raise_for_status()
    found.append(("load", await first_token(client, us, HOME)))
    if them is not None:
        await first_token(client, them, HOME)
        found.append(("router-warm", await first_token(client, them, HOME)))
        found.append(("router", await first_token(client, them, "near")))
        found.append(("router", await first_token(client, them, HOME)))
    return found


def _measured(swaps: dict[str, Swaps], morphs: list[dict[str, Any]], family: WideFamily, layers: int) -> Measured:
    """A morph home came from the one before it in the list."""
    seconds: dict[str, list[float]] = {"near": [], "far": []}
    moved: dict[str, set[int]] = {"near": set(), "far": set()}
    for morph in morphs:
        if morph["name"] in seconds:
            seconds[morph["name"]].append(morph["seconds"])
            moved[morph["name"]].add(morph["num_bytes"])
    members, per_expert = family.family.members, family.family.bytes_per_expert
    return Measured(
        layers=layers,
        file_bytes=family.family.plan(HOME).num_bytes,
        swaps=swaps,
        morph_seconds=seconds,
        num_bytes=moved,
        planned_bytes={
            name: {plan_morph(members[other], members[name]).num_bytes(per_expert) for other in (HOME, "near", "far")}
            for name in seconds
        },
    )


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.swap", description=(__doc__ or "").split("\n")[0])
    add_places(parser)
    parser.add_argument("--layers", type=int, default=10, help="how many layers (default: 10, files of 2.9 GB)")
    parser.add_argument("--keep", type=int, default=64, help="experts kept of 128 (default: 64)")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is done (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="the router's threads (default: 2)")
    parser.add_argument(
        "--llama-server", type=Path, metavar="PATH", help="start this llama-server's router beside ours"
    )
    parser.add_argument("--router-url", metavar="URL", help="instead: a running router that serves `home` and `near`")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="swap-", dir=options.folder) as name:
        say(f"writing a parent of {options.layers} layers")
        family = make_family(
            options.vocabulary,
            Path(name),
            first=HOME,
            relatives=RELATIVES,
            layers=options.layers,
            kept=options.keep,
            seed=1,
        )
        found = _served(family, options)
    print(json.dumps(asdict(found), default=sorted) if options.json else _words(found))
    return 0 if _is_good(found) else 1


def _served(family: WideFamily, options: argparse.Namespace) -> Measured:
    peer: Any = nullcontext(options.router_url)
    if options.llama_server:
        models = family.write_files([HOME, "near"])
        peer = router(options.llama_server, models, "-t", str(options.threads), "-np", "4", "-c", "8192")
    home = str(family.folder / "home")
    with gateway(family.college, COE_HOME=home) as ours, peer as theirs:
        return asyncio.run(measure(ours, theirs, family, options.rounds, options.layers))


def _is_good(found: Measured) -> bool:
    faster = found.faster("near")
    return found.bytes_as_planned and (faster is None or faster >= 50)


def _words(found: Measured) -> str:
    lines = [
        f"specialists of {found.file_bytes / 1e9:.2f} GB, {found.layers} layers; time to the end of the first token"
    ]
    for name, swaps in found.swaps.items():
        low, high = min(swaps.seconds), max(swaps.seconds)
        line = f"{name:12s} {swaps.median * 1e3:8.0f} ms ({low * 1e3:.0f}–{high * 1e3:.0f}, n = {len(swaps.seconds)})"
        if name in found.morph_seconds:
            line += f", of it morph {median(found.morph_seconds[name]) * 1e3:.0f} ms"
            line += f", {max(found.num_bytes[name]) / 1e6:.0f} MB"
        faster = None if name.startswith("router") else found.faster(name)
        lines.append(line if faster is None else f"{line}; the router's swap takes {faster:.1f} times as long")
    lines.append("bytes moved equal the plan" if found.bytes_as_planned else "bytes moved DIFFER from the plan")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
