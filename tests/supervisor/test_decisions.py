"""The log stays small, says what happened, and keeps nobody's words unless told to."""

import json
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.decisions import MOST_TERMS, TEXT_CHARS, Decision, DecisionLog, Outcome
from supervisor.transfer import Choice, choose
from supervisor.transfer_fit import TransferTable
from supervisor.transfer_model import TransferModel
from tests.supervisor.choosing import DEFAULT, college

CHOICE = choose([("math", 1.0)], college(), TransferModel(TransferTable.load()), default=DEFAULT)


def decision(number: int = 0, outcome: Outcome = "classified", choice: Choice = CHOICE) -> Decision:
    return Decision(
        decision_id=f"d{number}",
        tag=choice.tag,
        domain=choice.domain,
        confidence=0.9,
        abstained=False,
        outcome=outcome,
        reason=choice.sentence,
        domains=(("math", 0.9), ("law", 0.1)),
        choice=choice,
        classifier_reason="the word 'secret'",
        evidence={"cues": ["secret"]},
    )


def log(*, capacity: int = 10, allow_text: bool = False) -> DecisionLog:
    return DecisionLog(unix_time=lambda: 1_700_000_000.0, capacity=capacity, allow_text=allow_text)


@given(st.integers(1, 20), st.integers(0, 60), st.integers(0, 70))
def test_the_log_holds_the_newest_first(capacity: int, num_decisions: int, limit: int) -> None:
    """The last `capacity` decisions, newest first, as many as asked for; the counts go on counting."""
    kept = log(capacity=capacity)
    for number in range(num_decisions):
        kept.record(decision(number))

    newest = [f"d{number}" for number in reversed(range(num_decisions))]
    assert [entry["decision_id"] for entry in kept.entries(limit)] == newest[: min(capacity, limit)]
    assert len(kept) == min(capacity, num_decisions)
    assert sum(kept.outcomes().values()) == num_decisions


def test_no_word_of_a_message_is_kept() -> None:
    """Neither the question nor what the classifier quotes from it shows, in entries or in a decision looked up."""
    kept = log()
    kept.record(decision(), "a secret question")

    found = kept.get("d0")
    assert found is not None
    assert "secret" not in json.dumps(kept.entries())
    assert "secret" not in repr(found)


def test_words_are_kept_where_that_is_allowed() -> None:
    """Then an entry holds the question, cut to its bound, and the evidence."""
    kept = log(allow_text=True)
    kept.record(decision(), "secret " * 1000)

    (entry,) = kept.entries()
    assert len(entry["text"]) == TEXT_CHARS
    assert entry["evidence"] == {"cues": ["secret"]}


def test_entries_are_plain_data_with_the_winners_sums() -> None:
    """JSON takes them; of the candidates only the first few stay, the winner first."""
    kept = log()
    terms = CHOICE.terms * 4
    kept.record(decision(choice=msgspec.structs.replace(CHOICE, terms=terms)))

    (entry,) = json.loads(json.dumps(kept.entries()))
    assert entry["unix_time"] == 1_700_000_000.0
    assert entry["choice"]["tag"] == entry["choice"]["terms"][0]["tag"] == entry["tag"]
    assert len(entry["choice"]["terms"]) == MOST_TERMS


def test_outcomes_are_counted_apart() -> None:
    """Fallbacks can be told from decisions."""
    kept = log(capacity=1)
    kept.record(decision(outcome="classified"))
    kept.record(decision(outcome="classified"))
    kept.record(decision(outcome="no_classifier"))

    assert kept.outcomes() == {"classified": 2, "no_classifier": 1}


def test_a_decision_can_be_looked_up_while_it_is_kept() -> None:
    """By its id; pushed out, it is gone."""
    kept = log(capacity=2)
    for number in range(3):
        kept.record(decision(number))

    found = kept.get("d2")
    assert found is not None
    assert found.decision_id == "d2"
    assert kept.get("d0") is None


def test_a_log_without_room_is_refused() -> None:
    """The message names the bound."""
    with pytest.raises(ValueError, match="capacity = 0"):
        log(capacity=0)


def test_many_threads_may_record_at_once() -> None:
    """No decision is lost from the counts, and reading meanwhile raises nothing."""
    kept = log(capacity=5)

    def work() -> None:
        for number in range(200):
            kept.record(decision(number))
            kept.entries(3)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert kept.outcomes() == {"classified": 800}
