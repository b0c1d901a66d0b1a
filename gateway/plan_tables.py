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
from specialists.pool.budget import format_bytes
from specialists.pool.footprint import Basis, Footprint

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
        "budget_bytes": plan.budget_bytes,
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
        "gpu_layers": engine.placed.gpu_layers,
        "cpu_expert_layers": engine.placed.cpu_expert_layers,
        "specialists": list(engine.tags),
        "unavailable": engine.unavailable,
        "footprint_bytes": footprint.total_bytes if footprint else None,
        "charged_bytes": footprint.charged_bytes if footprint else None,
        "parking_bytes": footprint.parking_bytes if footprint else None,
        "footprint": asdict(footprint) if footprint else None,
        "fits": engine.fits,
    }


def plan_view(plan: CollegePlan) -> Group:
    """The engines, each with its sum; what fits together; what swaps move."""
    return Group(*_paragraphs(plan))


def _paragraphs(plan: CollegePlan) -> Iterator[RenderableType]:
    yield Text(f"{plan.college}: budget {format_bytes(plan.budget_bytes)}")
    for number, engine in enumerate(plan.engines, start=1):
        spec = engine.spec
        heading = f"\n{number}. {spec.model_path.name}, {spec.context_tokens} tokens × {spec.parallel} conversations"
        yield Text(heading, style="bold")
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
    if footprint.parking_bytes:
        table.add_row(format_bytes(footprint.parking_bytes), "of RAM beside it, at most, for parked conversations")
    return table


def _together(plan: CollegePlan) -> Iterator[RenderableType]:
    servable = [engine for engine in plan.engines if engine.footprint]
    if len(servable) < 2:
        return
    needed = sum(engine.footprint.charged_bytes for engine in servable if engine.footprint)
    if needed <= plan.budget_bytes:
        yield Text(f"\nAll {len(servable)} engines fit at once: {format_bytes(needed)}", style="green")
        return
    yield Text(f"\nAll {len(servable)} engines need {format_bytes(needed)} and take turns. At once fit:")
    if plan.together is None:
        yield Text("   (too many engines to list the sets that fit)")
        return
    for chosen in plan.together[:_MOST_SETS]:
        taken = sum(engine.footprint.charged_bytes for number in chosen if (engine := plan.engines[number]).footprint)
        yield Text(f"   {' + '.join(str(number + 1) for number in chosen)}: {format_bytes(taken)}")
    if len(plan.together) > _MOST_SETS:
        yield Text(f"   and {len(plan.together) - _MOST_SETS} other sets (--json has all)")


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
