"""How `coe plan` shows a plan: tables for people, plain data for machines; no decisions."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gateway.plan import CollegePlan, PlannedEngine, Swap, SwapKind
from specialists.engine.protocol import EngineSpec
from specialists.pool.budget import format_bytes
from specialists.pool.footprint import Basis, Footprint
from specialists.pool.room import Room, total

_MOST_SETS: Final = 6
_MOST_SWAPS: Final = 24
_HOW: Final = {
    Basis.FORMULA: "by formula, leaning upwards",
    Basis.PLANNED: "llama.cpp's dry run; the process as they usually are, until one was measured",
    Basis.MEASURED: "llama.cpp's dry run, and the process as an earlier one was",
}


def plan_object(plan: CollegePlan) -> dict[str, Any]:
    """Sizes are in bytes. `together` names engines by their place in `engines`."""
    return {
        "college": str(plan.college),
        "budget_bytes": plan.budget.device_bytes,
        "ram_budget_bytes": plan.budget.ram_bytes,
        "engines": [_engine_object(engine) for engine in plan.engines],
        "together": plan.together,
        "swaps": [
            {"from": swap.source, "to": swap.target, "kind": swap.kind, "bytes": swap.num_bytes} for swap in plan.swaps
        ],
    }


def _engine_object(engine: PlannedEngine) -> dict[str, Any]:
    footprint = engine.footprint
    return {
        "file": str(engine.spec.model_path),
        "context_tokens": engine.spec.context_tokens,
        "parallel": engine.spec.parallel,
        "pooling": engine.spec.pooling,
        "gpu_layers": engine.placed.gpu_layers,
        "cpu_expert_layers": engine.placed.cpu_expert_layers,
        "specialists": list(engine.tags),
        "unavailable": engine.unavailable,
        "footprint_bytes": footprint.total_bytes if footprint else None,
        "charged_bytes": engine.room.device_bytes if engine.room else None,
        "ram_bytes": engine.room.ram_bytes if engine.room else None,
        "parking_bytes": footprint.parking_bytes if footprint else None,
        "footprint": asdict(footprint) if footprint else None,
        "fits": engine.fits,
    }


def plan_view(plan: CollegePlan) -> Group:
    """The engines, each with its sum; what fits together; what swaps move."""
    return Group(*_paragraphs(plan))


def _paragraphs(plan: CollegePlan) -> Iterator[RenderableType]:
    ram = f"of RAM, parked conversations included, {format_bytes(plan.budget.ram_bytes)}"
    yield Text(f"{plan.college}: budget {format_bytes(plan.budget.device_bytes)}; {ram}")
    for number, engine in enumerate(plan.engines, start=1):
        spec = engine.spec
        yield Text(f"\n{number}. {spec.model_path.name}, {_work(spec)}", style="bold")
        yield Text(f"   serves {', '.join(engine.tags)}")
        if engine.footprint is None:
            yield Text(f"   {engine.unavailable}", style="red")
        else:
            yield _sum(engine.footprint)
            yield from _placement(engine, uses_gpu=plan.uses_gpu)
            fits, style = ("fits the budget", "green") if engine.fits else ("can never be loaded", "red")
            yield Text(f"   {fits}", style=style)
    yield from _together(plan)
    yield from _swaps(plan)


def _work(spec: EngineSpec) -> str:
    if spec.pooling is not None:
        return f"embeddings of texts up to {spec.context_tokens} tokens"
    return f"{spec.context_tokens} tokens × {spec.parallel} conversations"


def _placement(engine: PlannedEngine, *, uses_gpu: bool) -> Iterator[RenderableType]:
    """What was asked for and has no effect, or what does not fit the GPU."""
    asked, placed = engine.spec, engine.placed
    wanted = {"gpu_layers": asked.gpu_layers, "cpu_expert_layers": asked.cpu_expert_layers}
    if not uses_gpu:
        for name, number in wanted.items():
            if number > 0:
                yield Text(f"   {name} = {number} has no effect: llama.cpp uses no GPU here", style="yellow")
    elif placed.gpu_layers != asked.gpu_layers:
        layers = f"{placed.gpu_layers} layers on it (the output counts as one), the others stay in RAM"
        yield Text(f"   too large for the GPU: {layers}", style="yellow")
    elif placed.cpu_expert_layers != asked.cpu_expert_layers:
        experts = f"the experts of the first {placed.cpu_expert_layers} layers stay in RAM"
        yield Text(f"   too large for the GPU: {experts}", style="yellow")


def _sum(footprint: Footprint) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(justify="right", min_width=16)
    table.add_column()
    rows = [
        (footprint.weights_bytes, "weights"),
        (footprint.full_cache_bytes, f"KV cache of {footprint.full_cells} tokens"),
        (footprint.sliding_cache_bytes, f"sliding-window KV cache of {footprint.sliding_cells} tokens"),
        (footprint.compute_bytes, "compute buffers"),
        (footprint.process_bytes, "process"),
    ]
    for num_bytes, what in rows:
        if num_bytes:
            table.add_row(format_bytes(num_bytes), what)
    table.add_row(format_bytes(footprint.total_bytes), f"in all ({_HOW[footprint.basis]})", style="bold")
    if footprint.device_bytes:
        table.add_row(format_bytes(footprint.charged_bytes), "of it on the GPU")
        table.add_row(format_bytes(footprint.ram_bytes), "of it in RAM")
    if footprint.parking_bytes:
        table.add_row(format_bytes(footprint.parking_bytes), "of RAM beside it, at most, for parked conversations")
    return table


def _together(plan: CollegePlan) -> Iterator[RenderableType]:
    servable = [engine for engine in plan.engines if engine.footprint]
    if len(servable) < 2:
        return
    needed = total(engine.room for engine in servable if engine.room)
    if plan.budget.holds(needed):
        yield Text(f"\nAll {len(servable)} engines fit at once: {_words(needed, plan)}", style="green")
        return
    yield Text(f"\nAll {len(servable)} engines need {_words(needed, plan)} and take turns. At once fit:")
    if plan.together is None:
        yield Text("   (too many engines to list the sets that fit)")
        return
    for chosen in plan.together[:_MOST_SETS]:
        taken = total(room for number in chosen if (room := plan.engines[number].room))
        yield Text(f"   {' + '.join(str(number + 1) for number in chosen)}: {_words(taken, plan)}")
    if len(plan.together) > _MOST_SETS:
        yield Text(f"   and {len(plan.together) - _MOST_SETS} other sets (--json has all)")


def _words(room: Room, plan: CollegePlan) -> str:
    """Of the memory budget; and of RAM, where that is another memory or is what is short."""
    tells_ram = room.ram_bytes > (0 if plan.uses_gpu else plan.budget.ram_bytes)
    beside = f" and {format_bytes(room.ram_bytes)} of RAM" if tells_ram else ""
    return f"{format_bytes(room.device_bytes)}{beside}"


def _swaps(plan: CollegePlan) -> Iterator[RenderableType]:
    moves = list(_moves(plan.swaps))
    if not moves:
        return
    yield Text("\nA swap moves")
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(justify="right", min_width=16)
    table.add_column()
    for num_bytes, what in moves[:_MOST_SWAPS]:
        table.add_row(format_bytes(num_bytes), escape(what))
    yield table
    if len(moves) > _MOST_SWAPS:
        yield Text(f"   and {len(moves) - _MOST_SWAPS} others (--json has all)")


def _moves(swaps: tuple[Swap, ...]) -> Iterator[tuple[int, str]]:
    """Morphs by pair, as both ways move the same; loads by what is loaded, wherever one comes from."""
    shown: set[tuple[str, str]] = set()
    for swap in swaps:
        if swap.kind is SwapKind.MORPH and (swap.target, swap.source) not in shown:
            shown.add((swap.source, swap.target))
            yield swap.num_bytes, f"{swap.source} ↔ {swap.target}, a morph"
    loads: dict[str, int] = defaultdict(int)
    for swap in swaps:
        if swap.kind is SwapKind.LOAD:
            loads[swap.target] = swap.num_bytes
    for target, num_bytes in loads.items():
        yield num_bytes, f"to {target} from another engine, a load"
