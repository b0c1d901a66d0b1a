"""An answer that looped beyond rescue is tried once more by somebody else, as long as nobody has seen it.

Works on whole answers only: the events of a choice are kept back until it has ended. The first specialist's lease is
over by the time the second one is asked, since both may not fit into memory together. Whatever the second one cannot
do better, the first one's answer stands: cut where it began to repeat itself.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from msgspec.structs import replace

from gateway.events import AnswerEvent, ChoiceFinished
from specialists.errors import SpecialistError
from specialists.request import LoopReport

GAVE_UP = "end"
HANDED_OVER = "specialist"

Parked = dict[int, list[AnswerEvent]]


async def with_second_opinion(
    first: AsyncGenerator[AnswerEvent],
    second: Callable[[Sequence[int]], AsyncGenerator[AnswerEvent]],
    *,
    tag: str,
) -> AsyncGenerator[AnswerEvent]:
    """The events of `first`, with choices that looped beyond rescue replaced by those of `second`.

    `second` makes choices of the given indices anew; `tag` is whose they are then. Raises what `first` raises.
    """
    parked: Parked = {}
    async with aclosing(first) as events:
        async for event in events:
            waiting = parked.setdefault(event.index, [])
            waiting.append(event)
            if isinstance(event, ChoiceFinished) and not _gave_up(event):
                for kept in parked.pop(event.index):
                    yield kept
    if parked:
        better = await _collect(second(sorted(parked)))
        for index, waiting in sorted(parked.items()):
            for kept in _better(waiting, better.get(index, []), tag):
                yield kept


async def _collect(events: AsyncGenerator[AnswerEvent]) -> Parked:
    """All events by choice; those so far where the second specialist fails, which is no failure of the answer."""
    found: Parked = {}
    try:
        async with aclosing(events):
            async for event in events:
                found.setdefault(event.index, []).append(event)
    except SpecialistError:
        pass
    return found


def _better(first: list[AnswerEvent], second: list[AnswerEvent], tag: str) -> list[AnswerEvent]:
    """The second answer, if it is one and did not loop beyond rescue as well, under a report on both."""
    end = second[-1] if second else None
    if not isinstance(end, ChoiceFinished) or _gave_up(end):
        return first
    given_up = first[-1]
    assert isinstance(given_up, ChoiceFinished)
    return [*second[:-1], replace(end, loop=_both(given_up, end, tag))]


def _both(first: ChoiceFinished, second: ChoiceFinished, tag: str) -> LoopReport:
    """What was thrown away is the whole of the first answer."""
    one, two = first.loop or LoopReport(), second.loop or LoopReport()
    return replace(
        two,
        hits=one.hits + two.hits,
        rewinds=one.rewinds + two.rewinds,
        rung=HANDED_OVER,
        onset=one.onset if two.onset is None else two.onset,
        tokens_discarded=one.tokens_discarded + first.usage.completion_tokens + two.tokens_discarded,
        handed_to=tag,
    )


def _gave_up(event: ChoiceFinished) -> bool:
    return event.loop is not None and event.loop.rung == GAVE_UP
