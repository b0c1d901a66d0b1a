"""Which texts are computed together, and that requests take turns."""

from specialists.engine.text_queue import Text, TextQueue


def texts(id: str, *lengths: int) -> list[Text]:
    return [Text(id, place, [7] * length, False) for place, length in enumerate(lengths)]


def taken(queue: TextQueue, **limits: int) -> list[tuple[str, int]]:
    return [(text.request_id, text.place) for text in queue.take(**({"max_tokens": 100, "max_texts": 8} | limits))]


def test_requests_take_turns_text_by_text() -> None:
    """A short request is through after its own text, however many another has."""
    queue = TextQueue()
    queue.add(texts("long", *[10] * 6))
    queue.add(texts("short", 10))

    assert taken(queue, max_texts=4) == [("long", 0), ("short", 0), ("long", 1), ("long", 2)]
    assert len(queue) == 1


def test_a_batch_is_bounded_by_tokens() -> None:
    """What does not fit waits at the front; one longer than the bound goes alone."""
    queue = TextQueue()
    queue.add(texts("a", 60, 60, 300, 5))

    assert [taken(queue) for _ in range(4)] == [[("a", 0)], [("a", 1)], [("a", 2)], [("a", 3)]]
    assert (taken(queue), len(queue)) == ([], 0)


def test_what_is_forgotten_is_not_taken() -> None:
    """The others' texts stay; an unknown id changes nothing."""
    queue = TextQueue()
    queue.add(texts("gone", 1, 1))
    queue.add(texts("here", 1))
    queue.forget("gone")
    queue.forget("nobody")

    assert taken(queue) == [("here", 0)]
