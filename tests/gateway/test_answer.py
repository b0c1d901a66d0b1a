"""An answer waits for its lease, says what happens, tries once more unseen, and lets go of everything."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from gateway.answer import Answer
from gateway.chat import ChatService, DefaultChooser
from gateway.events import ChoiceDelta, ChoiceFinished, ChoiceStarted
from gateway.loop_ledger import LoopLedger
from gateway.policy import RequestPolicy
from gateway.request import ChatRequest
from specialists.errors import ModelTooLarge, RequestRejected, SpecialistUnavailable, UnknownSpecialist, WorkerLost
from specialists.request import GenerationRequest, LoopReport, Message, TokenLogprob, Tokens, Usage
from tests.fakes import FakeClock, Script
from tests.gateway.college import BROKEN, GENERAL, MATH, FakeCatalogue, FakePool

pytestmark = pytest.mark.anyio


class Recorder:
    """A GenerationObserver that keeps what it was told."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.gaps: list[float] = []
        self.usages: list[tuple[str, Usage]] = []
        self.guards: list[tuple[str, str, LoopReport]] = []
        self.calculations: list[bool] = []
        self.has_text = asyncio.Event()

    def first_token(self, specialist: str, *, seconds: float) -> None:
        self.first.append(seconds)
        self.has_text.set()

    def next_token(self, specialist: str, *, seconds: float) -> None:
        self.gaps.append(seconds)

    def generated(self, specialist: str, usage: Usage) -> None:
        self.usages.append((specialist, usage))

    def calculated(self, specialist: str, *, is_error: bool) -> None:
        self.calculations.append(is_error)

    def guarded(self, specialist: str, domain: str, report: LoopReport) -> None:
        self.guards.append((specialist, domain, report))


async def opened(
    pool: FakePool,
    *,
    observer: Recorder | None = None,
    clock: Callable[[], float] | None = None,
    loops: LoopLedger | None = None,
    catalogue: FakeCatalogue | None = None,
    **fields: Any,
) -> Answer:
    catalogue = catalogue or FakeCatalogue()
    service = ChatService(
        catalogue=catalogue,
        pool=pool,
        policy=RequestPolicy(),
        chooser=DefaultChooser(catalogue),
        observer=observer or Recorder(),
        loops=loops or LoopLedger(unix_time=FakeClock()),
        clock=clock or FakeClock(),
    )
    messages = (Message(role="user", content="Hello"),)
    return await service.open(ChatRequest(**({"model": MATH, "messages": messages} | fields)), request_id="r")


async def text_of(answer: Answer) -> str:
    return "".join([event.content async for event in answer.events() if isinstance(event, ChoiceDelta)])


def lost() -> Script:
    return Script(crash_before=0)


async def test_events_come_in_order_and_the_lease_goes_back() -> None:
    """Started, text, finished; then nobody holds anything."""
    pool = FakePool(Script(pieces=("a", "b")))
    answer = await opened(pool)

    events = [event async for event in answer.events()]

    assert isinstance(events[0], ChoiceStarted)
    assert events[1:3] == [ChoiceDelta(0, "a", "", ()), ChoiceDelta(0, "b", "", ())]
    assert isinstance(events[3], ChoiceFinished)
    assert pool.num_held == 0
    assert (answer.times.waited_seconds, answer.times.swap_seconds) == (0.5, 0.25)


@pytest.mark.parametrize(("model", "tag", "reason"), [("auto", GENERAL, "default"), (MATH, MATH, "named")])
async def test_auto_goes_to_the_default_and_a_tag_to_itself(model: str, tag: str, reason: str) -> None:
    """Without a supervisor the college's default answers what names nobody."""
    answer = await opened(FakePool(), model=model)

    assert (answer.manifest.tag, answer.decision.reason, answer.decision.confidence) == (tag, reason, None)
    assert answer.decision.domain == tag.removeprefix("coe-").removesuffix(":q4")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"model": "nobody"}, UnknownSpecialist),
        ({"model": BROKEN}, SpecialistUnavailable),
        ({"n": 99}, RequestRejected),
    ],
)
async def test_what_can_be_refused_at_once_is(fields: dict[str, Any], error: type[Exception]) -> None:
    """Neither lease nor engine is touched."""
    pool = FakePool()

    with pytest.raises(error):
        await opened(pool, **fields)

    assert not pool.asked.is_set()


async def test_the_pool_is_told_what_will_be_asked() -> None:
    """So that a conversation comes back to the engine that holds it."""
    pool = FakePool()
    answer = await opened(pool)
    await text_of(answer)

    assert pool.prompts == [answer.plan.generations[0].prompt]


async def test_an_engine_lost_before_any_text_is_replaced_unseen() -> None:
    """The client gets the second engine's answer, whole, and no word of the first."""
    pool = FakePool(lost(), Script(pieces=("fine",)))
    answer = await opened(pool)

    assert await text_of(answer) == "fine"
    assert (len(pool.leased), pool.num_held) == (2, 0)


async def test_a_second_loss_is_told() -> None:
    """Twice is no accident; the caller learns of it."""
    pool = FakePool(lost(), lost(), Script())

    with pytest.raises(WorkerLost):
        await text_of(await opened(pool))

    assert (len(pool.leased), pool.num_held) == (2, 0)


async def test_a_loss_after_text_is_never_retried() -> None:
    """The client has seen half an answer; another one would contradict it."""
    pool = FakePool(Script(pieces=("a", "b"), crash_before=1))

    with pytest.raises(WorkerLost):
        await text_of(await opened(pool))

    assert len(pool.leased) == 1


async def test_other_errors_are_not_retried() -> None:
    """A model that does not fit will not fit a second time."""
    pool = FakePool()
    pool.error = ModelTooLarge("20 GiB of 16 GiB")

    with pytest.raises(ModelTooLarge):
        await text_of(await opened(pool))

    assert pool.leased == []


async def test_closing_early_aborts_the_engine_and_returns_the_lease() -> None:
    """A client that leaves costs nothing from then on."""
    pool = FakePool(Script(pieces=("a", "b", "c")))
    answer = await opened(pool)

    async with aclosing(answer.events()) as events:
        async for event in events:
            if isinstance(event, ChoiceDelta):
                break

    assert pool.engines[0].aborted == ["r-0"]
    assert pool.num_held == 0


async def test_cancelling_a_waiting_answer_leaves_the_queue() -> None:
    """Whoever leaves while queued never gets an engine."""
    pool = FakePool()
    pool.gate = asyncio.Event()
    answer = await opened(pool)
    waiting = asyncio.ensure_future(text_of(answer))
    await pool.asked.wait()

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert (pool.num_waiting, pool.leased) == (0, [])


def numbered(request: GenerationRequest) -> Script:
    return Script(pieces=(f"<{request.id}>", "."))


async def test_choices_run_on_one_lease_and_keep_apart() -> None:
    """n answers are generated at once, each under its own index."""
    pool = FakePool(numbered)
    answer = await opened(pool, n=3)

    texts = ["", "", ""]
    async for event in answer.events():
        if isinstance(event, ChoiceDelta):
            texts[event.index] += event.content

    assert texts == ["<r-0>.", "<r-1>.", "<r-2>."]
    assert len(pool.leased) == 1


async def test_the_failure_of_one_choice_aborts_the_others() -> None:
    """Half of n answers is none; the rest stops computing."""
    never = asyncio.Event()

    def script(request: GenerationRequest) -> Script:
        if request.id == "r-1":
            return Script(error=RequestRejected("no"), error_before=1)
        return Script(gates={1: never})

    pool = FakePool(script)

    with pytest.raises(RequestRejected):
        await text_of(await opened(pool, n=2))

    assert pool.engines[0].aborted == ["r-0"]
    assert pool.num_held == 0


async def test_reasoning_is_kept_apart_even_across_pieces() -> None:
    """No marker and nothing between markers is content."""
    pool = FakePool(Script(pieces=("<thi", "nk>because", "</th", "ink>so", " <b")))
    answer = await opened(pool)

    deltas = [event async for event in answer.events() if isinstance(event, ChoiceDelta)]

    assert "".join(delta.content for delta in deltas) == "so <b"
    assert "".join(delta.reasoning for delta in deltas) == "because"


async def test_an_answer_bound_by_a_schema_may_speak_of_markers() -> None:
    """Inside JSON strings they are just text, and taking them out would break the JSON."""
    pool = FakePool(Script(pieces=('"<think>"',)))

    assert await text_of(await opened(pool, json_schema='{"type":"string"}')) == '"<think>"'


async def test_log_probabilities_stay_with_their_content() -> None:
    """Those of held-back text come with it, those of reasoning go with it."""

    def piece(text: str) -> Tokens:
        return Tokens(text, logprobs=(TokenLogprob(token=1, piece=text.encode(), logprob=-1.0),))

    pool = FakePool(Script(pieces=(piece("a <"), piece("b"), piece("<think>"), piece("why"), piece("</think>"))))
    answer = await opened(pool, logprobs=0)

    deltas = [event async for event in answer.events() if isinstance(event, ChoiceDelta)]
    told = [each.piece for delta in deltas for each in delta.logprobs]

    assert told == [b"a <", b"b"]


async def test_times_and_tokens_are_observed() -> None:
    """Time to first text counts from the request; usage is the engine's own count."""
    clock, observer = FakeClock(), Recorder()
    gates = {0: asyncio.Event(), 1: asyncio.Event()}
    pool = FakePool(Script(pieces=("a", "b"), gates=gates, cached_tokens=3))
    answer = await opened(pool, observer=observer, clock=clock)
    reading = asyncio.ensure_future(text_of(answer))
    await pool.asked.wait()
    await asyncio.sleep(0)

    clock.advance(2.0)
    gates[0].set()
    await observer.has_text.wait()
    clock.advance(0.5)
    gates[1].set()
    await reading

    assert (observer.first, observer.gaps) == ([2.0], [0.5])
    assert observer.usages == [(MATH, Usage(prompt_tokens=7, completion_tokens=2, cached_tokens=3))]
    assert answer.times.engine_seconds == 2.5
