"""An answer that looped beyond rescue goes to somebody else, unseen; whoever fails, the client has an answer."""

import pytest

from gateway.answer import Answer
from gateway.events import ChoiceDelta, ChoiceFinished
from gateway.loop_ledger import LoopLedger
from specialists.errors import SpecialistError, SpecialistUnavailable
from specialists.manifest import LoopGuardRules
from specialists.request import GenerationRequest, LoopReport
from tests.fakes import FakeClock, Script
from tests.gateway.college import BROKEN, GENERAL, MATH, FakeCatalogue, FakePool, manifest
from tests.gateway.test_answer import Recorder, opened

pytestmark = pytest.mark.anyio

GAVE_UP = LoopReport(hits=3, rewinds=2, rung="end", onset=40, tokens_discarded=90)
CUT = Script(pieces=("one copy",), loop=GAVE_UP, completion_tokens=40)
FINE = Script(pieces=("much ", "better"), loop=LoopReport(), completion_tokens=7)


def college(fallback: str | None = GENERAL) -> FakeCatalogue:
    """Math hands over to `fallback`."""
    found = dict(FakeCatalogue().specialists)
    found[MATH] = manifest(MATH, loop_guard=LoopGuardRules(fallback=fallback))
    return FakeCatalogue(specialists=found)


async def texts_and_ends(answer: Answer) -> tuple[dict[int, str], dict[int, ChoiceFinished]]:
    texts: dict[int, str] = {}
    ends: dict[int, ChoiceFinished] = {}
    async for event in answer.events():
        if isinstance(event, ChoiceDelta):
            assert event.index not in ends
            texts[event.index] = texts.get(event.index, "") + event.content
        elif isinstance(event, ChoiceFinished):
            ends[event.index] = event
    return texts, ends


async def test_a_hopeless_answer_comes_from_the_fallback_and_says_so() -> None:
    """The second specialist's text replaces the first one's, and the report counts what was thrown away."""
    pool = FakePool(CUT, FINE)
    answer = await opened(pool, catalogue=college(), is_streamed=False)

    texts, ends = await texts_and_ends(answer)

    assert texts == {0: "much better"}
    assert pool.leased == [MATH, GENERAL]
    report = LoopReport(hits=3, rewinds=2, rung="specialist", onset=40, tokens_discarded=130, handed_to=GENERAL)
    assert ends[0].loop == report == answer.loops[0]
    assert ends[0].usage.completion_tokens == 7


async def test_the_first_lease_is_over_before_the_second_begins() -> None:
    """Two specialists that do not fit into memory together never wait for each other."""
    held: list[int] = []
    pool = FakePool()

    def script(request: GenerationRequest) -> Script:
        held.append(pool.num_held)
        return CUT if len(held) == 1 else FINE

    pool._scripts = [script]
    await texts_and_ends(await opened(pool, catalogue=college(), is_streamed=False))

    assert held == [1, 1]


async def test_of_several_choices_only_the_hopeless_ones_are_handed_over() -> None:
    """The others stay as they are, and every choice keeps its index."""

    def first(request: GenerationRequest) -> Script:
        return CUT if request.id.endswith("-1") else Script(pieces=(request.id,))

    pool = FakePool(first, FINE)
    answer = await opened(pool, catalogue=college(), is_streamed=False, n=3)

    texts, ends = await texts_and_ends(answer)

    assert texts == {0: "r-0", 1: "much better", 2: "r-2"}
    assert sorted(ends) == [0, 1, 2]
    assert [request.id for request in pool.engines[1].submitted] == ["r-again-1"]


@pytest.mark.parametrize(
    "second",
    [
        CUT,
        Script(error=SpecialistUnavailable("gone")),
        Script(pieces=("half",), error=SpecialistError("x"), error_before=1),
    ],
)
async def test_the_first_answer_stands_when_the_second_is_no_better(second: Script) -> None:
    """A fallback that loops as well, or fails, costs the client nothing."""
    answer = await opened(FakePool(CUT, second), catalogue=college(), is_streamed=False)

    texts, ends = await texts_and_ends(answer)

    assert texts == {0: "one copy"}
    assert ends[0].loop == GAVE_UP


@pytest.mark.parametrize(("fallback", "is_streamed"), [(None, False), (GENERAL, True), (MATH, False), (BROKEN, False)])
async def test_nobody_else_is_asked_where_the_client_watches_or_nobody_is_there(
    fallback: str | None, is_streamed: bool
) -> None:
    """Not for streams, not without a fallback, not to itself, not to one that cannot be served."""
    pool = FakePool(CUT, FINE)

    texts, _ = await texts_and_ends(await opened(pool, catalogue=college(fallback), is_streamed=is_streamed))

    assert texts == {0: "one copy"}
    assert pool.leased == [MATH]


async def test_both_specialists_answer_for_their_own_loops() -> None:
    """Metrics and ledger know who looped; the one who helped out did not."""
    observer, ledger = Recorder(), LoopLedger(unix_time=FakeClock())
    pool = FakePool(CUT, FINE)

    await texts_and_ends(await opened(pool, catalogue=college(), is_streamed=False, observer=observer, loops=ledger))

    assert [(tag, domain, report.hits) for tag, domain, report in observer.guards] == [
        (MATH, "math", 3),
        (GENERAL, "math", 0),
    ]
    assert ledger.counts(MATH, "math").rate == 1.0
    assert ledger.counts(GENERAL, "math").rate == 0.0
    [entry] = ledger.entries()
    assert (entry["specialist"], entry["rung"], entry["unix_time"]) == (MATH, "end", 1000.0)
