"""The life of one engine, and the arithmetic of its crashes."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.errors import LoadTimeout, SpecialistError, SpecialistUnavailable
from specialists.pool.worker import CrashLedger, CrashPolicy, CrashRecord, Worker
from tests.fakes import FakeClock, FakeEngine, LoadPlan, spec_named

POLICY = CrashPolicy()
SPEC = spec_named("math")


class RecordingEvents:
    """WorkerEvents as a list of words; `happened` is set by each."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.errors: list[SpecialistError] = []
        self.was_closed: list[bool] = []
        self.happened = asyncio.Event()

    def on_loaded(self, worker: Worker) -> None:
        self._note("loaded", worker)

    def on_load_failed(self, worker: Worker, error: SpecialistError) -> None:
        self.errors.append(error)
        self._note("failed", worker)

    def on_lost(self, worker: Worker) -> None:
        worker.stop("crashed")
        self._note("lost", worker)

    def on_closed(self, worker: Worker) -> None:
        self._note("closed", worker)

    async def until(self, word: str) -> None:
        while word not in self.seen:
            self.happened.clear()
            await self.happened.wait()

    def _note(self, word: str, worker: Worker) -> None:
        assert isinstance(worker.engine, FakeEngine)
        self.was_closed.append(worker.engine.is_closed)
        self.seen.append(word)
        self.happened.set()


def begin(plan: LoadPlan | None = None) -> tuple[Worker, FakeEngine, RecordingEvents]:
    engine, events = FakeEngine(SPEC, load_plan=plan), RecordingEvents()
    return Worker(SPEC, engine, FakeClock(), events), engine, events


@pytest.mark.anyio
async def test_a_life_is_load_stay_stop_close() -> None:
    """A stopped engine is closed before its room is reported free."""
    worker, engine, events = begin()
    await events.until("loaded")
    assert not engine.is_closed

    worker.stop("idle")
    await worker.closed()

    assert events.seen == ["loaded", "closed"]
    assert events.was_closed == [False, True]
    assert worker.reason == "idle"


@pytest.mark.anyio
async def test_a_crash_is_told_first_and_cleaned_up_after() -> None:
    """An engine that ends by itself is lost at once and closed in the end, even though it is already dead."""
    worker, engine, events = begin()
    await events.until("loaded")

    engine.crash()
    await worker.closed()

    assert events.seen == ["loaded", "lost", "closed"]
    assert engine.is_closed


@pytest.mark.anyio
async def test_a_failed_load_is_told_once_its_engine_is_closed() -> None:
    """The memory of a load that failed is free when the failure is reported."""
    error = LoadTimeout("stalled")
    worker, _, events = begin(LoadPlan(error=error))

    await worker.closed()

    assert events.seen == ["failed"]
    assert events.errors == [error]
    assert events.was_closed == [True]


@pytest.mark.anyio
async def test_an_unforeseen_load_error_becomes_one_that_clients_can_be_told() -> None:
    """Whoever waits for a load is told of its end whatever went wrong, without the inner error's text."""
    worker, _, events = begin(LoadPlan(error=OSError(24, "Too many open files", "/secret/place")))

    await worker.closed()

    assert isinstance(events.errors[0], SpecialistUnavailable)
    assert "/secret/place" not in str(events.errors[0])


@pytest.mark.anyio
async def test_a_load_that_is_stopped_is_cancelled_and_closed() -> None:
    """Stopping a load cancels it inside the engine; it counts as closed, not as failed."""
    worker, engine, events = begin(LoadPlan(gate=asyncio.Event(), progress=(0.25,)))
    await engine.load_started.wait()
    assert worker.progress == 0.25

    worker.stop("cancelled")
    await worker.closed()

    assert engine.was_load_cancelled
    assert events.seen == ["closed"]
    assert worker.load_ended is None


@pytest.mark.anyio
async def test_a_load_stopped_before_it_began_never_begins() -> None:
    """A worker stopped in the turn of the loop that made it does not start its engine."""
    worker, engine, events = begin()

    worker.stop("cancelled")
    await worker.closed()

    assert engine.num_loads == 0
    assert events.seen == ["closed"]


@pytest.mark.anyio
async def test_a_failed_load_that_is_stopped_while_it_closes_counts_as_closed() -> None:
    """Who stopped it expects its end, not its failure."""
    gate = asyncio.Event()
    worker, engine, events = begin(LoadPlan(error=LoadTimeout("stalled"), close_gate=gate))
    await engine.close_started.wait()

    worker.stop("closed")
    gate.set()
    await worker.closed()

    assert events.seen == ["closed"]


@pytest.mark.anyio
async def test_the_end_of_the_task_ends_the_engine() -> None:
    """When the event loop is torn down around it, a worker leaves neither a load nor an engine behind."""
    engine, events = FakeEngine(SPEC, load_plan=LoadPlan(gate=asyncio.Event())), RecordingEvents()
    before = asyncio.all_tasks()
    worker = Worker(SPEC, engine, FakeClock(), events)
    (life,) = asyncio.all_tasks() - before
    await engine.load_started.wait()

    life.cancel()
    await worker.closed()

    assert engine.was_load_cancelled
    assert engine.is_closed


def crash_at(*times: float) -> CrashRecord:
    record = CrashRecord()
    for time in times:
        record = record.after_crash(time, POLICY)
    return record


def test_a_first_crash_restarts_at_once() -> None:
    """One crash costs no waiting."""
    assert crash_at(100.0).restart_at(POLICY) == 100.0


def test_a_second_crash_backs_off() -> None:
    """The second crash within the window waits half a second."""
    assert crash_at(100.0, 110.0).restart_at(POLICY) == 110.5


def test_the_back_off_doubles_up_to_its_limit() -> None:
    """0.5 s, 1 s, 2 s … and never more than 30 s."""
    patient = CrashPolicy(max_crashes=100, window_seconds=1000)
    record, delays = CrashRecord(), []
    for time in range(10):
        record = record.after_crash(float(time), patient)
        delays.append(record.restart_at(patient) - time)

    assert delays == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_three_crashes_in_a_minute_open_the_circuit_for_a_minute() -> None:
    """The third crash within 60 s bars the engine until 60 s later, to the moment."""
    record = crash_at(100.0, 120.0, 159.9)

    assert record.is_open(160.0)
    assert record.is_open(219.8)
    assert not record.is_open(219.9)


def test_crashes_spread_over_more_than_the_window_do_not_open_it() -> None:
    """A crash counts for 60 s."""
    assert not crash_at(100.0, 130.0, 160.0).is_open(160.0)


def test_half_open_allows_one_crash_and_no_more() -> None:
    """After the minute one try is on trial: a crash bars it again at once, a served request ends the trial."""
    record = crash_at(100.0, 101.0, 102.0)

    assert record.after_crash(170.0, POLICY).is_open(170.0)
    assert not record.after_success().after_crash(170.0, POLICY).is_open(170.0)


@given(st.lists(st.floats(0, 30), min_size=1, max_size=30), st.data())
def test_the_circuit_opens_exactly_when_the_window_is_full(gaps: list[float], data: st.DataObject) -> None:
    """Without a trial under way, open means three crashes within the last 60 s; never a restart before its time."""
    now, times, record = 0.0, list[float](), CrashRecord()
    for gap in gaps:
        now += gap
        if data.draw(st.booleans()):
            record = record.after_success()
        on_trial = record.open_until is not None
        record = record.after_crash(now, POLICY)
        times.append(now)
        in_window = [time for time in times if now < time + POLICY.window_seconds]
        assert record.is_open(now) == (on_trial or len(in_window) >= POLICY.max_crashes)
        assert now <= record.restart_at(POLICY) <= now + POLICY.open_seconds


def test_load_attempts_are_counted_for_those_who_wait() -> None:
    """With two attempts the first dead load is tried again, the second is told; then the count starts afresh."""
    ledger = CrashLedger(POLICY, load_attempts=2)

    assert [ledger.load_died(SPEC, now) for now in (0.0, 100.0, 200.0, 300.0)] == [True, False, True, False]


def test_a_quarantine_names_the_model_and_the_seconds_and_is_no_invitation_to_retry() -> None:
    """The refusal says how long it lasts; other specs are untouched."""
    ledger = CrashLedger(POLICY, load_attempts=2)
    for now in (0.0, 1.0, 2.0):
        ledger.crashed(SPEC, now)

    refusal = ledger.quarantine(SPEC, 12.0)

    assert refusal is not None
    assert refusal.retry_after_seconds is None
    assert "math.gguf" in str(refusal)
    assert "50 s" in str(refusal)
    assert ledger.quarantine(spec_named("other"), 12.0) is None
    assert ledger.quarantine(SPEC, 62.0) is None
