"""What clients are told of loops: in whole answers, in the last chunk of a stream, and under /coe."""

from typing import Any

import pytest

from specialists.request import LoopGuardMode, LoopReport
from tests.fakes import Script
from tests.gateway import sse
from tests.gateway.college import MATH, FakePool, chat, client_for

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
RESCUED = LoopReport(hits=2, rewinds=2, rung="paragraph", onset=17, tokens_discarded=60, tokens_resampled=192)


async def loop_of(pool: FakePool, **fields: Any) -> dict[str, Any]:
    async with client_for(pool) as client:
        response = await client.post(CHAT, json=chat(model=MATH, **fields))
    last = sse.chunks(response.text)[-2] if fields.get("stream") else response.json()
    said: dict[str, Any] = last["coe"]["loop"]
    return said


@pytest.mark.parametrize("stream", [False, True])
async def test_a_rescue_is_told_with_all_that_differs_from_the_usual_sampling(stream: bool) -> None:
    """Whole or streamed: hits, highest rung, onset, and how many tokens were thrown away or drawn otherwise."""
    assert await loop_of(FakePool(Script(loop=RESCUED)), stream=stream) == {
        "guard": "rescue",
        "hits": 2,
        "rewinds": 2,
        "rung": "paragraph",
        "onset": 17,
        "tokens_discarded": 60,
        "tokens_resampled": 192,
    }


async def test_several_choices_are_told_as_one_sum_and_the_worst_of_them() -> None:
    """Counts add up; rung and onset are of the choice that was hardest to rescue."""
    reports = {"0": LoopReport(first_token_redrawn=True), "1": RESCUED, "2": LoopReport(hits=1, rung="end", onset=3)}
    pool = FakePool(lambda request: Script(loop=reports[request.id[-1]]))

    said = await loop_of(pool, n=3)

    assert (said["hits"], said["rung"], said["onset"], said["tokens_discarded"]) == (3, "end", 3, 60)
    assert said["first_tokens_redrawn"] == 1


async def test_without_a_guard_there_is_nothing_to_tell() -> None:
    """`loop` is null, and the engine was told to let the answer be."""
    pool = FakePool()

    assert await loop_of(pool, coe={"loop_guard": "off"}) is None
    assert pool.submitted[0].loop_guard.mode is LoopGuardMode.OFF


@pytest.mark.parametrize("coe", ["off", {"loop_guard": "maybe"}, {"loop_guard": 1}])
async def test_an_unknown_mode_is_refused_by_name(coe: object) -> None:
    """A typo does not silently leave the guard as it was."""
    async with client_for() as client:
        response = await client.post(CHAT, json=chat(coe=coe))

    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("coe")


async def test_the_engine_knows_whether_anybody_watches() -> None:
    """Only a streamed answer must not be taken back to where it has been read."""
    pool = FakePool()
    async with client_for(pool) as client:
        for stream in (False, True):
            await client.post(CHAT, json=chat(stream=stream))

    assert [request.is_streamed for request in pool.submitted] == [False, True]


async def test_loops_are_listed_beside_the_college() -> None:
    """Rates by specialist and domain in the status."""
    async with client_for(FakePool(Script(loop=RESCUED), Script(loop=LoopReport()))) as client:
        for _ in range(2):
            await client.post(CHAT, json=chat(model=MATH))
        status = (await client.get("/coe/status")).json()

    assert status["loops"] == [
        {"specialist": MATH, "domain": "math", "answers": 2, "looped": 1, "ended": 0, "loop_rate": 0.5}
    ]
