"""Several domains become one utility, and none counts more for being larger."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from specialists.builder.aggregation import HOWS, AggregationError, How, aggregate, normalised
from specialists.builder.selection import top_k
from specialists.builder.utility import Scores, Utility, utility
from tests.specialists.builder.made_up import made_up_domain

scores = arrays(np.float64, (2, 5), elements=st.floats(0.01, 100))
hows = st.sampled_from(HOWS)


@given(first=scores, second=scores, factor=st.floats(1e-6, 1e6), how=hows)
def test_aggregation_is_scale_free(first: Scores, second: Scores, factor: float, how: How) -> None:
    """A domain with numbers a million times larger changes nothing."""
    small = aggregate([Utility("u", first), Utility("u", second)], how)
    large = aggregate([Utility("u", first * factor), Utility("u", second)], how)

    assert large.values == pytest.approx(small.values, rel=1e-9)


@given(first=scores, second=scores, how=hows)
def test_the_order_of_domains_does_not_matter(first: Scores, second: Scores, how: How) -> None:
    """Domains are a set."""
    one = aggregate([Utility("u", first), Utility("u", second)], how)
    other = aggregate([Utility("u", second), Utility("u", first)], how)

    assert one.values == pytest.approx(other.values)


@given(first=scores, second=scores)
def test_the_four_ways_are_ordered_as_means_are(first: Scores, second: Scores) -> None:
    """Geometric mean ≤ mean ≤ max, and the sum ranks experts as the mean does."""
    found = {how: aggregate([Utility("u", first), Utility("u", second)], how).values for how in HOWS}

    assert (found["geomean"] <= found["mean"] + 1e-9).all()
    assert (found["mean"] <= found["max"] + 1e-9).all()
    assert found["sum"] == pytest.approx(2 * found["mean"])


@given(values=scores, how=hows)
def test_one_domain_alone_keeps_its_ranking(values: Scores, how: How) -> None:
    """Normalising moves nobody's place."""
    alone = aggregate([Utility("u", values)], how)

    assert alone.values == pytest.approx(normalised(values))
    assert alone.name == "u"


def test_max_keeps_the_specialist_that_geomean_loses() -> None:
    """An expert that one domain relies on and the other never uses: first by max, last by geomean."""
    maths = Utility("u", np.array([[8.0, 1.0, 1.0, 1.0]]))
    law = Utility("u", np.array([[0.0, 1.0, 1.0, 1.0]]))

    assert 0 in top_k(aggregate([maths, law], "max").values, 1)[0]
    assert 0 not in top_k(aggregate([maths, law], "geomean").values, 3)[0]
    assert aggregate([maths, law], "geomean").values[0, 0] == 0


def test_weights_make_a_domain_count_more() -> None:
    """With ten times the weight, a domain's favourite wins under every rule."""
    maths, law = Utility("u", np.array([[3.0, 1.0, 1.0]])), Utility("u", np.array([[1.0, 3.5, 1.0]]))

    for how in HOWS:
        assert top_k(aggregate([maths, law], how).values, 1) == ((1,),)
        assert top_k(aggregate([maths, law], how, [10.0, 1.0]).values, 1) == ((0,),)


def test_replicates_are_aggregated_like_the_values() -> None:
    """Each resample is put together as the whole is; one domain without any leaves none."""
    domains = [utility("weight", made_up_domain(seed)) for seed in (1, 2)]
    found = aggregate(domains, "max")

    assert found.replicates is not None
    assert found.replicates[3] == pytest.approx(
        aggregate([Utility("u", each.replicates[3]) for each in domains if each.replicates is not None], "max").values
    )
    assert aggregate([domains[0], Utility("weight", domains[1].values)], "max").replicates is None


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], []])
def test_odd_weights_are_refused(weights: list[float]) -> None:
    """One positive number for each domain."""
    one = Utility("u", np.ones((1, 2)))

    with pytest.raises(AggregationError, match="domains"):
        aggregate([one, one], "max", weights)
