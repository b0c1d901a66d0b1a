"""How frames come up: from a stream or a trunk file, and what is checked before they serve."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest

from specialists.engine.frame_loading import expert_names, write_trunk
from specialists.engine.llama import Model
from specialists.engine.llama.graph_hook import GraphTensor
from specialists.engine.llama.tensors import collect, look_up
from specialists.errors import SpecialistUnavailable
from specialists.family import Family
from specialists.gguf_file import read_header
from tests.pico import PicoShape
from tests.specialists.engine.frames import NUM_KEPT, WIDE, family_of, frame_of, loaded, logits


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family_of(tmp_path_factory.mktemp("family") / "parent.gguf", WIDE, num_kept=NUM_KEPT)


def swapped(model: Model, names: Collection[str]) -> dict[str, GraphTensor]:
    """A lookup that takes each layer's tensors for another layer's of the same shape and type."""
    right = look_up(model, names)
    return {name: right[name.replace("blk.0.", "blk.9.").replace("blk.1.", "blk.0.").replace("blk.9.", "blk.1.")]
            for name in right}  # fmt: skip


def test_without_streams_a_trunk_file_serves_as_well(family: Family, tmp_path: Path) -> None:
    """A trunk with holes, filled by a first morph, computes what the streamed model does, and is gone afterwards."""
    with (
        loaded(family, "law", streams=True) as streamed,
        loaded(family, "law", streams=False, scratch=tmp_path) as file,
    ):
        assert np.array_equal(logits(streamed.model), logits(file.model))
        assert frame_of(file).serving == "law"
    assert list(tmp_path.iterdir()) == []


def test_a_trunk_file_takes_no_room_for_experts(tmp_path: Path) -> None:
    """It is as long as the specialist's, but has no blocks on disk where the experts will be."""
    wide = PicoShape(experts=16, width=256, expert_width=256, sliding=(True, False))
    family = family_of(tmp_path / "parent.gguf", wide, num_kept=8)
    plan = family.plan("math")
    write_trunk(plan, tmp_path / "trunk.gguf", expert_names(family))

    found, expert_bytes = (tmp_path / "trunk.gguf").stat(), 8 * sum(family.bytes_per_expert.values())
    assert found.st_size == plan.num_bytes
    assert found.st_blocks * 512 < plan.num_bytes - 0.9 * expert_bytes
    assert [info.shape for info in read_header(tmp_path / "trunk.gguf").tensors] == [
        info.shape for info in plan.tensors
    ]


def test_both_ways_of_finding_tensors_agree(family: Family) -> None:
    """llama.cpp's own lookup and the graph of one token give the same addresses for every tensor with slots."""
    with loaded(family, "math") as found:
        names = expert_names(family)
        by_name, by_graph = (find(found.model, names) for find in (look_up, collect))

        assert by_name.keys() == by_graph.keys() == names
        assert {name: each.address for name, each in by_name.items()} == {
            name: each.address for name, each in by_graph.items()
        }


def test_a_frame_comes_up_by_the_graph_where_the_lookup_is_missing(family: Family) -> None:
    """A build that exports no lookup serves frames all the same."""
    with loaded(family, "math", finders=(lambda _model, _names: {}, collect)) as found:
        assert frame_of(found).check(num_slots=1000, seed=1).is_sound


@pytest.mark.parametrize(
    ("finder", "why"),
    [(swapped, "has the name blk"), (lambda _model, _names: {}, "was not found in the loaded model")],
    ids=["wrong tensors", "no tensors"],
)
def test_tensors_that_are_not_what_they_should_be_make_no_frame(family: Family, finder: object, why: str) -> None:
    """The model still serves the specialist it was loaded as, and the reason why it can serve no other is told."""
    with loaded(family, "math", finders=(finder,)) as found, loaded(family, "math") as sound:
        assert found.frame is None
        assert found.why_fixed is not None
        assert why in found.why_fixed
        assert np.array_equal(logits(found.model), logits(sound.model))


def test_an_unfillable_trunk_is_refused(family: Family) -> None:
    """Without streams nothing but a frame can fill the trunk: no half model is served, and the mend is named."""
    with pytest.raises(SpecialistUnavailable, match="coe build"), loaded(family, "math", streams=False, finders=()):
        pass


def test_a_parent_that_is_gone_is_an_unavailable_specialist(tmp_path: Path) -> None:
    """Its file is named; nothing crashes."""
    family = family_of(tmp_path / "parent.gguf", PicoShape(), num_kept=4)
    (tmp_path / "parent.gguf").unlink()
    with pytest.raises(SpecialistUnavailable, match=r"parent\.gguf"), loaded(family, "math"):
        pass


def test_a_parent_that_ends_too_early_is_an_unavailable_specialist(tmp_path: Path) -> None:
    """A file cut off behind its header gives the reason instead of a model with zeros in it."""
    family = family_of(tmp_path / "parent.gguf", PicoShape(), num_kept=4)
    with (tmp_path / "parent.gguf").open("r+b") as file:
        file.truncate(family.layouts[0].header.data_offset + 1000)
    with pytest.raises(SpecialistUnavailable, match="became shorter"), loaded(family, "math"):
        pass
