"""Planned against taken: how much memory engines really use, beside what the plan said before they were loaded.

    python -m bench.footprint --vocabulary ../shared/data/gemma-4-26b-a4b.vocab.gguf --folder /tmp

For a dense model, a mixture, one with sliding windows, and a masked specialist of Gemma 4's widths with two layers
(1.6 GB of parent, `--small` leaves it out): the plan, then an engine that answers a long prompt beside short ones, and
once by a JSON schema, its resident memory, and the same again with what the first engine taught. On a CPU, so of RAM.
The dense model is the starter college's; the others are written to the folder and deleted.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.wide_parent import add_places, write_wide_parent
from gateway.footprints import FootprintPlanner, Memory
from gateway.machine import STARTER_WEIGHTS, find_weights
from gateway.measured_engine import MeasuredEngine, resident_bytes
from gateway.plan_store import PlanStore
from specialists.engine.protocol import EngineSpec, FamilyMember
from specialists.expert_mask import ExpertMask, write_mask
from specialists.gguf_file import read_header
from specialists.moe_layout import layout
from specialists.pool.footprint import Footprint
from specialists.request import ChatPrompt, GenerationRequest, Message, SamplingParams
from tests.pico import PicoShape, write_pico_gemma

MIB = 1024**2
WANTED = 0.03
_PATIENCE_SECONDS = 600.0  # a busy machine changes no size
SCHEMA = '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}'
MIXTURE = PicoShape(
    sliding=(True, False, False, False, False, False), width=512, experts=32, experts_used=4, expert_width=512
)
WINDOWED = PicoShape(
    sliding=(True, True, True, True, True, False) * 2,
    window_tokens=512,
    width=512,
    heads=8,
    kv_heads=8,
    head_width=128,
    mlp_width=4096,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Bytes of one model: planned before any engine ran, taken by the first, planned with that, taken by the second."""

    name: str
    first_plan: Footprint
    first_taken_bytes: int
    second_plan: Footprint
    second_taken_bytes: int

    @property
    def first_error(self) -> float:
        return self.first_plan.total_bytes / self.first_taken_bytes - 1

    @property
    def second_error(self) -> float:
        return self.second_plan.total_bytes / self.second_taken_bytes - 1


def models(folder: Path, vocabulary: Path | None) -> Iterator[tuple[str, EngineSpec]]:
    """Each model just when it is wanted; what was there before it may be deleted by then."""
    starter = find_weights(STARTER_WEIGHTS)
    if starter is None:
        raise SystemExit("the starter college's weights are missing; make serve fetches them")
    yield "dense", EngineSpec(model_path=starter, context_tokens=2048, parallel=8)
    for name, shape, context in (("mixture", MIXTURE, 4096), ("sliding windows", WINDOWED, 4096)):
        path = write_pico_gemma(folder / f"{name}.gguf", shape)
        yield name, EngineSpec(model_path=path, context_tokens=context, parallel=2)
        path.unlink()
    if vocabulary is not None:
        parent = folder / "wide.gguf"
        write_wide_parent(vocabulary, parent, num_layers=2, seed=1)
        blocks = layout(read_header(parent)).blocks
        mask = folder / "half.mask.json"
        write_mask(ExpertMask(kept={block: tuple(range(64)) for block in blocks}, num_experts=128), mask)
        member = FamilyMember("half", mask_path=mask)
        yield "Gemma 4, masked", EngineSpec(model_path=parent, context_tokens=4096, parallel=2, family=(member,))
        parent.unlink()


async def measure(name: str, spec: EngineSpec, planner: FootprintPlanner) -> Measured:
    first_plan = planner.footprint(spec)
    first_taken_bytes = await _work(spec, planner)
    second_plan = planner.footprint(spec)
    return Measured(
        name=name,
        first_plan=first_plan,
        first_taken_bytes=first_taken_bytes,
        second_plan=second_plan,
        second_taken_bytes=await _work(spec, planner),
    )


async def _work(spec: EngineSpec, planner: FootprintPlanner) -> int:
    """Bytes that an engine holds once it has worked, as it tells the planner too."""
    engine = MeasuredEngine(
        spec,
        read=resident_bytes,
        learn=lambda taken, worked: planner.learn(spec, taken, has_worked=worked),
        silence_seconds=_PATIENCE_SECONDS,
        load_stall_seconds=_PATIENCE_SECONDS,
    )
    info = await engine.load(lambda _share: None)
    try:
        await asyncio.gather(*(_ask(engine, spec, number) for number in range(spec.parallel)))
        await _ask(engine, spec, spec.parallel, json_schema=SCHEMA)
        taken_bytes = resident_bytes(info.pid)
    finally:
        await engine.close()
    if taken_bytes is None:
        raise SystemExit("this system does not say what a process holds")
    return taken_bytes


async def _ask(engine: MeasuredEngine, spec: EngineSpec, number: int, *, json_schema: str | None = None) -> None:
    """The first prompt fills a batch of 512 tokens, for which all scratch is needed; the others are short."""
    words = "moon " * (640 if number == 0 else 16)
    request = GenerationRequest(
        id=f"{number}",
        prompt=ChatPrompt((Message("user", f"{number} {words}"),)),
        sampling=SamplingParams(),
        max_tokens=16,
        context_tokens=spec.context_tokens,
        specialist=spec.family[0].name if spec.family else "",
        json_schema=json_schema,
    )
    async for _ in engine.generate(request):
        pass


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.footprint", description=(__doc__ or "").split("\n")[0])
    add_places(parser)
    parser.add_argument("--small", action="store_true", help="leave out the model of Gemma 4's widths")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    found = []
    with tempfile.TemporaryDirectory(prefix="footprint-", dir=options.folder) as name:
        planner = FootprintPlanner(PlanStore(Path(name) / "plans"), Memory(budget_bytes=0, uses_gpu=False, ram_bytes=0))
        for title, spec in models(Path(name), None if options.small else options.vocabulary):
            found.append(asyncio.run(measure(title, spec, planner)))
            if not options.json:
                print(_words(found[-1]), flush=True)
    if options.json:
        print(json.dumps([asdict(each) | _errors(each) for each in found]))
    return 0 if all(abs(each.second_error) <= WANTED for each in found) else 1


def _errors(found: Measured) -> dict[str, float]:
    return {"first_error": found.first_error, "second_error": found.second_error}


def _words(found: Measured) -> str:
    plan = found.second_plan
    return "\n".join(
        [
            f"{found.name}: weights {plan.weights_bytes / MIB:.1f} MiB, cache {plan.kv_cache_bytes / MIB:.1f} MiB, "
            f"compute {plan.compute_bytes / MIB:.1f} MiB, process {plan.process_bytes / MIB:.1f} MiB",
            _line("  first engine ", found.first_plan, found.first_taken_bytes, found.first_error),
            _line("  second engine", found.second_plan, found.second_taken_bytes, found.second_error),
        ]
    )


def _line(title: str, plan: Footprint, taken_bytes: int, error: float) -> str:
    return f"{title}  planned {plan.total_bytes / MIB:8.1f} MiB  taken {taken_bytes / MIB:8.1f} MiB  {error:+.1%}"


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
