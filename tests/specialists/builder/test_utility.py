"""Utilities measure what their names say; see also test_errata for the identity of the published one."""

from dataclasses import replace

import numpy as np
import pytest

from specialists.builder.histogram import DomainProfile, ProfileShape
from specialists.builder.utility import NAMES, UtilityError, mean_rank, shares, utility
from tests.specialists.builder.made_up import made_up_domain

SHAPE = ProfileShape(layers=1, experts=3, ranks=2, replicates=0)


@pytest.fixture
def by_hand() -> DomainProfile:
    """Four tokens: expert 0 is first three times and second once, expert 1 first once, expert 2 never first."""
    zeros = DomainProfile.zeros(SHAPE)
    return replace(
        zeros,
        count=np.array([[[3, 1], [1, 0], [0, 3]]]),
        weight_sum=np.array([[[2.4, 0.3], [0.7, 0.0], [0.0, 0.6]]]),
        num_tokens=np.array([4]),
        contribution_sum=np.array([[8.0, 6.0, 1.5]]),
        contribution_square_sum=np.array([[16.0, 36.0, 2.25]]),
        output_norm_max=np.array([[3.0, 9.0, 1.0]]),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("weight", [2.7 / 4, 0.7 / 4, 0.6 / 4]),
        ("frequency", [1.0, 0.25, 0.75]),
        ("rank-weighted", [(3 * 2 / 3 + 1 / 3) / 4, (2 / 3) / 4, (3 / 3) / 4]),
        ("contribution", [2.0, 1.5, 0.375]),
        ("reap", [2.0, 6.0, 0.5]),
        ("wnorm-count", [2 * 4 + 4, 2 * 6 + 1, 2 * 1.5 + 3]),
    ],
)
def test_a_utility_is_its_formula(by_hand: DomainProfile, name: str, expected: list[float]) -> None:
    """Recomputed by hand from four tokens; note how REAP puts the rare, strong expert first."""
    assert utility(name, by_hand).values[0] == pytest.approx(expected)


def test_a_mixture_mixes_shares(by_hand: DomainProfile) -> None:
    """Each part counts as a share of its layer, factors are normalised, and equal factors may be left out."""
    parts = 0.7 * shares(utility("weight", by_hand).values) + 0.3 * shares(utility("reap", by_hand).values)

    assert utility("0.7*weight+0.3*reap", by_hand).values == pytest.approx(parts)
    assert utility("7*weight + 3*reap", by_hand).values == pytest.approx(parts)
    assert utility("weight+reap", by_hand).values.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", ["", "best", "weight+", "weight*2", "1e3*weight", "0*weight+0*reap", "weight+best"])
def test_an_unknown_utility_is_refused(by_hand: DomainProfile, name: str) -> None:
    """The message names the option."""
    with pytest.raises(UtilityError, match="utility"):
        utility(name, by_hand)


@pytest.mark.parametrize("name", ["contribution", "reap", "wnorm-count", "weight+reap"])
def test_norms_that_were_not_profiled_are_missed(name: str) -> None:
    """A profile of counts alone cannot rank by contribution, and says so instead of ranking zeros."""
    domain = made_up_domain(0)
    bare = replace(domain, contribution_sum=np.zeros_like(domain.contribution_sum))

    with pytest.raises(UtilityError, match="contributions"):
        utility(name, bare)


def test_mean_rank_counts_from_the_first_choice(by_hand: DomainProfile) -> None:
    """0 for whoever is always first, infinite for whoever was never chosen."""
    never = replace(by_hand, count=np.array([[[3, 1], [1, 0], [0, 0]]]))

    assert mean_rank(by_hand)[0] == pytest.approx([0.25, 0, 1])
    assert mean_rank(never)[0, 2] == np.inf


@pytest.mark.parametrize("name", [*NAMES, "weight+contribution"])
def test_resamples_scatter_about_the_value(name: str) -> None:
    """Where a utility can be resampled, the mean of its replicates is the value, within their spread."""
    found = utility(name, made_up_domain(3, replicates=60))
    if found.replicates is None:
        assert name in ("rank-weighted", "wnorm-count")
        return

    spread = found.replicates.std(axis=0)
    assert found.replicates.shape == (60, *found.values.shape)
    assert (np.abs(found.replicates.mean(axis=0) - found.values) <= 5 * spread / np.sqrt(60) + 1e-12).all()


def test_an_empty_domain_has_no_utility() -> None:
    """No tokens give zeros, not a division by zero."""
    empty = DomainProfile.zeros(SHAPE)

    assert not utility("weight", empty).values.any()
    assert not shares(utility("frequency", empty).values).any()
