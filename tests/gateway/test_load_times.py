"""Swap seconds are what loads took here, not what somebody assumed."""

import pytest

from gateway.load_times import ASSUMED_BYTES_PER_SECOND, LoadTimes
from specialists.engine.protocol import EngineSpec
from specialists.errors import SpecialistUnavailable
from tests.fakes import RecordingObserver, spec_named

SMALL, LARGE, GONE = (spec_named(name) for name in ("small", "large", "gone"))
BYTES = {SMALL: 100_000_000, LARGE: 10_000_000_000}


def weights_bytes(spec: EngineSpec) -> int:
    if spec not in BYTES:
        raise SpecialistUnavailable(f"{spec.model_path.name} is gone")
    return BYTES[spec]


def load_times() -> tuple[LoadTimes, RecordingObserver]:
    observer = RecordingObserver()
    return LoadTimes(observer, weights_bytes), observer


def test_before_the_first_load_a_pace_is_assumed() -> None:
    """Larger weights take longer; a file that has gone is an error."""
    times, _ = load_times()

    assert times.expected_seconds(LARGE) == BYTES[LARGE] / ASSUMED_BYTES_PER_SECOND
    with pytest.raises(SpecialistUnavailable):
        times.expected_seconds(GONE)


def test_a_measured_engine_is_expected_to_take_what_it_took() -> None:
    """One load out of line does not count, failed and cancelled ones never do."""
    times, _ = load_times()
    for seconds in (2.0, 60.0, 2.2):
        times.load_finished(SMALL, seconds=seconds, outcome="ok")
    for outcome in ("failed", "cancelled"):
        times.load_finished(SMALL, seconds=0.001, outcome=outcome)

    assert times.expected_seconds(SMALL) == 2.2


def test_an_engine_never_loaded_goes_by_the_pace_of_the_others() -> None:
    """100 MB in 2 s are 50 MB/s, so 10 GB are 200 s."""
    times, _ = load_times()
    times.load_finished(SMALL, seconds=2.0, outcome="ok")

    assert times.expected_seconds(LARGE) == pytest.approx(200.0)


def test_old_loads_are_forgotten() -> None:
    """A disk that became faster is noticed after a few loads."""
    times, _ = load_times()
    for seconds in (30.0,) * 50 + (1.0,) * 5:
        times.load_finished(SMALL, seconds=seconds, outcome="ok")

    assert times.expected_seconds(SMALL) == 1.0


def test_a_file_that_went_away_after_its_load_is_no_failure() -> None:
    """Its seconds count for itself, its pace for nobody."""
    times, _ = load_times()
    times.load_finished(GONE, seconds=3.0, outcome="ok")

    assert times.expected_seconds(GONE) == 3.0
    assert times.expected_seconds(LARGE) == BYTES[LARGE] / ASSUMED_BYTES_PER_SECOND


def test_everything_is_passed_on() -> None:
    """Whoever keeps the metrics hears what it would have heard."""
    times, observer = load_times()
    times.load_finished(SMALL, seconds=2.0, outcome="failed")
    times.unloaded(SMALL, reason="idle")
    times.crashed(SMALL)
    times.waited(seconds=0.5)

    assert (observer.loads, observer.load_seconds) == ([(SMALL, "failed")], [2.0])
    assert (observer.unloads, observer.crashes, observer.waits) == ([(SMALL, "idle")], [SMALL], [0.5])
