"""Merging experts: what it must not change, and what it must."""

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from pocket.merging import merge, write_merged
from tests.test_pocket_model import TINY, parent, split

__all__ = ["parent", "split"]  # fixtures

EXPERTS, INNER, WIDTH = 4, 3, 5
Floats = NDArray[np.float32]


def layer(seed: int) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(seed)
    shapes = ((EXPERTS, 2 * INNER, WIDTH), (EXPERTS, WIDTH, INNER), (EXPERTS, WIDTH))
    wide, narrow, gate = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    return wide, narrow, gate


def test_with_as_many_groups_as_experts_nothing_changes() -> None:
    """Everyone leads a group of one."""
    wide, narrow, gate = layer(1)
    merged = merge(wide, narrow, gate, np.ones(EXPERTS), EXPERTS)

    np.testing.assert_allclose(merged[0], wide, rtol=1e-6)
    np.testing.assert_allclose(merged[1], narrow, rtol=1e-6)


def test_experts_that_differ_in_the_order_of_their_neurons_merge_into_the_same_function() -> None:
    """An expert and its shuffled twin become the expert: order means nothing, so it must not blur anything."""
    wide, narrow, gate = layer(2)
    order = np.array([2, 0, 1])
    wide[3], narrow[3] = np.concatenate([wide[0][:INNER][order], wide[0][INNER:][order]]), narrow[0][:, order]
    gate[3] = 2 * gate[0]
    merged_wide, merged_narrow = merge(wide, narrow, gate, np.array([9.0, 8, 7, 5]), 3)

    for each in (0, 3):
        np.testing.assert_allclose(merged_wide[each], wide[0], rtol=1e-5)
        np.testing.assert_allclose(merged_narrow[each], narrow[0], rtol=1e-5)


def test_a_group_is_the_mean_weighted_by_use() -> None:
    """With one group of one-neuron experts there is nothing to align: the mean can be computed by hand."""
    wide, narrow, gate = layer(3)
    wide, narrow = wide[:, [0, INNER]], narrow[:, :, :1]
    merged_wide, merged_narrow = merge(wide, narrow, gate, np.array([1.0, 2, 3, 4]), 1)

    np.testing.assert_allclose(merged_wide[2], np.average(wide, 0, [1, 2, 3, 4]), rtol=1e-5)
    np.testing.assert_allclose(merged_narrow[0], np.average(narrow, 0, [1, 2, 3, 4]), rtol=1e-5)


def test_the_file_differs_in_its_experts_alone(parent: Path, tmp_path: Path) -> None:
    """K different experts are left in each layer, and every other tensor keeps its bytes."""
    use = np.random.default_rng(4).random((TINY.layers, TINY.experts))
    merged = gguf.GGUFReader(write_merged(parent, tmp_path / "merged.gguf", use, 3)).tensors

    for before, after in zip(gguf.GGUFReader(parent).tensors, merged, strict=True):
        if before.name.endswith(("gate_up_exps.weight", "down_exps.weight")):
            assert len({expert.tobytes() for expert in after.data}) == 3
        else:
            assert after.data.tobytes() == before.data.tobytes()
