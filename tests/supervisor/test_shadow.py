"""A shadow is counted, bounded, and cannot hurt whoever is being answered."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.shadow import Job, Shadow, wilson_interval
from tests.supervisor.choosing import DOMAINS, BrokenClassifier, KeywordClassifier, asked


def ticking(step: float = 0.5) -> Callable[[], float]:
    """A clock that goes on by `step` seconds each time it is read."""
    times = iter(range(10**9))
    return lambda: next(times) * step


@given(st.lists(st.tuples(st.sampled_from(DOMAINS), st.sampled_from(DOMAINS))))
def test_agreement_is_what_was_counted(pairs: list[tuple[str, str]]) -> None:
    """Compared, agreed and the kinds of disagreement add up, and the interval holds the share."""
    shadow = Shadow(KeywordClassifier(), clock=ticking())
    for live, other in pairs:
        shadow.observe(asked(other), live)

    report = shadow.report()
    agreed = sum(live == other for live, other in pairs)
    assert (report.num_compared, report.num_agreed) == (len(pairs), agreed)
    assert sum(n for _, _, n in report.disagreements) == len(pairs) - agreed
    if report.agreement is not None:
        assert report.interval[0] - 1e-9 <= report.agreement <= report.interval[1] + 1e-9
        assert report.mean_seconds == pytest.approx(0.5)


def test_a_failing_shadow_is_counted_and_no_more() -> None:
    """Whatever it raises stays inside."""
    shadow = Shadow(BrokenClassifier(MemoryError("gone")), clock=ticking())
    shadow.observe(asked("math"), "math")

    report = shadow.report()
    assert (report.num_failed, report.num_compared, report.agreement) == (1, 0, None)
    assert report.interval == (0.0, 1.0)


def test_deferred_comparisons_run_when_the_executor_runs_them() -> None:
    """Nothing is classified by the caller, and no more than the bound may wait."""
    jobs: list[Job] = []
    classifier = KeywordClassifier()
    shadow = Shadow(classifier, clock=ticking(), submit=jobs.append, max_pending=2)
    for _ in range(5):
        shadow.observe(asked("math"), "math")

    assert classifier.read == []
    for job in jobs:
        job()
    shadow.observe(asked("math"), "math")

    report = shadow.report()
    assert (report.num_compared, report.num_skipped, len(jobs)) == (2, 3, 3)


def test_an_executor_that_has_shut_down_costs_only_the_comparison() -> None:
    """Its refusals are skips, for as long as it refuses."""

    def refuse(_: Job) -> None:
        raise RuntimeError("cannot schedule new futures after shutdown")

    shadow = Shadow(KeywordClassifier(), clock=ticking(), submit=refuse, max_pending=1)
    for _ in range(3):
        shadow.observe(asked("math"), "math")

    assert shadow.report().num_skipped == 3


def test_kinds_of_disagreement_are_bounded() -> None:
    """A live side that invents domains cannot fill the memory."""
    shadow = Shadow(KeywordClassifier(), clock=ticking(), max_kinds=3)
    for number in range(50):
        shadow.observe(asked("math"), f"d{number}")

    report = shadow.report()
    assert len(report.disagreements) == 3
    assert report.num_compared == 50


def test_wilson_agrees_with_tables() -> None:
    """8 of 10 at 95 %: .490 to .943; 0 of 10 ends at .278."""
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


@given(st.integers(1, 10_000), st.data())
def test_wilson_holds_the_share_and_stays_in_bounds(num_trials: int, data: st.DataObject) -> None:
    """0 ≤ low ≤ share ≤ high ≤ 1."""
    num_successes = data.draw(st.integers(0, num_trials))
    low, high = wilson_interval(num_successes, num_trials)

    assert 0 <= low <= num_successes / num_trials + 1e-12
    assert num_successes / num_trials - 1e-12 <= high <= 1
