"""Arrangements of experts in slots, and the writes between them."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.expert_slots import EMPTY, MorphPlan, Slots, arrange, arrange_family, plan_morph

NUM_EXPERTS = 12


@st.composite
def families(draw: st.DrawFn, *, most_members: int = 5, num_groups: int = 1) -> list[Slots]:
    """Members that keep as many experts of each group in each of two blocks."""
    group_len = NUM_EXPERTS // num_groups
    keep = draw(st.integers(1, group_len))
    group = st.sets(st.integers(0, group_len - 1), min_size=keep, max_size=keep)

    def block() -> tuple[int, ...]:
        return tuple(sorted(g * group_len + each for g in range(num_groups) for each in draw(group)))

    return [{3: block(), 7: block()} for _ in range(draw(st.integers(1, most_members)))]


def carried_out(held: Slots, plan: MorphPlan) -> dict[int, list[int]]:
    slots = {block: list(experts) for block, experts in held.items()}
    for block, slot, expert in plan.writes:
        slots[block][slot] = expert
    return slots


def as_lists(slots: Slots) -> dict[int, list[int]]:
    return {block: list(experts) for block, experts in slots.items()}


@given(families(), st.lists(st.integers(0, 4), max_size=12))
def test_after_any_chain_of_morphs_the_slots_hold_exactly_the_targets_experts(
    family: list[Slots], chain: list[int]
) -> None:
    """Each plan, carried out slot by slot, ends in the target's own arrangement, which is all of its experts."""
    arranged = arrange_family(family)
    held: Mapping[int, tuple[int, ...]] = {block: (EMPTY,) * len(experts) for block, experts in family[0].items()}
    for step in chain:
        member = step % len(family)
        after = carried_out(held, plan_morph(held, arranged[member]))
        assert {block: sorted(experts) for block, experts in after.items()} == as_lists(family[member])
        assert after == as_lists(arranged[member])
        held = {block: tuple(experts) for block, experts in after.items()}


@given(families(most_members=2))
def test_between_two_specialists_only_the_experts_they_do_not_share_are_written(family: list[Slots]) -> None:
    """The plan has as many writes as there are missing experts: an expert both keep stays in its slot."""
    arranged = arrange_family(family)
    missing = sum(len(set(family[-1][block]) - set(family[0][block])) for block in family[0])

    plan = plan_morph(arranged[0], arranged[-1])

    assert len(plan.writes) == missing
    assert plan.num_bytes({3: 10, 7: 10}) == 10 * missing


@given(families())
def test_no_slot_is_written_that_holds_its_expert_already(family: list[Slots]) -> None:
    """Every write changes a slot, no slot is written twice, and a morph to oneself writes nothing."""
    arranged = arrange_family(family)
    plan = plan_morph(arranged[0], arranged[-1])

    assert all(arranged[0][write.block][write.slot] != write.expert for write in plan.writes)
    assert len({(write.block, write.slot) for write in plan.writes}) == len(plan.writes)
    assert plan_morph(arranged[0], arranged[0]).writes == ()


@given(families())
def test_whoever_joins_later_moves_nobody(family: list[Slots]) -> None:
    """An arrangement depends on the members before it alone, and the first one ascends as in the builder's file."""
    arranged = arrange_family(family)

    assert arranged[0] == family[0]
    for count in range(1, len(family)):
        assert arrange_family(family[:count]) == arranged[:count]
        assert arrange(family[count], arranged[:count]) == arranged[count]


@given(families(num_groups=3))
def test_groups_of_experts_stay_in_their_part_of_the_slots(family: list[Slots]) -> None:
    """With grouped gates, slots [g·K/G, (g+1)·K/G) hold experts of group g and of no other."""
    group_len = NUM_EXPERTS // 3
    for slots in arrange_family(family, num_groups=3):
        for experts in slots.values():
            keep = len(experts) // 3
            assert [expert // group_len for expert in experts] == [slot // keep for slot in range(len(experts))]


def test_experts_that_many_share_keep_one_place() -> None:
    """A third specialist takes over what both others agree on, before what only one of them has."""
    arranged = arrange_family([{0: (0, 1, 2)}, {0: (1, 2, 3)}, {0: (1, 3, 4)}])

    assert arranged == [{0: (0, 1, 2)}, {0: (3, 1, 2)}, {0: (3, 1, 4)}]


def test_arrangements_of_different_shapes_are_no_family() -> None:
    """Another number of slots, or another block, is refused rather than half written."""
    with pytest.raises(ValueError, match="not of one family"):
        plan_morph({0: (1, 2)}, {0: (1, 2, 3)})
    with pytest.raises(ValueError, match="not of one family"):
        plan_morph({0: (1, 2)}, {1: (1, 2)})
