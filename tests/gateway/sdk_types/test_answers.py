"""Whatever is answered, the two SDKs' own types know every field of it, with its type."""

from collections.abc import Awaitable, Callable, Mapping

import pytest
from openai.types.responses import ResponseStreamEvent

from tests.gateway.sdk_types.answers import CASES, EVENTS, NULLS, OLLAMAS_OWN, OPENAIS_OWN, Case
from tests.gateway.sdk_types.driving import Stage
from tests.gateway.sdk_types.strict import Reading, parts, read

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for the module, as for an application."""
    return "asyncio"


@pytest.fixture(scope="module")
async def stage(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("stage"))


Readings = Callable[[Case], Awaitable[list[Reading]]]


@pytest.fixture(scope="module")
def readings(stage: Stage) -> Readings:
    """All that was said in one case, read once."""
    known: dict[str, list[Reading]] = {}

    async def of(case: Case) -> list[Reading]:
        key = f"{case.call.route} {case.name}"
        if key not in known:
            seen = await stage.play(case.call, {**case.call.base, **case.sent}, case.script)
            assert seen.error is None
            assert isinstance(seen.answer, list) == bool(case.sent.get("stream"))
            assert seen.raw.count(case.shows) >= case.times
            known[key] = [read(case.kind, part) for part in parts(seen.raw)]
        return known[key]

    return of


@pytest.mark.parametrize("case", CASES, ids=[f"{case.call.route}:{case.name}" for case in CASES])
async def test_answers_are_of_the_sdks_types(readings: Readings, case: Case) -> None:
    """Nothing is missing or of another type but the nulls that are stated, nothing is beyond them but our own."""
    found = await readings(case)

    assert found
    assert {path for each in found for path in each.complaints} == case.nulls
    assert {path for each in found for path in each.unknown} - set(case.own) == set()


@pytest.mark.parametrize("own", [OPENAIS_OWN, OLLAMAS_OWN], ids=["openai", "ollama"])
async def test_our_own_fields_are_real(readings: Readings, own: Mapping[str, str]) -> None:
    """Each that is stated is in some answer; so is each null."""
    found = [each for case in CASES if case.own is own for each in await readings(case)]

    assert set(own) - {path for each in found for path in each.unknown} == set()
    assert {path for each in found for path in each.complaints} == (set(NULLS) if own is OPENAIS_OWN else set())


async def test_every_event_is_of_the_sdks_types(readings: Readings) -> None:
    """All events that are emitted are stated and were read; `response.failed` is read where errors are tested."""
    streamed = [case for case in CASES if case.kind is ResponseStreamEvent]
    found = {each.event for case in streamed for each in await readings(case)}

    assert found == set(EVENTS) - {"response.failed"}
