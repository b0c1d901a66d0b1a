"""Which expert lies in which slot of a frame, and which slots a morph has to write. Pure.

A MoE layer gives the same answer in whatever order its experts lie, but not to the last bit: the gate's softmax adds
up its terms in slot order, and rounding follows. So that an answer never depends on what was served before it, each
specialist has one arrangement of its own, wherever it comes from: it is chosen once, such that experts shared with
the specialists before it lie where those have them. Of two specialists a morph then writes exactly the experts that
they do not share; of larger families a few per cent more than that.

Arrangements are made in the college's order, so a specialist that joins later moves nobody else's experts.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = ["EMPTY", "MorphPlan", "SlotWrite", "Slots", "arrange", "arrange_family", "plan_morph"]

Slots = Mapping[int, tuple[int, ...]]
"""Block → the expert id in each of its slots."""

EMPTY: Final = -1  # nothing, or nothing that may be trusted


class SlotWrite(NamedTuple):
    """Put `expert` of `block` into `slot`."""

    block: int
    slot: int
    expert: int


@dataclass(frozen=True, slots=True)
class MorphPlan:
    """The writes that turn one arrangement into another, by block and slot."""

    writes: tuple[SlotWrite, ...]

    def num_bytes(self, bytes_per_expert: Mapping[int, int]) -> int:
        """Bytes to move, given those of one expert in each block."""
        return sum(bytes_per_expert[write.block] for write in self.writes)


def plan_morph(held: Slots, target: Slots) -> MorphPlan:
    """Every slot whose content differs, and no other. Raises ValueError where the two are not of one shape."""
    if {block: len(experts) for block, experts in held.items()} != {block: len(at) for block, at in target.items()}:
        raise ValueError("the arrangements differ in their blocks or slots; they are not of one family")
    return MorphPlan(
        tuple(
            SlotWrite(block, slot, expert)
            for block, experts in sorted(target.items())
            for slot, expert in enumerate(experts)
            if held[block][slot] != expert
        )
    )


def arrange_family(family: Iterable[Slots], *, num_groups: int = 1) -> list[Slots]:
    """An arrangement for each member of a family, in its order; the first one's experts ascend.

    `family` gives each member's experts by block. `num_groups` as in `arrange`.
    """
    settled: list[Slots] = []
    for kept in family:
        settled.append(arrange(kept, settled, num_groups=num_groups))
    return settled


def arrange(kept: Slots, settled: Sequence[Slots], *, num_groups: int = 1) -> Slots:
    """Slots for the experts in `kept`, lying as often as possible where the `settled` arrangements have them.

    With `num_groups` > 1 (DeepSeek) each group of experts, told by its rank among the kept ones, stays in its own
    part of the slots. The most often agreed places are given first, which comes within about a hundredth of the best
    possible assignment and takes milliseconds.
    """
    return {
        block: _arranged(sorted(experts), [other[block] for other in settled], num_groups)
        for block, experts in sorted(kept.items())
    }


def _arranged(experts: Sequence[int], settled: Sequence[tuple[int, ...]], num_groups: int) -> tuple[int, ...]:
    length = len(experts) // num_groups
    slots: list[int] = []
    for start in range(0, len(experts), length):
        end = start + length
        slots += _fill(experts[start:end], [other[start:end] for other in settled])
    return tuple(slots)


def _fill(experts: Sequence[int], settled: Sequence[tuple[int, ...]]) -> list[int]:
    """The experts of one group in its slots."""
    members = set(experts)
    votes = Counter((slot, expert) for other in settled for slot, expert in enumerate(other) if expert in members)
    slots = [EMPTY] * len(experts)
    homeless = set(experts)
    for (slot, expert), _ in sorted(votes.items(), key=lambda vote: (-vote[1], vote[0])):
        if slots[slot] == EMPTY and expert in homeless:
            slots[slot] = expert
            homeless.remove(expert)
    rest = iter(sorted(homeless))
    return [expert if expert != EMPTY else next(rest) for expert in slots]
