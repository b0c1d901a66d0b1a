"""A real engine process that is each specialist of a pico family in turn."""

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from specialists.engine.client import EngineClient
from specialists.engine.protocol import EngineInfo, EngineSpec, FamilyMember
from specialists.errors import MorphFailed, RequestRejected, SpecialistUnavailable, WorkerTimeout
from specialists.expert_mask import ExpertMask, write_mask
from specialists.family import read_masked_family
from specialists.gguf_file import read_header
from specialists.moe_layout import layout
from specialists.request import Finished, GenerationRequest, SamplingParams, Started, TokenPrompt, Tokens
from specialists.tensor_digests import digest_tensors, write_table
from tests.pico import PicoShape, write_pico_gemma
from tests.specialists.engine.conftest import text_request
from tests.specialists.engine.frames import tokens, written

pytestmark = pytest.mark.anyio

SHAPE = PicoShape(sliding=(True, False), experts=24, experts_used=4, scale_spread=0.3)
SAMPLING = SamplingParams(temperature=10.0, top_k=64, top_p=1.0, seed=11)


@pytest.fixture
def spec(tmp_path: Path) -> EngineSpec:
    """Two specialists that share 14 of their 16 experts in both layers."""
    write_pico_gemma(tmp_path / "parent.gguf", SHAPE)
    for name, first in (("math", 0), ("law", 2)):
        kept = tuple(range(first, first + 16))
        write_mask(ExpertMask(kept={0: kept, 1: kept}, num_experts=24), tmp_path / f"{name}.mask.json")
    members = tuple(FamilyMember(name, mask_path=tmp_path / f"{name}.mask.json") for name in ("math", "law"))
    return EngineSpec(
        model_path=tmp_path / "parent.gguf", context_tokens=512, parallel=2, gpu_layers=0, threads=1, family=members
    )


@asynccontextmanager
async def running(
    spec: EngineSpec, serving: str = "", *, silence_seconds: float = 30.0
) -> AsyncIterator[tuple[EngineClient, EngineInfo]]:
    client = EngineClient(spec, silence_seconds=silence_seconds)
    try:
        yield client, await client.load(lambda _share: None, serving=serving)
    finally:
        await client.close()


def request(specialist: str, *, id: str = "a", seed: int = 0) -> GenerationRequest:
    prompt = TokenPrompt(tuple(tokens(60, seed=seed)))
    return replace(text_request(id, prompt, sampling=SAMPLING, logprobs=0), specialist=specialist)


async def drawn(client: EngineClient, request: GenerationRequest) -> list[int]:
    events = [event async for event in client.generate(request)]
    assert isinstance(events[-1], Finished)
    return [each.token for event in events if isinstance(event, Tokens) for each in event.logprobs]


async def test_one_engine_is_each_of_its_family(spec: EngineSpec) -> None:
    """After a morph it answers as an engine that was loaded as that specialist; two experts a layer were moved."""
    async with running(spec, "law") as (client, info):
        assert (info.serving, info.why_fixed) == ("law", None)
        law = await drawn(client, request("law"))
        report = await client.morph("math")
        math = await drawn(client, request("math"))
        assert await client.morph("law") is not None
        assert await drawn(client, request("law")) == law
    async with running(spec) as (client, info):
        assert info.serving == "math"
        assert await drawn(client, request("math")) == math

    expert_bytes = 4 * (3 * SHAPE.width * SHAPE.expert_width + SHAPE.width + 1)
    assert (report.num_writes, report.num_bytes) == (4, 4 * expert_bytes)
    assert math != law


async def test_files_with_kept_digests_are_served_by_one_engine(spec: EngineSpec, tmp_path: Path) -> None:
    """A family of files of their own: loaded as one of them, morphed into the other, and sound."""
    family = read_masked_family(spec.model_path, {each.name: each.mask_path for each in spec.family if each.mask_path})
    members = []
    for name in family.members:
        path = written(family.plan(name), tmp_path / f"{name}.gguf")
        write_table(digest_tensors(layout(read_header(path))), path)
        members.append(FamilyMember(name, model_path=path))
    async with running(spec, "law") as (client, _):
        law = await drawn(client, request("law"))
    async with running(dataclasses.replace(spec, family=tuple(members))) as (client, _):
        assert (await client.morph("law")).num_writes == 4
        assert await drawn(client, request("law")) == law
        assert (await client.check_frame(num_slots=32, seed=0)).is_sound


async def test_a_waiting_request_is_no_sign_of_a_hung_engine(spec: EngineSpec) -> None:
    """For longer than the silence it would be killed for, an engine that serves somebody else says that it lives."""
    async with running(spec, silence_seconds=0.8) as (client, _):
        law = asyncio.create_task(drawn(client, request("law")))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(law), timeout=1.6)
        assert client.status().waiting == 1
        client.read_ahead("law")
        await client.morph("law")
        assert await law


async def test_an_answer_is_suspended_by_a_morph_and_goes_on_after_the_next(spec: EngineSpec) -> None:
    """Its stream stays open all the while."""
    async with running(spec) as (client, _):
        long = replace(request("math", id="long"), max_tokens=300)
        stream = aiter(client.generate(long))
        assert isinstance(await anext(stream), Started)
        await client.morph("law")
        assert await drawn(client, request("law"))
        await client.morph("math")
        assert isinstance([event async for event in stream][-1], Finished)


async def test_a_parent_that_was_written_to_fails_the_morph(spec: EngineSpec) -> None:
    """MorphFailed names the file; the pool then loads anew, and that load works."""
    async with running(spec) as (client, _):
        os.utime(spec.model_path, ns=(1, 1))
        with pytest.raises(MorphFailed, match=r"parent\.gguf was changed"):
            await client.morph("law")
    async with running(spec, "law") as (client, _):
        assert await drawn(client, request("law"))


async def test_a_morph_into_a_stranger_fails(spec: EngineSpec, pico_path: Path) -> None:
    """Nobody outside the family can be served, by a frame or by an engine without one."""
    async with running(spec) as (client, _):
        with pytest.raises(MorphFailed):
            await client.morph("physics")
        with pytest.raises(RequestRejected):
            await drawn(client, request("physics"))
    plain = EngineSpec(model_path=pico_path, context_tokens=512, parallel=1, gpu_layers=0, threads=1)
    async with running(plain) as (client, _):
        with pytest.raises(MorphFailed):
            await client.morph("math")
        with pytest.raises(SpecialistUnavailable, match="no frame"):
            await client.check_frame(num_slots=1, seed=0)
        assert await drawn(client, request("whatever it is called"))


async def test_a_hung_engine_fails_the_morph(spec: EngineSpec) -> None:
    """A process that was stopped is noticed by its silence although nobody is generating."""
    async with running(spec, silence_seconds=1.0) as (client, info):
        os.kill(info.pid, signal.SIGSTOP)
        with pytest.raises(WorkerTimeout):
            await client.morph("law")
        await client.wait_lost()


async def test_questions_are_answered_in_order(spec: EngineSpec) -> None:
    """Also when whoever asked first has left; a frame is sound before and after."""
    async with running(spec) as (client, _):
        left = asyncio.create_task(client.morph("law"))
        await asyncio.sleep(0)
        left.cancel()
        report, checked = await asyncio.gather(client.morph("math"), client.check_frame(num_slots=100, seed=1))
        assert report.num_writes == 4
        assert (checked.serving, checked.is_sound, checked.num_slots) == ("math", True, 32)


async def test_a_mask_for_another_parent_fails_the_load(spec: EngineSpec, tmp_path: Path) -> None:
    """The reason names the specialist and the mask; no engine is left behind."""
    kept = (0, 1)
    other = ExpertMask(kept={0: kept, 1: kept}, num_experts=24, parent="sampled-sha256:0")
    write_mask(other, tmp_path / "law.mask.json")
    with pytest.raises(SpecialistUnavailable, match=r"math cannot be loaded as one of its family: law\.mask\.json"):
        async with running(spec):
            pass
