"""When a corpus is enough: entropy, agreement of resampled masks, and the rule that stops."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from specialists.builder.accumulation import add_trace, resampling_draws
from specialists.builder.histogram import DomainProfile, ProfileError, ProfileShape
from specialists.builder.moe_graph import GateTrace
from specialists.builder.stability import (
    StabilityRule,
    has_settled,
    layer_entropy,
    measure,
    pairwise_jaccard,
    top_masks,
)

RULE = StabilityRule(keep=3, jaccard=0.9, entropy_nats=0.02, increment_tokens=100, growth=0.25)


def test_entropy_is_that_of_the_shares() -> None:
    """Equal shares give ln n, one expert alone 0, and scale does not matter; a layer without tokens counts as 0."""
    counts = np.array([[5, 5, 5, 5], [0, 9, 0, 0], [1, 3, 0, 0], [0, 0, 0, 0]])
    half = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))

    assert layer_entropy(counts) == pytest.approx([math.log(4), 0, half, 0])
    assert layer_entropy(1000 * counts) == pytest.approx(layer_entropy(counts))


def test_masks_hold_the_largest_and_settle_ties_by_id() -> None:
    """Equal utilities must not be decided by chance."""
    masks = top_masks(np.array([[1.0, 3, 2, 3], [1, 1, 1, 1]]), 2)

    assert masks.tolist() == [[False, True, False, True], [True, True, False, False]]


def test_jaccard_is_shared_over_joint() -> None:
    """Replicates that agree give 1, disjoint ones 0, and one of two shared gives a third."""
    utility = np.array([[[9.0, 8, 1, 0]], [[9, 8, 0, 1]], [[0, 1, 8, 9]], [[9, 1, 8, 0]]])

    pairs = pairwise_jaccard(utility, 2)
    assert pairs.shape == (1, 6)
    assert pairs[0] == pytest.approx([1, 0, 1 / 3, 0, 1 / 3, 1 / 3])


def profile_of(num_records: int, *, seed: int = 1) -> DomainProfile:
    """Records that each have a taste of their own, around the same mean."""
    shape = ProfileShape(layers=2, experts=8, ranks=2, replicates=24)
    rng = np.random.default_rng(seed)
    taste = np.linspace(0, 1.2, shape.experts)
    profile = DomainProfile.zeros(shape)
    for record in range(num_records):
        scores = taste + rng.normal(0, 1, (shape.layers, 1, shape.experts))
        noisy = scores + rng.gumbel(size=(shape.layers, 40, shape.experts))
        chosen = np.argsort(-noisy, axis=2)[..., :2].astype(np.int32)
        weights = np.broadcast_to(np.array([0.6, 0.4], dtype=np.float32), chosen.shape)
        draws = resampling_draws("x", [record], replicates=shape.replicates, seed=seed)
        add_trace(profile, GateTrace(chosen, weights, None), np.zeros(40, dtype=np.intp), draws)
    return replace(profile, num_records=num_records)


def test_more_records_make_masks_agree() -> None:
    """The expected Jaccard index rises with the corpus, its interval holds it, and the entropy's does too."""
    points = [measure(profile_of(records), RULE, None) for records in (5, 40, 320)]

    agreement = [point.jaccard for point in points]
    assert agreement == sorted(agreement)
    assert agreement[0] < 0.7 < 0.9 < agreement[-1]
    assert all(point.jaccard_low <= point.jaccard <= point.jaccard_high for point in points)
    assert all(point.jaccard_worst_layer <= point.jaccard for point in points)
    last = points[-1]
    assert last.entropy_low <= last.entropy <= last.entropy_high
    assert last.entropy_change is None


def test_the_change_is_that_of_the_layer_that_moved_most() -> None:
    """A mean over layers would hide one that is still moving."""
    profile = profile_of(20)
    entropy = layer_entropy(profile.routed_tokens)
    before = {"layer_entropy": [float(entropy[0]), float(entropy[1]) + 0.3]}

    assert measure(profile, RULE, before).entropy_change == pytest.approx(0.3)


def test_too_few_replicates_are_said_to_be_so() -> None:
    """With one record, a replicate that drew it has nothing to be compared with unless another did."""
    profile = replace(profile_of(1), replicate_tokens=np.zeros((24, 2)))

    with pytest.raises(ProfileError, match="replicates"):
        measure(profile, RULE, None)


def point(tokens: int, *, jaccard: float = 0.95, change: float | None = 0.01, records: int = 99) -> dict[str, Any]:
    return {"tokens": tokens, "records": records, "jaccard": jaccard, "entropy_change": change}


FIRST = point(100, change=None)


@pytest.mark.parametrize(
    ("curve", "settled"),
    [
        ([], False),
        ([FIRST], False),
        ([FIRST, point(200)], False),
        ([FIRST, point(200), point(300)], True),
        ([FIRST, point(200, records=15), point(300)], False),
        ([FIRST, point(200, jaccard=0.8), point(300)], False),
        ([FIRST, point(200, change=0.5), point(300)], False),
        ([FIRST, point(200), point(300, jaccard=0.8)], False),
        ([FIRST, point(200), point(300), point(310, jaccard=0.8)], True),
        ([FIRST, point(200), point(210), point(220)], False),
        ([FIRST, point(1000), point(1100), point(1250)], False),
        ([FIRST, point(1000), point(1250), point(1300)], True),
    ],
)
def test_two_whole_increments_have_to_satisfy_the_rule(curve: list[dict[str, Any]], settled: bool) -> None:
    """One could by luck, and a short one always does; increments grow with what was seen."""
    assert has_settled(curve, RULE) is settled


def test_increments_grow_with_the_corpus() -> None:
    """At first the least number of tokens, later a share of what was seen."""
    assert [RULE.next_check(tokens) for tokens in (0, 100, 400, 4000)] == [100, 200, 500, 5000]
