"""The swap benches as far as they are arithmetic: the trace, the masks, and the verdicts."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.mixed import MOST_TURNS, NAMES, trace
from bench.wide_family import FAR, NEAR, Relative, kept_experts
from specialists.gguf_file import read_header
from specialists.moe_layout import layout
from tests.pico import PicoShape, write_pico_gemma


@given(st.integers(1, 300), st.integers(0, 5))
def test_a_trace_has_as_many_turns_as_asked_for(num_requests: int, seed: int) -> None:
    """Of the four specialists alone, no turn said twice, and the same for the same seed."""
    found = trace(num_requests, seed)
    said = [turn for conversation in found for turn in conversation.turns]

    assert len(said) == len(set(said)) == num_requests
    assert {conversation.specialist for conversation in found} <= set(NAMES)
    assert all(1 <= len(conversation.turns) <= MOST_TURNS for conversation in found)
    assert found == trace(num_requests, seed)


@pytest.mark.parametrize("share", [NEAR, FAR])
def test_a_relative_differs_in_its_share_of_every_layer(share: float, tmp_path: Path) -> None:
    """From the one it is named after, not from the first."""
    parent = layout(read_header(write_pico_gemma(tmp_path / "parent.gguf", PicoShape(experts=64))))
    relatives = [Relative("b", "a", 0.5), Relative("c", "b", share)]
    found = kept_experts(parent, "a", relatives, 32, seed=3)

    for block in parent.blocks:
        assert all(len(set(masks[block])) == 32 for masks in found.values())
        assert len(set(found["b"][block]) - set(found["c"][block])) == round(share * 32)
        assert len(set(found["a"][block]) - set(found["b"][block])) == 16
