"""Operators see every request once, by name, and reading the metrics disturbs nobody."""

import json
import logging
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.app import create_app
from gateway.observability import LineFormatter, Metrics
from specialists.engine.protocol import EngineSpec
from specialists.errors import UnknownSpecialist
from specialists.manifest import SpecialistManifest
from specialists.request import LoopReport
from tests.fakes import Script
from tests.gateway.college import GENERAL, MATH, FakeCatalogue, FakePool, chat, client_for, client_of, services

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


def samples(text: str) -> dict[str, float]:
    """Every sample as `name{labels}`, but for the creation times."""
    return {
        f"{sample.name}{json.dumps(sample.labels, sort_keys=True)}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


async def test_requests_and_tokens_are_counted() -> None:
    """By route template, status and specialist; tokens by kind."""
    async with client_for(FakePool(Script(pieces=("a", "b"), cached_tokens=3))) as client:
        await client.post(CHAT, json=chat(model=MATH))
        await client.post(CHAT, json=chat(model=MATH, max_tokens=0))
        found = samples((await client.get("/metrics")).text)

    labels = {"route": CHAT, "specialist": MATH, "status": "200"}
    assert found[f"coe_requests_total{json.dumps(labels, sort_keys=True)}"] == 1
    assert found[f"coe_requests_total{json.dumps(labels | {'status': '400', 'specialist': ''}, sort_keys=True)}"] == 1
    for kind, count in {"prompt": 7, "cached": 3, "completion": 2}.items():
        assert found[f"coe_tokens_total{json.dumps({'kind': kind, 'specialist': MATH}, sort_keys=True)}"] == count
    assert found[f"coe_time_to_first_token_seconds_count{json.dumps({'specialist': MATH})}"] == 1
    assert found[f"coe_inter_token_seconds_count{json.dumps({'specialist': MATH})}"] == 1


async def test_loops_are_counted_by_specialist_and_domain() -> None:
    """Hits, rewinds and tokens thrown away, and what came of each answer that was watched."""
    report = LoopReport(hits=3, rewinds=2, rung="end", onset=5, tokens_discarded=40, first_token_redrawn=True)
    async with client_for(FakePool(Script(loop=report), Script(loop=LoopReport()))) as client:
        for _ in range(2):
            await client.post(CHAT, json=chat(model=MATH))
        found = samples((await client.get("/metrics")).text)

    labels = {"domain": "math", "specialist": MATH}
    expected = {"loop_hits": 3, "rewinds": 2, "discarded_tokens": 40, "redrawn_first_tokens": 1}
    for name, count in expected.items():
        assert found[f"coe_{name}_total{json.dumps(labels)}"] == count
    for outcome in ("clean", "ended"):
        key = json.dumps(labels | {"outcome": outcome}, sort_keys=True)
        assert found[f"coe_guarded_answers_total{key}"] == 1


async def test_clients_cannot_make_the_metrics_grow() -> None:
    """Invented paths, models and methods share the labels that exist."""
    async with client_for() as client:

        async def visit(number: int) -> int:
            await client.get(f"/nowhere/{number}")
            await client.get(f"/v1/models/{number}")
            await client.post(CHAT, json=chat(model=f"invented-{number}"))
            return len(samples((await client.get("/metrics")).text))

        await visit(0)
        first = await visit(1)
        sizes = {await visit(number) for number in range(2, 20)}

    assert sizes == {first}


async def test_reading_metrics_and_status_wakes_nothing() -> None:
    """No lease is asked for."""
    pool = FakePool()
    async with client_for(pool) as client:
        for path in ("/metrics", "/coe/status", "/healthz", "/readyz", "/v1/models"):
            assert (await client.get(path)).status_code == 200

    assert not pool.asked.is_set()


async def test_two_apps_count_apart() -> None:
    """Each has a registry of its own."""
    async with client_for() as one, client_for() as other:
        await one.post(CHAT, json=chat())
        found = samples((await other.get("/metrics")).text)

    assert [name for name in found if name.startswith("coe_requests_total") and CHAT in name] == []


def test_the_pools_story_is_counted() -> None:
    """Loads, waits, crashes and memory have their metrics."""
    metrics = Metrics([GENERAL])
    spec = EngineSpec(model_path=Path("a.gguf"), context_tokens=1)
    metrics.load_finished(spec, seconds=2.0, outcome="ok")
    metrics.unloaded(spec, reason="evicted")
    metrics.crashed(spec)
    metrics.waited(seconds=0.1)
    metrics.watch_memory(lambda: 16e9, lambda: 5e9)
    metrics.watch_footprints(lambda: {GENERAL: 4e9, "made": 1e9, "pulled": 2e9})
    found = samples(metrics.render().decode())

    assert found[f"coe_footprint_bytes{json.dumps({'specialist': GENERAL})}"] == 4e9
    assert found['coe_footprint_bytes{"specialist": "(made while serving)"}'] == 3e9
    assert found['coe_loads_total{"outcome": "ok"}'] == 1
    assert found["coe_load_seconds_sum{}"] == 2.0
    assert found["coe_engine_crashes_total{}"] == 1
    assert found["coe_queue_wait_seconds_count{}"] == 1
    assert (found["coe_budget_bytes{}"], found["coe_resident_bytes{}"]) == (16e9, 5e9)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1.2:3_4", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("ä", False), ("", False)],
)
async def test_a_sane_request_id_is_kept_and_another_replaced(given: str, kept: bool) -> None:
    """What goes into logs and headers has a shape we know."""
    async with client_for() as client:
        response = await client.get("/healthz", headers={b"x-request-id": given.encode()})

    assert (response.headers["x-request-id"] == given) == kept
    assert response.headers["x-request-id"]


async def test_one_access_line_tells_the_request(caplog: pytest.LogCaptureFixture) -> None:
    """Who, what, how long, by which specialist, and how it ended."""
    with caplog.at_level(logging.INFO, logger="gateway.access"):
        async with client_for() as client:
            response = await client.post(CHAT, json=chat(max_tokens=0))

    (record,) = (record for record in caplog.records if record.name == "gateway.access")
    line = json.loads(LineFormatter(as_json=True).format(record))
    assert line["request_id"] == response.headers["x-request-id"]
    assert (line["route"], line["status"], line["outcome"]) == (CHAT, 400, "invalid_value")
    plain = LineFormatter(as_json=False).format(record)
    assert f"POST {CHAT} 400 request_id={line['request_id']}" in plain
    assert "outcome=invalid_value" in plain


class ForgetfulCatalogue(FakeCatalogue):
    """Fails in a way nobody foresaw."""

    def resolve(self, model: str) -> SpecialistManifest:
        if model == "bug":
            raise RuntimeError("/secret/path")
        raise UnknownSpecialist("no")


async def test_what_nobody_expected_is_a_500_with_the_details_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets an id to ask about; the stack stays here."""
    app = create_app(services(FakePool(), ForgetfulCatalogue()))
    async with client_of(app) as client:
        response = await client.post(CHAT, json=chat(model="bug"))

    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert response.headers["x-request-id"] in response.json()["error"]["message"]
    assert "secret" not in response.text
    assert "/secret/path" in caplog.text
