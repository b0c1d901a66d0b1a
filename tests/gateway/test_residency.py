"""Loading, unloading and pinning by hand."""

import pytest

from specialists.pool.status import EngineReport
from tests.fakes import engine_report, spec_named
from tests.gateway.college import BROKEN, MATH, FakePool, client_for

pytestmark = pytest.mark.anyio

ENGINE = spec_named("coe-math")


def resident(*, is_pinned: bool = False) -> EngineReport:
    return engine_report(ENGINE, is_pinned=is_pinned)


async def test_each_does_what_it_says() -> None:
    """And answers with what the pool says afterwards."""
    pool = FakePool()
    async with client_for(pool) as client:
        absent = await client.post(f"/coe/specialists/{MATH}/unload")
        pool.resident = [resident(is_pinned=True)]
        loaded = await client.post(f"/coe/specialists/{MATH}/load")
        pinned = await client.post(f"/coe/specialists/{MATH}/pin")
        assert pool.pinned == {ENGINE}
        await client.post(f"/coe/specialists/{MATH}/pin", json={"pinned": False})

    assert absent.json() == {"specialist": MATH, "state": "absent", "pinned": False, "footprint_bytes": 0}
    assert loaded.json() == {"specialist": MATH, "state": "ready", "pinned": True, "footprint_bytes": 10}
    assert pinned.status_code == 200
    assert (pool.unloaded, pool.loaded, pool.pinned) == ([ENGINE], [ENGINE], set())


@pytest.mark.parametrize("what", ["load", "unload", "pin"])
async def test_it_needs_the_key_and_a_specialist(what: str) -> None:
    """401, 404 for one that is unknown and for `auto`, 503 for one that cannot be served, 405 for another method."""
    async with client_for(api_key="secret") as client:
        assert (await client.post(f"/coe/specialists/{MATH}/{what}")).status_code == 401
    async with client_for() as client:
        for tag in ("nobody", "auto", "../../etc"):
            assert (await client.post(f"/coe/specialists/{tag}/{what}")).status_code == 404
        broken = await client.post(f"/coe/specialists/{BROKEN}/{what}")
        assert (await client.get(f"/coe/specialists/{MATH}/{what}")).status_code == 405

    assert broken.status_code == (200 if what == "unload" else 503)


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"pinned": "yes"}', b'{"pinned": 1}'])
async def test_a_wrong_body_is_a_400(body: bytes) -> None:
    """And nothing is pinned."""
    pool = FakePool()
    async with client_for(pool) as client:
        response = await client.post(f"/coe/specialists/{MATH}/pin", content=body)

    assert response.status_code == 400
    assert pool.pinned == set()
