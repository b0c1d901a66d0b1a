"""Text that may be shown: properties over any cut of the bytes into tokens."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from specialists.engine.text import TextStream
from specialists.request import TokenLogprob


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


def streamed(pieces: list[bytes], stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    stream = TextStream(stop)
    shown = [stream.push(piece) for piece in pieces]
    return [*shown, stream.flush()], stream


@given(st.text(), st.lists(st.integers(0, 10_000)))
def test_any_cut_of_the_bytes_gives_the_same_text(text: str, cuts: list[int]) -> None:
    """Code points split over tokens arrive whole (F33)."""
    shown, _ = streamed(cut(text.encode("utf-8", "replace"), cuts))
    assert "".join(shown) == text.encode("utf-8", "replace").decode()


@given(
    st.text("ab."),
    st.lists(st.text("ab.", min_size=1, max_size=4), min_size=1, max_size=4),
    st.lists(st.integers(0, 999)),
)
def test_text_ends_before_the_first_stop_string(text: str, stops: list[str], cuts: list[int]) -> None:
    """What is shown is the text up to the earliest stop string to be completed, and no byte of it (F35)."""
    shown, stream = streamed(cut(text.encode(), cuts), tuple(stops))
    whole = "".join(shown)
    assert text.startswith(whole)
    assert not any(stop in whole for stop in stops)
    assert stream.is_stopped == any(stop in text for stop in stops)
    if not stream.is_stopped:
        assert whole == text
    else:
        assert any(text[len(whole) :].startswith(stop) for stop in stops)


def test_text_that_may_begin_a_stop_string_is_held_back_only_as_long_as_it_may() -> None:
    """`EN` waits for what follows; `EX` settles it."""
    stream = TextStream(("END",))
    assert [stream.push(piece) for piece in (b"a EN", b"X", b" E")] == ["a ", "ENX", " "]
    assert stream.flush() == "E"


def test_an_incomplete_code_point_at_the_end_is_dropped() -> None:
    """Half a character is never shown, not even as U+FFFD."""
    shown, _ = streamed(["é".encode()[:1]])
    assert shown == ["", ""]


def test_bytes_that_are_not_utf_8_become_one_replacement_character() -> None:
    """The stream goes on after a broken byte (F34)."""
    shown, _ = streamed([b"a", b"\xff", b"b"])
    assert "".join(shown) == "a\ufffdb"


def test_logprobs_leave_with_their_text_and_stop_with_it() -> None:
    """Tokens behind a stop string report nothing; tokens before it all do."""
    stream = TextStream(("!!",))
    entries = [TokenLogprob(token, b"", -1.0) for token in range(4)]
    taken: list[TokenLogprob] = []
    for piece, entry in zip((b"a", b"b!", b"c", b"!!"), entries, strict=True):
        stream.push(piece, entry)
        taken += stream.take_logprobs()
    assert [entry.token for entry in taken] == [0, 1, 2]


@given(st.text("ab.é", min_size=1), st.lists(st.integers(0, 999)), st.integers(0, 20), st.integers(0, 20))
def test_text_that_was_held_and_taken_back_leaves_no_trace(
    text: str, cuts: list[int], held_from: int, num_kept: int
) -> None:
    """After a rewind the stream goes on as one that never saw what was taken back, logprobs included."""
    pieces = cut(text.encode(), cuts)
    entries = [TokenLogprob(token, b"", -1.0) for token in range(len(pieces))]
    start = held_from % len(pieces)
    keep = min(start + num_kept, len(pieces))
    stream, straight = TextStream(("a~",)), TextStream(("a~",))
    shown = [stream.push(piece, entry) for piece, entry in zip(pieces[:start], entries, strict=False)]
    for piece, entry in zip(pieces[start:], entries[start:], strict=True):
        fresh = stream.decode(piece)
        stream.hold()
        assert stream.add(fresh, entry) == ""
    stream.rewind(pieces[start:keep])
    stream.release()
    shown += [stream.push(b"b"), stream.flush()]
    expected = [straight.push(piece, entry) for piece, entry in zip(pieces[:keep], entries, strict=False)]
    expected += [straight.push(b"b"), straight.flush()]
    assert "".join(shown) == "".join(expected)
    assert stream.take_logprobs() == straight.take_logprobs()


def test_a_stop_string_is_found_in_held_text() -> None:
    """Holding back does not make an answer run past its end."""
    stream = TextStream(("END",))
    fresh = stream.decode(b"one E")
    stream.hold()
    assert stream.add(fresh) == ""
    assert stream.push(b"ND two") == "one "
    assert stream.is_stopped
