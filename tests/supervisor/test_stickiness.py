"""A conversation keeps its domain through follow-ups and noise, gives it up when the topic moves, and stays small."""

import math
import threading
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from supervisor.conversation import Turn
from supervisor.stickiness import (
    Belief,
    Conversation,
    ConversationKey,
    ConversationStore,
    StickinessParams,
    conversation_key,
    distance,
    fingerprint,
    is_continued,
    updated,
)

DOMAINS = ("general", "math", "physics", "law", "history")
PARAMS = StickinessParams()


def belief_of(weights: list[float]) -> Belief:
    total = sum(weights)
    return tuple(sorted(((d, w / total) for d, w in zip(DOMAINS, weights, strict=True)), key=lambda each: -each[1]))


beliefs = st.lists(st.floats(1e-6, 1), min_size=len(DOMAINS), max_size=len(DOMAINS)).map(belief_of)


def favouring(domain: str, times: float) -> Belief:
    """Evidence in which `domain` is `times` as likely as each other one."""
    return belief_of([times if d == domain else 1.0 for d in DOMAINS])


def user(*texts: str) -> list[Turn]:
    return [Turn("user", text) for text in texts]


def remembered(turns: list[Turn], tag: str = "coe-math") -> Conversation:
    num_turns = sum(turn.role == "user" for turn in turns)
    return Conversation(
        belief=favouring("math", 20),
        tag=tag,
        domain="math",
        abstained=False,
        num_turns=num_turns,
        fingerprint=fingerprint(turns),
    )


@given(beliefs, beliefs)
def test_a_belief_stays_a_distribution(belief: Belief, evidence: Belief) -> None:
    """After any update it sums to 1, every share is within 0 and 1, and the likeliest comes first."""
    found = updated(belief, evidence, PARAMS).belief

    assert math.isclose(sum(p for _, p in found), 1.0)
    assert all(0 <= p <= 1 for _, p in found)
    assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)


@given(beliefs)
def test_the_first_turn_is_taken_as_it_is(evidence: Belief) -> None:
    """Without a history the evidence is the belief."""
    assert updated(None, evidence, PARAMS).belief == evidence


@given(
    st.lists(beliefs, min_size=1, max_size=8),
    st.sampled_from(DOMAINS),
    st.tuples(st.floats(2.05, 1e6), st.floats(2.05, 1e6)),
)
def test_a_topic_that_moves_wins_within_two_turns(
    history: list[Belief], domain: str, times: tuple[float, float]
) -> None:
    """Whatever came before, two turns in which a domain is twice as likely as any other make it the likeliest."""
    belief: Belief | None = None
    for evidence in (*history, favouring(domain, times[0]), favouring(domain, times[1])):
        belief = updated(belief, evidence, PARAMS).belief

    assert belief is not None
    assert belief[0][0] == domain


@given(beliefs, st.sampled_from(DOMAINS))
def test_a_sure_turn_far_from_the_belief_starts_afresh(belief: Belief, domain: str) -> None:
    """Evidence that is sure and elsewhere wins at once, and is called drift."""
    evidence = favouring(domain, 100)
    assume(dict(belief)[domain] < 0.3)

    found = updated(belief, evidence, PARAMS)

    assert found.is_drift
    assert found.belief == evidence


@given(st.floats(0.05, 1), st.sampled_from(DOMAINS[2:]))
def test_one_vague_turn_does_not_move_a_settled_conversation(excess: float, other: str) -> None:
    """After three clear turns, one that leans elsewhere by up to two to one changes nothing."""
    belief: Belief | None = None
    for _ in range(3):
        belief = updated(belief, favouring("math", 30), PARAMS).belief

    assert updated(belief, favouring(other, 1 + excess), PARAMS).belief[0][0] == "math"


@given(beliefs)
def test_flat_evidence_only_flattens(belief: Belief) -> None:
    """A turn that says nothing about the domain leaves the order of the likeliest as it was."""
    flat = belief_of([1.0] * len(DOMAINS))
    found = updated(belief, flat, PARAMS).belief
    assume(belief[0][1] > belief[1][1] * 1.001)

    assert found[0][0] == belief[0][0]
    assert found[0][1] <= belief[0][1] + 1e-9


@given(beliefs, beliefs)
def test_distance_is_a_distance(one: Belief, other: Belief) -> None:
    """Between 0 and 1, symmetric, and 0 to itself."""
    assert 0 <= distance(one, other) <= 1 + 1e-9
    assert distance(one, other) == pytest.approx(distance(other, one))
    assert distance(one, one) == 0


def test_a_classifier_that_invents_domains_does_not_make_beliefs_grow() -> None:
    """A thousand turns with new names each keep a belief bounded."""
    belief: Belief | None = None
    for turn in range(1000):
        belief = updated(belief, ((f"d{turn}", 0.5), (f"e{turn}", 0.5)), PARAMS).belief

    assert belief is not None
    assert len(belief) <= 128


def test_keys_come_from_the_request_in_order_of_precision() -> None:
    """The client's own id, then user, then the opening; each kind keeps to itself."""
    turns = user("what is an integral?")
    exact = conversation_key(turns, user="ann", conversation_id="c1")
    named = conversation_key(turns, user="ann")
    opening = conversation_key(turns)

    assert exact is not None
    assert named is not None
    assert opening is not None
    assert (exact.is_exact, named.is_exact, opening.is_exact) == (True, False, False)
    assert len({exact.id, named.id, opening.id}) == 3
    assert exact == conversation_key(user("other"), conversation_id="c1")
    assert conversation_key(turns, user="c1") != exact


def test_the_opening_keys_the_whole_conversation() -> None:
    """Later turns leave the key as it is; another opening makes another key; a bare greeting makes none."""
    opening = [Turn("system", "be brief"), *user("what is an integral?")]
    later = [*opening, Turn("assistant", "An area."), *user("why?")]

    assert conversation_key(later) == conversation_key(opening) != conversation_key(user("what is a tort?"))
    assert conversation_key(user("hello")) is None
    assert conversation_key([]) is None


def test_what_a_harness_adds_does_not_change_the_key() -> None:
    """A reminder that carries the time of day is not part of the opening."""
    keys = {
        conversation_key(user(f"what is an integral?\n<system-reminder>now {hour}:00</system-reminder>"))
        for hour in range(3)
    }

    assert len(keys) == 1


@given(
    st.lists(st.builds(Turn, st.sampled_from(["user", "assistant", "system"]), st.text())),
    st.none() | st.text(),
    st.none() | st.text(),
)
def test_keys_are_short_whatever_the_request_holds(
    turns: list[Turn], name: str | None, conversation_id: str | None
) -> None:
    """32 hex digits or no key at all; the same request gives the same key."""
    key = conversation_key(turns, user=name, conversation_id=conversation_id)

    assert key == conversation_key(turns, user=name, conversation_id=conversation_id)
    assert key is None or len(key.id) == 32


def test_a_lone_surrogate_is_a_key_like_any_other() -> None:
    """Text that UTF-8 cannot hold raises nothing."""
    assert conversation_key(user("what is \ud800 ?"), user="\udfff") is not None


def test_equal_beginnings_of_long_turns_are_told_apart() -> None:
    """Two questions behind one long instruction are two conversations, however long the instruction."""
    for length in (100, 20_000):
        instruction = "Answer the question below. " * length
        one, other = user(instruction + "integrals?"), user(instruction + "torts?")
        assert conversation_key(one) != conversation_key(other)
        assert fingerprint(one) != fingerprint(other)


def test_the_same_questions_go_on_and_others_do_not() -> None:
    """By the opening, a conversation continues only if all questions seen so far are in it."""
    key = ConversationKey(id="k", is_exact=False)
    known = remembered(user("integrals?", "by parts?"))

    assert is_continued(known, user("integrals?", "by parts?", "why does that work?"), key)
    assert not is_continued(known, user("integrals?", "in court?", "why does that work?"), key)


def test_an_exact_id_goes_on_whatever_is_sent() -> None:
    """A client that names its conversation may send the last message alone."""
    known = remembered(user("integrals?", "by parts?"))

    assert is_continued(known, user("what is a tort?"), ConversationKey(id="k", is_exact=True))


def test_a_user_who_sends_no_history_goes_on_only_by_leaning() -> None:
    """`user` may be shared by many conversations: a lone follow-up belongs to the last, a lone question to none."""
    known = remembered(user("integrals?"))
    key = ConversationKey(id="k", is_exact=False)

    assert is_continued(known, user("why?"), key)
    assert not is_continued(known, user("what is a tort?"), key)


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def key_of(number: int) -> ConversationKey:
    return ConversationKey(id=str(number), is_exact=True)


class StoreMachine(RuleBasedStateMachine):
    """The store against the obvious model of it: a dict of times, searched in full."""

    LARGEST, TTL = 4, 10.0

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.store = ConversationStore(clock=self.clock, max_conversations=self.LARGEST, ttl_seconds=self.TTL)
        self.expected: dict[int, tuple[float, Conversation]] = {}

    @rule(number=st.integers(0, 9), tag=st.sampled_from(["a", "b"]))
    def put(self, number: int, tag: str) -> None:
        conversation = remembered(user("q"), tag)
        self.store.put(key_of(number), conversation)
        self.expected.pop(number, None)
        self.expected[number] = (self.clock.now, conversation)
        self._forget()

    @rule(seconds=st.floats(0, 12))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self._forget()

    @rule(number=st.integers(0, 9))
    def get(self, number: int) -> None:
        found = self.expected.get(number)
        assert self.store.get(key_of(number)) == (found and found[1])

    @invariant()
    def stays_small(self) -> None:
        assert len(self.store) == len(self.expected) <= self.LARGEST

    def _forget(self) -> None:
        now = self.clock.now
        self.expected = {n: kept for n, kept in self.expected.items() if kept[0] > now - self.TTL}
        self.expected = dict(list(self.expected.items())[-self.LARGEST :])


TestStore = StoreMachine.TestCase


def test_the_store_refuses_senseless_bounds() -> None:
    """The message names both numbers."""
    for largest, ttl in ((0, 1.0), (1, 0.0), (1, math.nan)):
        with pytest.raises(ValueError, match="max_conversations"):
            ConversationStore(clock=FakeClock(), max_conversations=largest, ttl_seconds=ttl)


def test_the_store_stands_many_threads() -> None:
    """Writers at once leave it within its bound and intact."""
    store = ConversationStore(clock=FakeClock(), max_conversations=50)

    def write(first: int) -> Callable[[], None]:
        def job() -> None:
            for number in range(first, first + 500):
                store.put(key_of(number), remembered(user("q")))
                store.get(key_of(number - 1))

        return job

    threads = [threading.Thread(target=write(first)) for first in (0, 250, 1000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(store) == 50
