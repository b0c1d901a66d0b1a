"""Passes move experts for a logged reason, never change K, and never touch who is exempt."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from specialists.builder import passes
from specialists.builder.passes import Flags
from specialists.builder.selection import as_flags, top_k
from specialists.builder.utility import Scores, shares
from specialists.expert_mask import ExpertMask, replay

LAYERS, EXPERTS = (2, 5), 8
utilities = arrays(np.float64, (2, EXPERTS), elements=st.floats(0, 10).map(lambda value: round(value, 1)))
flag_grids = arrays(np.bool_, (2, EXPERTS))
ranks = arrays(np.float64, (2, EXPERTS), elements=st.sampled_from([0.0, 0.5, 1.5, 3.0, np.inf]))
counts = arrays(np.int64, (2, EXPERTS), elements=st.integers(0, 40))
ks = st.integers(1, EXPERTS)

Pass = Callable[[ExpertMask, Flags], ExpertMask]


@st.composite
def any_pass(draw: st.DrawFn, utility: Scores) -> Pass:
    """One of the passes with random arguments; it still wants a mask and who is exempt."""
    mean_rank, activations, other = draw(ranks), draw(counts), draw(utilities)
    flags = passes.whitelisted(mean_rank, activations)
    cap, wanted = draw(st.integers(0, 4)), draw(flag_grids)

    def whitelist(mask: ExpertMask, exempt: Flags) -> ExpertMask:
        return passes.whitelist(
            mask, flags, mean_rank=mean_rank, activations=activations, utility=utility, exempt=exempt
        )

    def protect(mask: ExpertMask, exempt: Flags) -> ExpertMask:
        return passes.protect(mask, "protect", wanted, signal=other, signal_name="s", utility=utility, exempt=exempt)

    def arbitrage(mask: ExpertMask, exempt: Flags) -> ExpertMask:
        return passes.arbitrage(mask, domain=utility, reasoning=other, cap=cap, exempt=exempt)

    chosen: Pass = draw(st.sampled_from([whitelist, protect, arbitrage]))
    return chosen


@settings(max_examples=200)
@given(data=st.data(), utility=utilities, k=ks, exempt=flag_grids)
def test_what_every_pass_keeps_to(data: st.DataObject, utility: Scores, k: int, exempt: Flags) -> None:
    """K per layer stays, ids stay sorted, unique and in range, the log replays, and nobody exempt is evicted."""
    first = passes.baseline(utility, k, LAYERS)
    mask = data.draw(any_pass(utility))(first, exempt)

    assert mask.budgets == dict.fromkeys(LAYERS, k)
    assert all(list(ids) == sorted(set(ids)) and 0 <= ids[0] <= ids[-1] < EXPERTS for ids in mask.kept.values())
    assert replay(first.kept, mask.swaps) == dict(mask.kept)
    assert not any(exempt[LAYERS.index(swap.layer), swap.evicted] for swap in mask.swaps)
    assert all(swap.why for swap in mask.swaps)


@given(data=st.data(), utility=utilities, k=ks, exempt=flag_grids)
def test_a_pass_is_done_after_one_time(data: st.DataObject, utility: Scores, k: int, exempt: Flags) -> None:
    """Whitelist and protection find nothing more to do the second time; arbitrage spares what it brought in."""
    run = data.draw(any_pass(utility))
    once = run(passes.baseline(utility, k, LAYERS), exempt)
    twice = run(once, exempt | as_flags(passes.selection_of(once), EXPERTS))

    assert twice.kept == once.kept


@given(utility=utilities, reasoning=utilities, k=ks, cap=st.integers(0, EXPERTS))
def test_arbitrage_keeps_its_cap_and_its_word(utility: Scores, reasoning: Scores, k: int, cap: int) -> None:
    """At most `cap` swaps a layer, so never more than cap × layers, and each candidate beats whom it replaces."""
    mask = passes.arbitrage(passes.baseline(utility, k, LAYERS), domain=utility, reasoning=reasoning, cap=cap)
    ours, theirs = shares(utility), shares(reasoning)

    for at, layer in enumerate(LAYERS):
        swaps = [swap for swap in mask.swaps if swap.layer == layer]
        assert len(swaps) <= cap
        for swap in swaps:
            assert swap.added_score == pytest.approx(theirs[at, swap.added])
            assert swap.evicted_score == pytest.approx(max(ours[at, swap.evicted], theirs[at, swap.evicted]))
            assert theirs[at, swap.added] > max(ours[at, swap.evicted], theirs[at, swap.evicted])
            assert swap.scale == passes.SHARE_SCALE


@given(utility=utilities, mean_rank=ranks, activations=counts, k=ks)
def test_the_whitelist_gets_in_as_far_as_there_is_room(
    utility: Scores, mean_rank: Scores, activations: NDArray[np.int64], k: int
) -> None:
    """Whoever it covers is kept, unless all K places of the layer are taken by others it covers."""
    flags = passes.whitelisted(mean_rank, activations)
    mask = passes.whitelist(
        passes.baseline(utility, k, LAYERS), flags, mean_rank=mean_rank, activations=activations, utility=utility
    )

    held = as_flags(passes.selection_of(mask), EXPERTS)
    assert [(row & kept).sum() for row, kept in zip(flags, held, strict=True)] == [min(k, row.sum()) for row in flags]
    assert passes.left_out(mask, flags) == (flags & ~held).sum()


def test_the_whitelist_asks_for_rank_and_activations() -> None:
    """Mean rank strictly below 2 and at least 10 activations, as published."""
    flags = passes.whitelisted(np.array([[1.9, 2.0, 0.0, 0.0, np.inf]]), np.array([[10, 99, 9, 10, 0]]))

    assert flags.tolist() == [[True, False, False, True, False]]


def test_the_whitelist_evicts_who_is_low_in_both() -> None:
    """Of two members low in utility the one the gate ranks lower goes, though its utility is the larger."""
    utility = np.array([[9.0, 1.1, 1.0, 0.5, 0.4]])
    mean_rank = np.array([[1.0, 7.0, 2.5, 0.0, 5.0]])
    activations = np.array([[500, 80, 80, 12, 30]])
    flags = passes.whitelisted(mean_rank, activations)

    mask = passes.whitelist(
        passes.baseline(utility, 3, [0]), flags, mean_rank=mean_rank, activations=activations, utility=utility
    )

    assert mask.kept[0] == (0, 2, 3)
    assert (mask.swaps[0].added, mask.swaps[0].evicted) == (3, 1)
    assert mask.swaps[0].why == "mean rank 0.00 over 12 activations"


def test_protection_by_another_signal_brings_its_best_in() -> None:
    """The lowest in utility makes room, and the log tells both utilities."""
    utility, signal = np.array([[5.0, 4.0, 3.0, 0.1]]), np.array([[1.0, 1.0, 1.0, 9.0]])
    first = passes.baseline(utility, 3, [0])
    mask = passes.protect(
        first, "protect-top", passes.top_by(signal, 1), signal=signal, signal_name="reap", utility=utility
    )

    assert mask.kept[0] == (0, 1, 3)
    assert (mask.swaps[0].added_score, mask.swaps[0].evicted_score) == (0.1, 3.0)
    assert "reap 9" in mask.swaps[0].why


@given(utility=utilities, k=ks, factor=st.floats(1.5, 50))
def test_nothing_is_extreme_where_all_are_alike(utility: Scores, k: int, factor: float) -> None:
    """The criterion is relative to the layer, so that a layer without outliers protects nobody."""
    alike = np.full((2, EXPERTS), 3.0)

    assert not passes.extreme(alike, factor).any()
    assert not passes.extreme(np.zeros((2, EXPERTS)), factor).any()


def test_an_extreme_expert_stays_though_nobody_uses_it() -> None:
    """One output a hundred times its layer's median is reason enough; silent experts do not lower the median."""
    reach = np.array([[1.0, 1.2, 0.0, 0.0, 0.0, 0.0, 0.9, 100.0]])
    utility = np.array([[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 0.0]])
    flags = passes.extreme(reach)

    mask = passes.protect(
        passes.baseline(utility, 4, [0]), "extreme", flags, signal=reach, signal_name="max", utility=utility
    )

    assert flags.sum() == 1
    assert mask.kept[0] == (0, 1, 2, 7)


def test_no_experts_by_a_signal_is_nobody() -> None:
    """Protecting none is not an error here."""
    assert not passes.top_by(np.ones((1, 4)), 0).any()
    assert passes.top_by(np.ones((1, 4)), 2).tolist() == [[True, True, False, False]]


def test_the_baseline_is_the_best_k() -> None:
    """With an empty log, for the profile's own block indices."""
    utility = np.array([[1.0, 3.0, 2.0], [3.0, 1.0, 2.0]])
    mask = passes.baseline(utility, 2, LAYERS, domain="math")

    assert dict(mask.kept) == dict(zip(LAYERS, top_k(utility, 2), strict=True))
    assert (mask.swaps, mask.domain, mask.num_experts) == ((), "math", 3)
