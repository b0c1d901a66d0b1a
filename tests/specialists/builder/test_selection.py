"""The best K are kept, the smallest sufficient K is found, and coverage comes with its uncertainty."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from specialists.builder.selection import (
    SelectionError,
    coverage,
    effective_number,
    expected_jaccard,
    gini,
    near_ties,
    num_to_reach,
    retained,
    smallest_uniform_k,
    top_k,
    top_share,
)
from specialists.builder.utility import Scores, Utility, utility
from tests.specialists.builder.made_up import made_up_domain

EXPERTS = 6
scores = arrays(np.float64, (3, EXPERTS), elements=st.floats(0, 10).map(lambda value: round(value, 2)))


@given(values=scores, k=st.integers(1, EXPERTS))
def test_a_selection_is_k_ascending_ids_per_layer(values: Scores, k: int) -> None:
    """Nobody left out is better than anybody kept."""
    for row, ids in zip(values, top_k(values, k), strict=True):
        out = [expert for expert in range(EXPERTS) if expert not in ids]
        assert len(ids) == k
        assert list(ids) == sorted(set(ids))
        assert not out or min(row[list(ids)]) >= max(row[out])


@given(values=scores)
def test_selections_are_nested(values: Scores) -> None:
    """A larger K only adds: ties are broken alike whatever K is."""
    for k in range(1, EXPERTS):
        assert all(set(a) < set(b) for a, b in zip(top_k(values, k), top_k(values, k + 1), strict=True))


@given(ranking=scores, signal=scores)
def test_retained_mass_grows_with_k(ranking: Scores, signal: Scores) -> None:
    """From something above 0 to all of it, whatever ranks and whatever is measured."""
    shares = np.stack([retained(signal, top_k(ranking, k)) for k in range(1, EXPERTS + 1)])

    assert (np.diff(shares, axis=0) >= -1e-12).all()
    assert shares[-1] == pytest.approx(1)


@given(ranking=scores, signal=scores, share=st.floats(0.01, 1))
def test_the_smallest_k_suffices_and_one_less_does_not(ranking: Scores, signal: Scores, share: float) -> None:
    """In every layer at K, and not in every layer at K − 1."""
    k = smallest_uniform_k(ranking, signal, share)

    assert (retained(signal, top_k(ranking, k)) >= share - 1e-9).all()
    assert k == 1 or (retained(signal, top_k(ranking, k - 1)) < share).any()


@pytest.mark.parametrize("k", [0, -1, 7])
def test_an_impossible_k_is_refused(k: int) -> None:
    """Fewer than one or more than there are."""
    with pytest.raises(SelectionError, match=f"keep: {k} of 6"):
        top_k(np.ones((1, 6)), k)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.01, float("nan")])
def test_an_impossible_share_is_refused(share: float) -> None:
    """Retention is a share above nothing."""
    with pytest.raises(SelectionError, match="retain"):
        smallest_uniform_k(np.ones((1, 6)), np.ones((1, 6)), share)


def test_concentration_figures_at_their_ends() -> None:
    """Equal use: Gini 0 and as many effective experts as there are. One does all: Gini 1 − 1/n, and one effective."""
    equal, single = np.full(8, 3.0), np.array([5.0] + [0.0] * 7)

    assert (gini(equal), gini(single)) == pytest.approx((0, 7 / 8))
    assert (effective_number(equal), effective_number(single)) == pytest.approx((8, 1))
    assert (top_share(equal, 2), top_share(single, 2)) == pytest.approx((0.25, 1))
    assert (num_to_reach(equal, 0.8), num_to_reach(single, 0.8)) == (7, 1)


@given(values=arrays(np.float64, 7, elements=st.floats(0.01, 10)))
def test_gini_is_the_mean_difference_of_pairs(values: Scores) -> None:
    """Its definition: half the mean absolute difference over all pairs, by the mean."""
    pairs = np.abs(values[:, None] - values[None, :]).mean()

    assert gini(values) == pytest.approx(pairs / (2 * values.mean()), abs=1e-9)


def test_a_layer_that_saw_nothing_loses_nothing() -> None:
    """Zeros are no division by zero: the share is 1, and any K will do."""
    zeros = np.zeros((2, 4))

    assert retained(zeros, top_k(zeros, 1)) == pytest.approx(1)
    assert smallest_uniform_k(zeros, zeros, 0.99) == 1
    assert (gini(zeros[0]), effective_number(zeros[0]), num_to_reach(zeros[0], 0.8)) == (0, 1, 0)


def test_near_ties_are_counted_at_the_cut() -> None:
    """Two of these four could as well change places."""
    assert near_ties(np.array([9.0, 5.0, 4.99, 1.0]), 2) == 2
    assert near_ties(np.array([9.0, 5.0, 4.0, 1.0]), 2) == 1
    assert near_ties(np.ones(4), 4) == 0


def test_coverage_has_its_interval_and_its_optimism() -> None:
    """The 95 % range of resamples holds the share; measured where it was chosen, a mask looks better than it is."""
    weights = utility("weight", made_up_domain(5, tokens=60, replicates=200))
    found = coverage(weights, weights, top_k(weights.values, 4), num_top=2)

    assert found.num_replicates == 200
    assert found.optimism is not None
    assert 0 < found.optimism < 0.2
    for layer in found.layers:
        assert layer.low is not None
        assert layer.high is not None
        assert layer.low <= layer.retained <= layer.high
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.mean <= found.high
    assert found.least.retained <= found.mean
    assert found.product <= found.least.retained


def test_optimism_foretells_the_loss_on_new_records() -> None:
    """Over many small corpora drawn from one domain, the mean of what it says is the mean of what is then lost."""
    truth = utility("weight", made_up_domain(5, tokens=20_000, replicates=0)).values
    said, lost = [], []
    for start in range(12):
        sample = _subsample(truth, 50, np.random.default_rng(start))
        kept = top_k(sample.values, 4)
        found = coverage(sample, sample, kept, num_top=2)
        assert found.optimism is not None
        said.append(found.optimism)
        lost.append(float((retained(sample.values, kept) - retained(truth, kept)).mean()))

    assert np.mean(said) == pytest.approx(np.mean(lost), rel=0.5)
    assert np.mean(lost) > 0.02


def _subsample(truth: Scores, num: int, rng: np.random.Generator) -> Utility:
    """`num` records, each naming one expert per layer with the true shares."""
    part = truth / truth.sum(axis=1, keepdims=True)
    records = np.stack([rng.multinomial(1, row, size=num) for row in part], axis=1).astype(np.float64)
    draws = rng.poisson(1, size=(60, num)).astype(np.float64)
    return Utility("weight", records.mean(axis=0), np.einsum("bn,nle->ble", draws, records) / num)


def test_a_corpus_of_more_records_gives_a_steadier_mask() -> None:
    """Masks from resamples of 4,000 records agree more than those of 40."""
    small, large = (
        expected_jaccard(utility("weight", made_up_domain(9, tokens=tokens, replicates=30)), 6) for tokens in (40, 4000)
    )

    assert small is not None
    assert large is not None
    assert small[0] + 0.05 < large[0]
    assert large[1] <= large[0] <= large[2] <= 1
