"""Gates with groups of experts (DeepSeek): what a mask must leave alone, and that a frame does.

llama.cpp cuts the gate's scores into `expert_group_count` equal runs, adds up the two best of each, and lets a token
choose among the experts of the best runs only. Which group an expert is in is therefore its place.
"""

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.catalogue import load_catalogue
from specialists.engine.frame_loading import load_frame
from specialists.engine.llama import LlamaLog
from specialists.expert_mask import ExpertMask, MaskError, write_mask
from specialists.expert_slots import arrange_family
from specialists.family import Family, identify, masked_family, read_mask_for
from specialists.gguf_file import read_header
from specialists.moe_layout import MoeError, layout
from tests.pico_moe import EXPERTS, write_pico_moe
from tests.specialists.engine.frames import frame_of, loaded, logits

Kept = dict[int, tuple[int, ...]]
LOPSIDED: Kept = {1: (0, 1, 2, 7)}
BALANCED: dict[str, Kept] = {"math": {1: (0, 1, 4, 7)}, "law": {1: (1, 3, 5, 6)}, "code": {1: (2, 3, 4, 5)}}


def mask(kept: Kept) -> ExpertMask:
    return ExpertMask(kept=kept, num_experts=EXPERTS)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return write_pico_moe(tmp_path / "parent.gguf", "deepseek2")


def family(parent: Path) -> Family:
    return masked_family(layout(read_header(parent)), {name: mask(kept) for name, kept in BALANCED.items()})


def test_a_mask_that_would_move_experts_between_groups_is_refused(parent: Path, tmp_path: Path) -> None:
    """Before anything is loaded, with the layer, the groups and the mend; also where a mask is read from its file."""
    found = identify(read_header(parent))
    write_mask(mask(LOPSIDED), tmp_path / "lopsided.mask.json")
    message = "2 groups of experts, of which the mask keeps 1 to 3 in layer 1; slicing needs the same number from each"

    with pytest.raises(MoeError, match=message):
        masked_family(found.layout, {"math": mask(BALANCED["math"]), "lopsided": mask(LOPSIDED)})
    with pytest.raises(MaskError, match=rf"lopsided\.mask\.json: .*{message}"):
        read_mask_for(found, tmp_path / "lopsided.mask.json")


def test_a_college_serves_the_others_without_it(parent: Path, tmp_path: Path) -> None:
    """The specialist is unavailable, says why, and is in nobody's family."""
    for name, kept in (("math", BALANCED["math"]), ("lopsided", LOPSIDED)):
        write_mask(mask(kept), tmp_path / f"{name}.mask.json")
    tables = "".join(
        f'[[specialist]]\ntag = "{name}:q4"\nparent = "{parent.name}"\nmask = "{name}.mask.json"\n'
        for name in ("math", "lopsided")
    )
    (tmp_path / "college.toml").write_text(f'[college]\nname = "c"\ndefault = "math:q4"\n{tables}')

    math, lopsided = load_catalogue(tmp_path / "college.toml").specialists.values()

    assert (math.unavailable, len(math.engine.family)) == (None, 1)
    assert "2 groups of experts" in (lopsided.unavailable or "")


half = st.lists(st.integers(0, 15), min_size=4, max_size=4, unique=True)
kept_in_four_groups = st.tuples(half, half, half, half).map(
    lambda groups: {0: tuple(sorted(16 * number + each for number, group in enumerate(groups) for each in group))}
)


@given(st.lists(kept_in_four_groups, min_size=1, max_size=5))
def test_slots_keep_every_expert_in_its_group(members: list[Kept]) -> None:
    """Whatever a family keeps, each of the four runs of slots holds experts of the run's own group."""
    for slots in arrange_family(members, num_groups=4):
        assert all(expert // 16 == slot // 4 for slot, expert in enumerate(slots[0]))


def test_morphs_between_groups_equal_fresh_loads(parent: Path) -> None:
    """After a chain of morphs the logits are those of a load of that specialist, to the last bit."""
    found = family(parent)
    with loaded(found, "math") as frame:
        for name in ("law", "code", "math", "code"):
            frame_of(frame).morph(name, found.members[name], clock=time.monotonic)
            fresh = load_frame(found, name, gpu_layers=0, log=LlamaLog(), clock=time.monotonic)
            assert np.array_equal(logits(frame.model), logits(fresh.model))
            fresh.close()
