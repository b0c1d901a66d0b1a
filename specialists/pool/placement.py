"""How much of a model goes to the GPU when all of it does not fit: a pure choice.

Experts are left in RAM first, those of the first layers first, as few as will do: they are most of a mixture's bytes
and the least used. Only then whole layers stay behind, again as few as will do. A model is never moved to RAM
altogether on the quiet; who wants that says `gpu_layers = 0`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from specialists.pool.budget import format_bytes
from specialists.pool.room import Room

ALL = -1


@dataclass(frozen=True, slots=True)
class Placement:
    """`gpu_layers` layers (−1: all) go to the GPU; the model's first `cpu_expert_layers` leave their experts in RAM."""

    gpu_layers: int = ALL
    cpu_expert_layers: int = 0


class NothingFits(Exception):
    """No placement fits; the message holds the sums."""


def choose_placement(
    asked: Placement, *, num_layers: int, has_experts: bool, need: Callable[[Placement], Room], room: Room
) -> Placement:
    """`asked` if that fits `room`; else the placement closest to it that does. Raises NothingFits.

    `need` says what a placement takes; the more stays in RAM, the less of the device it may take. It is asked about
    2 × log2(`num_layers`) times. `num_layers` does not count the output, which llama.cpp counts as one more.
    """
    if room.holds(need(asked)) or asked.gpu_layers == 0:
        return asked
    candidates = _candidates(asked, num_layers, has_experts)
    index = _first(len(candidates), lambda at: need(candidates[at]).device_bytes <= room.device_bytes)
    if index == len(candidates):
        least = need(candidates[-1]) if candidates else need(asked)
        raise NothingFits(
            f"it takes {_words(need(asked))}, and with as little on the GPU as can be still {_words(least)}, of "
            f"{_words(room)}; lower context or parallel, or run it on the CPU with gpu_layers = 0"
        )
    taken = need(candidates[index])
    if not room.holds(taken):
        raise NothingFits(
            f"it takes {_words(need(asked))}, and with enough of it in RAM {_words(taken)}, of {_words(room)}; "
            "lower context or parallel, or choose a smaller file"
        )
    return candidates[index]


def _candidates(asked: Placement, num_layers: int, has_experts: bool) -> list[Placement]:
    """From the most on the GPU to the least, `asked` itself left out."""
    whole = num_layers + 1
    layers = whole if asked.gpu_layers < 0 else min(asked.gpu_layers, whole)
    most = num_layers if has_experts else asked.cpu_expert_layers
    fewer_experts = [replace(asked, cpu_expert_layers=each) for each in range(asked.cpu_expert_layers + 1, most + 1)]
    fewer_layers = [Placement(each, most) for each in range(layers - 1, 0, -1)]
    return fewer_experts + fewer_layers


def _first(length: int, holds: Callable[[int], bool]) -> int:
    """The first index from which on `holds` is true; `length` where it never is."""
    low, high = 0, length
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _words(room: Room) -> str:
    return f"{format_bytes(room.device_bytes)} of GPU memory and {format_bytes(room.ram_bytes)} of RAM"
