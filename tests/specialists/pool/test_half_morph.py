"""A real engine that is killed in the middle of a morph: the frame is rebuilt, and never served half-written."""

import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from specialists.engine.client import EngineClient
from specialists.engine.protocol import Engine, EngineSpec
from specialists.pool.pool import PoolSettings, SpecialistPool
from specialists.pool.room import Room
from specialists.request import SamplingParams, TokenPrompt, Tokens
from tests.fakes import RecordingObserver
from tests.specialists.engine.conftest import text_request
from tests.specialists.engine.frames import tokens
from tests.specialists.pool.house import manifest, real_family

pytestmark = pytest.mark.anyio

SAMPLING = SamplingParams(temperature=10.0, top_k=64, top_p=1.0, seed=11)
HALF = (sys.executable, "-m", "tests.specialists.pool.half_morph")


@pytest.fixture
def spec(tmp_path: Path) -> EngineSpec:
    return real_family(tmp_path)


class House:
    """A pool of real engines, the first `num_half` of which die in their first morph."""

    def __init__(self, num_half: int) -> None:
        self.engines: list[EngineClient] = []
        self.observer = RecordingObserver()
        self.num_half = num_half
        self.pool = SpecialistPool(
            budget=Room(10),
            room=lambda spec: Room(10),
            engine_factory=self.make,
            observer=self.observer,
            settings=PoolSettings(min_residency_seconds=0.0),
        )

    def make(self, spec: EngineSpec) -> Engine:
        is_half = len(self.engines) < self.num_half
        self.engines.append(EngineClient(spec, command=HALF) if is_half else EngineClient(spec))
        return self.engines[-1]

    async def drawn(self, spec: EngineSpec, name: str) -> list[int]:
        """The tokens of an answer; they tell even random specialists apart."""
        asked = replace(
            text_request(name, TokenPrompt(tuple(tokens(60, seed=0))), sampling=SAMPLING, logprobs=0), specialist=name
        )
        async with self.pool.acquire(manifest(spec, tag=name)) as lease:
            events = [event async for event in lease.engine.generate(asked)]
        return [each.token for event in events if isinstance(event, Tokens) for each in event.logprobs]


async def test_a_process_killed_in_mid_morph_is_rebuilt_and_never_served_half_written(spec: EngineSpec) -> None:
    """Whoever waited for the morph gets the answer that an engine loaded as its specialist gives, bit for bit."""
    sound, house = House(0), House(1)
    try:
        expected = {name: await sound.drawn(spec, name) for name in ("math", "law")}
        assert await house.drawn(spec, "math") == expected["math"]
        assert await house.drawn(spec, "law") == expected["law"]

        assert len(house.engines) == 2
        assert house.observer.crashes == [spec]
        assert house.observer.morphs == []
        assert await house.drawn(spec, "math") == expected["math"]
        assert house.observer.morphs == [(spec, "math")]
        [report] = (await house.pool.check_frames(num_slots=100, seed=1)).values()
        assert (report.serving, report.is_sound, report.num_slots) == ("math", True, 32)
    finally:
        await sound.pool.close()
        await house.pool.close()
