"""Random load, kills and swaps against a gateway of its own, for as long as asked: nothing may be lost or grow.

A college of a tiny masked family and a file of its own is served on the loopback interface under a budget for one
engine and a half, so that requests swap, morph and queue. Clients ask at random, whole and streamed, some leave in
the middle; at random moments an engine process is killed by its id. A request is lost when it ends neither with its
answer nor with an honest refusal that a retry mends (503 or 429, at most `ATTEMPTS` times, or a stream that was cut
by a kill and says so). Memory is that of the gateway and its engines together, each second, once everything has been
loaded for the first time; its median in the last quarter is compared with the first quarter's.

    python -m bench.soak --minutes 10 --seed 1
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx

from bench.report import percentile
from gateway.measured_engine import resident_bytes
from specialists.expert_mask import ExpertMask, write_mask
from tests.end_to_end.conftest import Gateway, serve
from tests.pico import PicoShape, write_pico_gemma

KEPT = {"math": (0, 1, 2, 3), "law": (2, 3, 4, 5), "web": (4, 5, 6, 7)}
ATTEMPTS = 8
MOST_GROWTH = 0.10
WARM_UP_SHARE = 0.2
RETRIED = (429, 503)


@dataclass
class Tally:
    """What became of the requests. `cut` are streams that a kill ended and that said so."""

    ends: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    num_kills: int = 0


def write_college(folder: Path) -> Path:
    write_pico_gemma(folder / "parent.gguf", PicoShape(sliding=(True, False), experts=8))
    write_pico_gemma(folder / "alone.gguf")
    tables = ['[[specialist]]\ntag = "alone:f32"\nmodelfile = "general"\nmodel = "alone.gguf"\ncontext = 1024\n']
    for name, kept in KEPT.items():
        write_mask(ExpertMask(kept={0: kept, 1: kept}, num_experts=8), folder / f"{name}.mask.json")
        tables.append(
            f'[[specialist]]\ntag = "{name}:f32"\nmodelfile = "general"\nparent = "parent.gguf"\n'
            f'mask = "{name}.mask.json"\ncontext = 1024\nparallel = 4\n'
        )
    college = folder / "college.toml"
    college.write_text('[college]\nname = "soak"\ndefault = "alone:f32"\n\n' + "\n".join(tables))
    return college


def largest_footprint(college: Path) -> int:
    """Bytes of the college's largest engine, as the gateway plans it."""
    coe = str(Path(sys.executable).with_name("coe"))
    done = subprocess.run([coe, "plan", "--college", str(college), "--json"], capture_output=True, check=True)
    return max(int(engine["footprint_bytes"]) for engine in json.loads(done.stdout)["engines"])


async def one_request(client: httpx.AsyncClient, chance: random.Random, tally: Tally) -> None:
    body = {
        "model": chance.choice([*(f"{name}:f32" for name in KEPT), "alone:f32"]),
        "messages": [{"role": "user", "content": f"Question {chance.randrange(50)}"}],
        "max_tokens": chance.randint(1, 48),
        "stream": chance.random() < 0.5,
    }
    leaves_after = chance.uniform(0.0, 1.0) if chance.random() < 0.1 else None
    began = time.monotonic()
    try:
        async with asyncio.timeout(leaves_after):
            end = await _answered(client, body)
    except TimeoutError:
        end = "left"
    except httpx.HTTPError as error:
        end = f"lost: {type(error).__name__}"
    tally.ends[end] += 1
    tally.waits.append(time.monotonic() - began)
    if end.startswith("lost"):
        tally.lost.append(end)


async def _answered(client: httpx.AsyncClient, body: dict[str, object]) -> str:
    for attempt in range(ATTEMPTS):
        response = await client.post("/v1/chat/completions", json=body)
        if response.status_code == 200:
            return _end_of(response.text, is_stream=bool(body["stream"])) + (" after a retry" if attempt else "")
        if response.status_code not in RETRIED or response.headers.get("x-should-retry") == "false":
            return f"lost: {response.status_code} {response.text[:200]}"
        await asyncio.sleep(float(response.headers.get("retry-after", "1")))
    return f"lost: refused {ATTEMPTS} times"


def _end_of(text: str, *, is_stream: bool) -> str:
    if not is_stream:
        return "answered" if json.loads(text)["choices"][0]["finish_reason"] else "lost: no finish_reason"
    if text.rstrip().endswith("data: [DONE]"):
        return "answered"
    return "cut, and said so" if '"code":"worker_lost"' in text else "lost: a stream that just ended"


async def client_loop(url: str, chance: random.Random, until: float, tally: Tally) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        while time.monotonic() < until:
            await one_request(client, chance, tally)
            await asyncio.sleep(chance.expovariate(4.0))


async def kill_loop(gateway: Gateway, chance: random.Random, until: float, tally: Tally) -> None:
    """SIGKILL to one engine at a time, far enough apart that none is taken out of service for crashing too often."""
    while time.monotonic() < until:
        await asyncio.sleep(chance.uniform(25.0, 40.0))
        pids = gateway.engine_pids()
        if pids and time.monotonic() < until:
            os.kill(chance.choice(pids), signal.SIGKILL)
            tally.num_kills += 1


async def memory_loop(gateway: Gateway, until: float, tally: Tally) -> None:
    await asyncio.sleep(WARM_UP_SHARE * (until - time.monotonic()))
    while time.monotonic() < until:
        pids = [gateway.process.pid, *gateway.engine_pids()]
        tally.memory.append(sum(resident_bytes(pid) or 0 for pid in pids))
        await asyncio.sleep(1.0)


async def soak(gateway: Gateway, *, minutes: float, clients: int, seed: int) -> Tally:
    tally, until = Tally(), time.monotonic() + 60 * minutes
    loops = [client_loop(gateway.url, random.Random(f"{seed}-{number}"), until, tally) for number in range(clients)]
    await asyncio.gather(
        *loops,
        kill_loop(gateway, random.Random(seed), until, tally),
        memory_loop(gateway, until, tally),
    )
    return tally


def summary(tally: Tally, pool: dict[str, object], minutes: float) -> dict[str, object]:
    quarter = max(1, len(tally.memory) // 4)
    first, last = median(tally.memory[:quarter]), median(tally.memory[-quarter:])
    waits = sorted(tally.waits)
    return {
        "minutes": minutes,
        "requests": len(waits),
        "ends": dict(tally.ends),
        "lost": len(tally.lost),
        "lost_because": sorted(set(tally.lost))[:10],
        "kills": tally.num_kills,
        "p50_seconds": round(percentile(waits, 0.5), 3),
        "p99_seconds": round(percentile(waits, 0.99), 3),
        "longest_seconds": round(waits[-1], 3),
        "memory_first_quarter_mib": round(first / 2**20, 1),
        "memory_last_quarter_mib": round(last / 2**20, 1),
        "memory_growth": round(last / first - 1.0, 4),
        "left_waiting": pool["waiting"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coe-soak-") as text:
        folder = Path(text)
        college = write_college(folder)
        budget = int(1.5 * largest_footprint(college))
        with serve(college, folder, memory_budget=str(budget), threads="1", home=str(folder)) as gateway:
            tally = asyncio.run(soak(gateway, minutes=options.minutes, clients=options.clients, seed=options.seed))
            status = httpx.get(f"{gateway.url}/coe/status", timeout=30).json()
            metrics = httpx.get(f"{gateway.url}/metrics", timeout=30).text
            exit_code = gateway.terminate()
    found = summary(tally, status["pool"], options.minutes) | {"exit_code": exit_code}
    for name in ("coe_loads_total", "coe_morphs_total", "coe_unloads_total", "coe_engine_crashes_total"):
        found[name] = sum(float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if line.startswith(name))
    print(json.dumps(found, indent=2))
    grew = float(str(found["memory_growth"])) > MOST_GROWTH
    return 1 if tally.lost or grew or exit_code else 0


if __name__ == "__main__":
    sys.exit(main())
