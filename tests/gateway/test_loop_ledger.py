"""The ledger counts, forgets the oldest and cannot be made to grow."""

from gateway.loop_ledger import MAX_PAIRS, OTHERS, LoopLedger
from specialists.request import LoopReport
from tests.fakes import FakeClock

LOOPED = LoopReport(hits=1, rewinds=1, rung="resample", onset=4, tokens_discarded=9)


def test_rates_are_shares_of_the_answers_that_were_watched() -> None:
    """One loop in four answers is a rate of a quarter; other domains have their own."""
    ledger = LoopLedger(unix_time=FakeClock())
    for number in range(4):
        ledger.record(str(number), "a", "math", LOOPED if number == 0 else LoopReport())
    ledger.record("5", "a", "law", LoopReport(hits=2, rung="end"))
    assert [(each["domain"], each["loop_rate"], each["ended"]) for each in ledger.rates()] == [
        ("law", 1.0, 1),
        ("math", 0.25, 0),
    ]
    assert ledger.counts("a", "history").rate == 0.0


def test_only_answers_that_looped_or_were_empty_are_told_one_by_one_and_the_oldest_go() -> None:
    """Newest first, with what the report says."""
    ledger = LoopLedger(unix_time=FakeClock(), capacity=2)
    ledger.record("fine", "a", "math", LoopReport())
    for name, report in (("old", LOOPED), ("empty", LoopReport(first_token_redrawn=True)), ("new", LOOPED)):
        ledger.record(name, "a", "math", report)
    assert [entry["id"] for entry in ledger.entries()] == ["new", "empty"]
    assert [entry["id"] for entry in ledger.entries(1)] == ["new"]
    assert ledger.entries()[0]["tokens_discarded"] == 9


def test_names_made_up_while_serving_do_not_make_it_grow() -> None:
    """Beyond so many pairs everything is counted together."""
    ledger = LoopLedger(unix_time=FakeClock())
    for number in range(MAX_PAIRS + 5):
        ledger.record("x", str(number), "math", LOOPED)
    assert len(ledger.rates()) == MAX_PAIRS + 1
    assert ledger.counts(OTHERS, OTHERS).answers == 5
