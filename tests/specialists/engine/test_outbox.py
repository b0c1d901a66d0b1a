"""What the engine says leaves in order, promptly where it matters, and complete."""

from hypothesis import given
from hypothesis import strategies as st

from specialists.engine.messages import Event, Failed, FromEngine, Heartbeat
from specialists.engine.outbox import Outbox
from specialists.request import Finished, FinishReason, Started, TokenLogprob, Tokens, Usage

INTERVAL = 0.03


def started(id: str) -> Event:
    return Event(id, Started(prompt_tokens=1, cached_tokens=0, queue_seconds=0.0))


def finished(id: str) -> Event:
    return Event(id, Finished(FinishReason.STOP, Usage(prompt_tokens=1, completion_tokens=1)))


def text(id: str, content: str) -> Event:
    return Event(id, Tokens(content, (TokenLogprob(0, content.encode(), 0.0),)))


def begun_outbox() -> Outbox:
    """An outbox in whose only answer, "a", the first text has just left at 0 s."""
    outbox = Outbox(text_interval_seconds=INTERVAL)
    outbox.put(started("a"))
    outbox.put(text("a", "One"))
    assert len(outbox.take(0.0, is_idle=False)) == 2
    return outbox


def test_later_text_waits_for_the_interval_and_leaves_as_one() -> None:
    """Texts of one request within the interval become one, with all log-probabilities and draws."""
    outbox = begun_outbox()
    outbox.put(text("a", " two"))
    assert outbox.take(0.01, is_idle=False) == []
    outbox.put(text("a", " three"))

    [message] = outbox.take(0.031, is_idle=False)

    assert isinstance(message, Event)
    assert isinstance(message.event, Tokens)
    assert message.event.text == " two three"
    assert [entry.piece for entry in message.event.logprobs] == [b" two", b" three"]
    assert message.event.num_draws == 2


def test_the_first_text_of_an_answer_does_not_wait() -> None:
    """Nobody's first token is held back because another answer's text has just been written."""
    outbox = begun_outbox()
    outbox.put(started("b"))
    outbox.take(0.001, is_idle=False)
    outbox.put(text("b", "Hello"))

    assert outbox.take(0.002, is_idle=False) == [text("b", "Hello")]


def test_ends_and_failures_leave_at_once_after_the_text_that_waited() -> None:
    """An end is never seen before the words it ends, and never late."""
    for end in (finished("a"), Failed("a", "generation_failed", "It broke.", None)):
        outbox = begun_outbox()
        outbox.put(text("a", " two"))
        outbox.put(end)

        assert outbox.take(0.001, is_idle=False) == [text("a", " two"), end]


def test_nothing_waits_when_no_step_follows() -> None:
    """Before the engine goes to sleep everything has been said."""
    outbox = begun_outbox()
    outbox.put(text("a", " two"))

    assert outbox.take(0.001, is_idle=True) == [text("a", " two")]


def test_a_heartbeat_alone_hurries_nobody() -> None:
    """Heartbeats go with the next write."""
    outbox = begun_outbox()
    outbox.put(text("a", " two"))
    outbox.put(Heartbeat(1, 0))

    assert outbox.take(0.001, is_idle=False) == []
    assert outbox.take(0.05, is_idle=False) == [text("a", " two"), Heartbeat(1, 0)]


def test_without_an_interval_every_step_is_written() -> None:
    """Where others have cores of their own, text leaves as it comes."""
    outbox = Outbox(text_interval_seconds=0.0)
    for step in range(3):
        outbox.put(text("a", str(step)))
        assert outbox.take(0.001 * step, is_idle=False) == [text("a", str(step))]


steps = st.lists(
    st.tuples(st.lists(st.tuples(st.sampled_from("abc"), st.text(min_size=1, max_size=3)), max_size=4), st.booleans()),
    max_size=30,
)


@given(steps, st.floats(0.0, 0.1))
def test_no_word_is_lost_or_reordered(script: list[tuple[list[tuple[str, str]], bool]], interval: float) -> None:
    """Whatever waits, each request's text comes out whole and in order, and is gone from memory then."""
    outbox = Outbox(text_interval_seconds=interval)
    said: dict[str, str] = {}
    heard: dict[str, str] = {}
    taken: list[FromEngine] = []
    for step, (words, is_idle) in enumerate(script):
        for id, word in words:
            outbox.put(text(id, word))
            said[id] = said.get(id, "") + word
        taken += outbox.take(0.01 * step, is_idle=is_idle)
    taken += outbox.take(1.0, is_idle=True)
    for message in taken:
        assert isinstance(message, Event)
        assert isinstance(message.event, Tokens)
        heard[message.id] = heard.get(message.id, "") + message.event.text
    assert heard == said
    assert outbox.take(2.0, is_idle=True) == []
