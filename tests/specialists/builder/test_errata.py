"""What the reference documents print, recomputed by the code that would print it here.

Where a printed figure does not follow from the printed data, the test states the right one. The cards meant are those
of coe-gemma4-math-14b-a4b (the math card), -python-, -web-, and of the general prunes with 98 and 109 experts. The
near/far table of the math card is in test_errata_transfer.
"""

import math
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from specialists.builder import passes
from specialists.builder.aggregation import aggregate
from specialists.builder.agreement import Agreement
from specialists.builder.errors import BuilderError
from specialists.builder.histogram import DomainProfile, ProfileShape
from specialists.builder.selection import Selection, coverage, smallest_uniform_k, top_k
from specialists.builder.significance import binomial_sigma, fisher_exact, wilson
from specialists.builder.sizes import GEMMA_4_26B_A4B as GEMMA
from specialists.builder.sizes import MoeSizes, total_from_prunes
from specialists.builder.utility import Scores, Utility, utility

# "Retained %" of weighted output norm with 109 of 128 experts, layers 0 to 29 (the 109-expert card).
RETAINED_PERCENT = (
    99.66, 99.58, 99.52, 99.87, 99.97, 99.90, 99.75, 99.27, 99.20, 99.16, 99.88, 99.19, 99.25, 99.42, 99.01,
    99.10, 99.80, 99.74, 99.88, 99.72, 99.88, 99.85, 99.99, 99.89, 99.93, 99.88, 99.90, 99.96, 99.78, 99.70,
)  # fmt: skip


# --- utility and passes -----------------------------------------------------------------------------------------

SHAPE = ProfileShape(layers=2, experts=4, ranks=3, replicates=0)
histograms = arrays(np.int64, SHAPE.axes("ler"), elements=st.integers(0, 50))
mean_weights = arrays(np.float64, SHAPE.axes("ler"), elements=st.floats(0, 1))


@given(count=histograms, mean_weight=mean_weights, tokens=st.integers(1, 10**6))
def test_the_published_utility_is_mean_gate_weight(count: NDArray[np.int64], mean_weight: Scores, tokens: int) -> None:
    """Σ_k (count/N) · (weight_sum/max(count, 1)) = Σ_k weight_sum / N: the histogram cancels out of it."""
    weight_sum = mean_weight * count
    profile = _with_counts(count, weight_sum, tokens)

    assert utility("weight", profile).values == pytest.approx(weight_sum.sum(axis=2) / tokens, abs=1e-12)


@given(count=histograms, mean_weight=mean_weights, seed=st.integers(0, 99))
def test_rank_carries_nothing_in_the_published_utility(
    count: NDArray[np.int64], mean_weight: Scores, seed: int
) -> None:
    """The same weights at shuffled ranks give the same utility, so it cannot favour first choices, as the cards say."""
    order = np.random.default_rng(seed).permutation(SHAPE.ranks)
    plain = _with_counts(count, mean_weight * count, 100)
    shuffled = _with_counts(count[:, :, order], (mean_weight * count)[:, :, order], 100)

    assert utility("weight", plain).values == pytest.approx(utility("weight", shuffled).values)


def _with_counts(count: NDArray[np.int64], weight_sum: Scores, tokens: int) -> DomainProfile:
    num_tokens = np.full(SHAPE.layers, tokens)
    return replace(DomainProfile.zeros(SHAPE), count=count, weight_sum=weight_sum, num_tokens=num_tokens)


@given(data=st.data(), k=st.integers(1, 8), seed=st.integers(0, 999))
def test_protecting_the_top_by_the_selecting_signal_changes_nothing(data: st.DataObject, k: int, seed: int) -> None:
    """For any N up to K, ties or not: the theorem behind "protect_top=16", with 16 + 30 of 128 (the 98-expert card)."""
    scores = np.random.default_rng(seed).integers(0, 5, size=(3, 8)).astype(np.float64)
    num = data.draw(st.integers(1, k))
    first = passes.baseline(scores, k, range(3))

    mask = passes.protect(
        first, "protect-top", passes.top_by(scores, num), signal=scores, signal_name="same", utility=scores
    )

    assert mask == first
    assert passes.cannot_change("same", "same", num, k) is not None
    assert passes.cannot_change("same", "other", num, k) is None


def test_protect_top_16_of_98_is_recognised_as_vain() -> None:
    """The published recipe's own numbers; by another signal it may change something, and so does more than K."""
    assert "changes nothing" in str(passes.cannot_change("wnorm-count", "wnorm-count", 16, 98))
    assert passes.cannot_change("wnorm-count", "reap", 16, 98) is None
    assert passes.cannot_change("wnorm-count", "wnorm-count", 99, 98) is None


def test_no_more_swaps_than_the_cap_allows() -> None:
    """A cap of 3 in 30 layers is 90 swaps at most; the Python card prints 85–95."""
    rng = np.random.default_rng(1)
    domain, reasoning = rng.random((30, 128)) ** 8, rng.random((30, 128)) ** 8

    mask = passes.arbitrage(passes.baseline(domain, 64, range(30)), domain=domain, reasoning=reasoning, cap=3)

    assert len(mask.swaps) == 90
    assert all(mask.budgets[layer] == 64 for layer in range(30))


def test_geomean_drops_the_specialists_that_max_keeps() -> None:
    """Classes that each rely on experts of their own: max keeps all of those at 77 %, geomean keeps the generalists."""
    rng = np.random.default_rng(2)
    classes = [rng.random((1, 128)) + 0.5 for _ in range(5)]
    own = [range(6 * number, 6 * number + 6) for number in range(5)]
    for number, each in enumerate(classes):
        each[0, :30] = 0.01
        each[0, list(own[number])] = 20
    by = [Utility("weight", each) for each in classes]

    assert set(range(30)) <= set(top_k(aggregate(by, "max").values, 98)[0])
    assert not set(range(30)) & set(top_k(aggregate(by, "geomean").values, 98)[0])


# --- capacity and sizes -----------------------------------------------------------------------------------------


def test_the_retained_table_of_the_109_expert_prune() -> None:
    """Least 99.01 % in layer 14, mean 99.654 %, median 99.765 %; all layers compounded keep about 90 %."""
    signal, kept = _signal_that_retains(RETAINED_PERCENT, 109, 128)
    found = coverage(signal, signal, kept, num_top=8)
    shares = [layer.retained for layer in found.layers]

    assert [round(100 * share, 2) for share in shares] == list(RETAINED_PERCENT)
    assert (shares.index(found.least.retained), round(found.least.retained, 4)) == (14, 0.9901)
    assert shares.index(max(shares)) == 22
    assert (100 * found.mean, 100 * median(shares)) == pytest.approx((99.654, 99.765), abs=5e-4)
    assert found.product == pytest.approx(0.901, abs=5e-4)
    assert smallest_uniform_k(signal.values, signal.values, 0.99) == 109


def _signal_that_retains(percents: tuple[float, ...], k: int, experts: int) -> tuple[Utility, Selection]:
    rows = [[share / k] * k + [(1 - share) / (experts - k)] * (experts - k) for share in np.array(percents) / 100]
    signal = Utility("contribution", np.array(rows))
    return signal, top_k(signal.values, k)


@pytest.mark.parametrize(
    ("kept", "billions", "dropped_percent"),
    [(64, 14.38, 50.0), (90, 19.02, 29.7), (98, 20.44, 23.4), (103, 21.34, 19.5), (109, 22.41, 14.8), (128, 25.80, 0)],
)
def test_parameters_of_every_published_prune(kept: int, billions: float, dropped_percent: float) -> None:
    """K = 98 is 20.4 B, not the 20.8 B on its card; the others agree with theirs (14b, 19.02, 21.34, 22.4)."""
    assert GEMMA.parameters(kept) / 1e9 == pytest.approx(billions, abs=0.005)
    assert 100 * GEMMA.share_dropped(kept) == pytest.approx(dropped_percent, abs=0.05)


def test_the_total_follows_from_two_published_prunes() -> None:
    """21.34 B with 103 experts and 19.02 B with 90 lie on a line that ends at 25.80 B with 128."""
    assert total_from_prunes((103, 21.34e9), (90, 19.02e9), 128) == pytest.approx(25.80e9, rel=1e-3)
    assert GEMMA.expert_parameters == 5_947_392
    assert GEMMA.expert_parameters * 128 * 30 / 1e9 == pytest.approx(22.84, abs=0.005)


def test_the_cut_of_the_109_expert_prune() -> None:
    """13.1 % of the parameters; the card's 14 % comes of rounding 25.8 to 26."""
    assert 1 - GEMMA.parameters(109) / GEMMA.total_parameters == pytest.approx(0.131, abs=1e-3)


def test_file_sizes_at_four_bits() -> None:
    """Q4_K gate/up and Q8_0 down: 555.1 MB a layer, 16.65 GB in all; half of them gone leaves 18.0 − 8.33 = 9.7 GB."""
    experts = GEMMA.expert_bytes(128, "Q4_K", "Q8_0")

    assert experts / 30 / 1e6 == pytest.approx(555.1, abs=0.05)
    assert experts / 1e9 == pytest.approx(16.65, abs=0.005)
    assert 18.0 - GEMMA.saved_bytes(64, "Q4_K", "Q8_0") / 1e9 == pytest.approx(9.7, abs=0.05)


def test_no_prune_saves_more_than_its_experts_weigh() -> None:
    """At Q8_0 half of the experts are 12.13 GB, so the printed saving of 16.5 GB cannot be; at Q4 the 7.1 GB can."""
    q4, q8 = GEMMA.saved_bytes(64, "Q4_K", "Q8_0"), GEMMA.saved_bytes(64, "Q8_0", "Q8_0")

    assert (q4 / 1e9, q8 / 1e9) == pytest.approx((8.33, 12.13), abs=0.005)
    assert q4 > 7.1e9
    assert q8 < 16.5e9
    assert GEMMA.parameters(64) * 8.5 / 8 / 1e9 == pytest.approx(15.3, abs=0.05)  # printed: 18.4 GB on disk


def test_k_quants_do_not_fit_the_down_projection() -> None:
    """704 is no multiple of 256, which is why published files have Q8_0 there."""
    with pytest.raises(BuilderError, match="blocks of 256"):
        GEMMA.expert_bytes(64, "Q4_K", "Q4_K")
    with pytest.raises(BuilderError, match="no quantisation"):
        GEMMA.expert_bytes(64, "Q4_K_M", "Q8_0")
    with pytest.raises(BuilderError, match="keep: 129 of 128"):
        GEMMA.parameters(129)
    with pytest.raises(BuilderError, match="two different"):
        total_from_prunes((90, 1.0), (90, 2.0), 128)
    assert (
        MoeSizes(layers=1, experts=2, width=256, expert_width=256, total_parameters=1e6).saved_bytes(2, "Q4_K", "Q4_K")
        == 0
    )


# --- agreement and scores ---------------------------------------------------------------------------------------


def test_the_agreement_matrix_of_the_98_expert_prune() -> None:
    """122 / 38 / 23 / 15 of 198: accuracies 145 and 137, and a difference that proves nothing (p = .256)."""
    found = Agreement(both_right=122, both_wrong=38, only_first=23, only_second=15)

    assert (found.num, found.first_right, found.second_right) == (198, 145, 137)
    assert 100 * found.difference == pytest.approx(-4.04, abs=0.005)
    assert found.p == pytest.approx(0.256, abs=5e-4)
    low, high = found.difference_interval
    assert low < 0 < high


def test_its_chemistry_losses_are_no_proof_either() -> None:
    """18 lost against 11 gained is p = .265."""
    chemistry = Agreement(both_right=40, both_wrong=24, only_first=18, only_second=11)

    assert chemistry.p == pytest.approx(0.265, abs=5e-4)


def test_an_agreement_is_counted_from_verdicts() -> None:
    """Question by question; other numbers of questions are refused."""
    found = Agreement.of([True, True, False, False, True], [True, False, True, False, True])

    assert found == Agreement(both_right=2, both_wrong=1, only_first=1, only_second=1)
    assert found.first_interval == found.second_interval == wilson(3, 5)
    for first, second in (([True], [True, False]), ([], [])):
        with pytest.raises(BuilderError, match="agreement"):
            Agreement.of(first, second)


@pytest.mark.parametrize(("right", "num", "printed"), [(142, 198, 3.21), (149, 198, 3.07)])
def test_printed_standard_errors(right: int, num: int, printed: float) -> None:
    """GPQA's "±" of both prunes is the binomial error with n − 1."""
    assert 100 * binomial_sigma(right, num) * math.sqrt(num / (num - 1)) == pytest.approx(printed, abs=0.005)


def test_thirteen_points_of_aime_are_one_sigma() -> None:
    """19 against 23 of 30: the error of the *difference* is 11.7 points, so 13.3 are 1.14 σ."""
    sigma = math.hypot(binomial_sigma(19, 30), binomial_sigma(23, 30))

    assert 100 * sigma == pytest.approx(11.7, abs=0.05)
    assert (23 - 19) / 30 / sigma == pytest.approx(1.14, abs=0.005)


def test_q8_against_q4_on_livecodebench_is_no_significant_gain() -> None:
    """39 against 44 of 50 is p = .29, and 15 against 21 of the 25 medium ones p = .11."""
    assert fisher_exact(39, 50, 44, 50) == pytest.approx(0.29, abs=0.005)
    assert fisher_exact(15, 25, 21, 25) == pytest.approx(0.11, abs=0.005)


def test_the_web_suite_is_small() -> None:
    """34 of 40 is anything from 71 % to 93 %."""
    assert wilson(34, 40) == pytest.approx((0.71, 0.93), abs=0.005)
