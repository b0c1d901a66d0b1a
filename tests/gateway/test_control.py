"""What the gateway says of itself and of its decisions, and how those are corrected."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.request import ConversationThread
from gateway.routing import SupervisorChooser
from gateway.services import Services
from gateway.supervision import build_supervisor
from specialists.request import Message
from supervisor.classifier import MODEL_DIRECTORY
from supervisor.transfer_fit import TransferTable
from supervisor.transfer_model import TransferModel
from tests.gateway.college import GENERAL, MATH, FakeCatalogue, FakePool, chat, client_of, manifest, services, settings

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
INTEGRAL = "What is the integral of x squared from 0 to 1?"
FALCONRY = "Which jesses suit a peregrine on its first flight to the lure?"


def made(**changes: Any) -> Services:
    """A gateway with the shipped classifier, unless the settings name another."""
    catalogue = FakeCatalogue()
    given = services(FakePool(), catalogue, **changes)
    chooser = SupervisorChooser(
        supervisor=build_supervisor(given.settings, default=GENERAL, transfer=TransferModel(TransferTable.load())),
        specialists=catalogue.specialists,
        resident=lambda: [each.engine for each in catalogue.specialists.values()],
        load_seconds=lambda spec: 0.0,
    )
    return replace(given, supervisor=chooser)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(made())) as client:
        yield client


def error_of(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


async def decided(client: httpx.AsyncClient, text: str) -> dict[str, Any]:
    answer: dict[str, Any] = (await client.post("/coe/classify", json={"text": text})).json()
    return answer


async def test_status_says_what_a_specialist_gets_otherwise_than_asked_for() -> None:
    """Notes of the catalogue are there by tag; specialists without any are not."""
    capped = replace(manifest(MATH), notes=("context 9000 is more than the 4096 tokens; lower context",))
    catalogue = FakeCatalogue(specialists={GENERAL: manifest(GENERAL), MATH: capped})
    async with client_of(create_app(services(FakePool(), catalogue))) as client:
        assert (await client.get("/coe/status")).json()["notes"] == {MATH: list(capped.notes)}


async def test_an_answer_names_its_decision(client: httpx.AsyncClient) -> None:
    """Header and body have the id under which /coe/decisions knows it; a named specialist needs no decision."""
    messages = [{"role": "user", "content": INTEGRAL}]
    auto = await client.post(CHAT, json=chat(messages=messages))
    named = await client.post(CHAT, json=chat(model=MATH))
    [entry] = (await client.get("/coe/decisions")).json()["decisions"]

    assert auto.headers["x-coe-specialist"] == MATH
    assert auto.headers["x-coe-decision"] == auto.json()["coe"]["decision_id"] == entry["decision_id"]
    assert "x-gateway-route" not in auto.headers
    assert "x-coe-decision" not in named.headers
    assert INTEGRAL not in str(entry)


async def test_without_a_classifier_auto_falls_back_and_says_so(tmp_path: Path) -> None:
    """The default specialist answers under its own name; who names a specialist notices nothing (F22)."""
    async with client_of(create_app(made(supervisor_model=tmp_path / "nowhere"))) as client:
        auto = await client.post(CHAT, json=chat())
        streamed = await client.post(CHAT, json=chat(stream=True))
        named = await client.post(CHAT, json=chat(model=MATH))
        taught = await client.post("/coe/feedback", json={"decision_id": "d", "domain": "law"})

    assert [each.status_code for each in (auto, streamed, named)] == [200] * 3
    assert [each.headers.get("x-gateway-route") for each in (auto, streamed, named)] == ["fallback", "fallback", None]
    assert [each.headers["x-coe-specialist"] for each in (auto, streamed, named)] == [GENERAL, GENERAL, MATH]
    assert error_of(taught) == (503, "no_classifier", None)


async def test_a_supervisor_that_breaks_costs_the_choice_alone() -> None:
    """Whatever goes wrong while deciding, the default answers, and the reply says that it was a fallback."""
    broken = made()
    assert broken.supervisor is not None

    def fail() -> Any:
        raise RuntimeError("the pool's status is out of order")

    chooser = replace(broken.supervisor, resident=fail)
    async with client_of(create_app(replace(broken, supervisor=chooser))) as client:
        response = await client.post(CHAT, json=chat())

    assert (response.status_code, response.headers["x-gateway-route"]) == (200, "fallback")


async def test_a_classification_says_why(client: httpx.AsyncClient) -> None:
    """The whole vector, nearest examples, cue words, runner-up, what was weighed, and the model's version."""
    said = await decided(client, INTEGRAL)

    assert (said["domain"], said["specialist"], said["abstained"]) == ("math", MATH, False)
    assert sum(entry["probability"] for entry in said["domains"]) == pytest.approx(1.0)
    assert len(said["evidence"]["nearest"]) == 3
    assert said["evidence"]["cue_words"]
    assert said["evidence"]["runner_up"][0] != "math"
    assert "math" in said["conformal_set"]
    assert said["candidates"][0]["tag"] == MATH
    assert all(said[name] for name in ("reason", "classifier_reason", "model_version", "decision_id"))


@pytest.mark.parametrize(
    ("named", "stays"),
    [
        ({"user": "ann"}, True),
        ({"metadata": {"conversation_id": "c1"}}, True),
        ({"metadata": {"chat_id": 7}}, True),
        ({"metadata": {"colour": "red"}}, False),
        ({}, False),
    ],
)
async def test_a_named_conversation_goes_on_where_it_was(
    client: httpx.AsyncClient, named: dict[str, Any], stays: bool
) -> None:
    """A client that sends no history but names its user or conversation keeps its specialist for a bare follow-up."""
    for text in (INTEGRAL, "why?"):
        messages = [{"role": "user", "content": text}]
        response = await client.post(CHAT, json=chat(messages=messages, **named))

    assert (response.headers["x-coe-specialist"] == MATH) is stays


@pytest.mark.parametrize(
    ("named", "param"),
    [
        ({"user": 5}, "user"),
        ({"user": "x" * 513}, "user"),
        ({"metadata": "c1"}, "metadata"),
        ({"metadata": {"conversation_id": "x" * 513}}, "metadata"),
        ({"metadata": {"conversation_id": 10**600}}, "metadata"),
    ],
)
async def test_names_are_bounded(client: httpx.AsyncClient, named: dict[str, Any], param: str) -> None:
    """Wrong types and endless names are refused by field."""
    response = await client.post(CHAT, json=chat(**named))

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_threads_are_told_apart() -> None:
    """Two users who ask the same bare question are two conversations."""
    chooser = made().supervisor
    assert chooser is not None
    ann, bob = ConversationThread(user="ann"), ConversationThread(user="bob")
    await chooser.decide([Message("user", INTEGRAL)], ann)

    assert (await chooser.decide([Message("user", "why?")], ann)).tag == MATH
    assert (await chooser.decide([Message("user", "why?")], bob)).tag == GENERAL


async def test_a_correction_goes_live_once_it_is_checked_and_promoted(client: httpx.AsyncClient) -> None:
    """Told, it changes nothing; checked, it gains and loses nothing; promoted, it answers; reverted, it does not."""
    before = await decided(client, FALCONRY)
    told = await client.post("/coe/feedback", json={"decision_id": before["decision_id"], "domain": "math"})
    untouched = await decided(client, f"{FALCONRY} Please.")
    checked = (await client.post("/coe/feedback/check")).json()["comparison"]
    promoted = await client.post("/coe/feedback/promote")
    after = await decided(client, f"Hello! {FALCONRY}")
    reverted = await client.post("/coe/feedback/revert")

    assert (told.status_code, told.json()["num_lessons"]) == (200, 1)
    assert untouched["domain"] == before["domain"] != "math"
    assert (checked["num_lost"], checked["num_items"] > 100) == (0, True)
    assert (promoted.status_code, promoted.json()["num_promotions"], after["domain"]) == (200, 1, "math")
    assert after["model_version"] == f"{before['model_version']}+1lessons"
    assert reverted.status_code == 200
    assert (await decided(client, f"Thanks! {FALCONRY}"))["model_version"] == before["model_version"]


async def test_what_feedback_cannot_do_is_refused_by_name(client: httpx.AsyncClient) -> None:
    """Unknown decisions and domains, nothing learnt, nothing to take back, and bodies beyond bounds."""
    lesson = {"decision_id": "d1", "domain": "law", "text": "What is a tort?"}

    async def give(**changes: Any) -> tuple[int, str, str | None]:
        return error_of(await client.post("/coe/feedback", json=lesson | changes))

    assert await give(text=None) == (404, "decision_not_found", "decision_id")
    assert await give(domain="cooking") == (400, "invalid_value", "domain")
    assert await give(text="x" * 20_000) == (400, "invalid_value", "text")
    assert await give(decision_id=5) == (400, "invalid_type", "decision_id")
    for action in ("promote", "revert"):
        refused = await client.post(f"/coe/feedback/{action}")
        assert error_of(refused) == (409, "feedback_refused", None)
        assert refused.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "path", ["feedback", "feedback/check", "feedback/promote", "feedback/discard", "feedback/revert"]
)
async def test_teaching_needs_the_key(path: str) -> None:
    """Where there is a key, nobody corrects anything without it; the metrics know the route by its whole name."""
    guarded = made(api_key="secret")
    async with client_of(create_app(guarded)) as client:
        assert (await client.post(f"/coe/{path}", json={})).status_code == 401
        assert (await client.get("/coe/shadow")).status_code == 401

    assert f'route="/coe/{path}",specialist="",status="401"'.encode() in guarded.metrics.render()


async def test_discarded_lessons_are_gone(client: httpx.AsyncClient) -> None:
    """The count says so."""
    lesson = {"decision_id": "d1", "domain": "law", "text": "What is a tort?"}
    given = (await client.post("/coe/feedback", json=lesson)).json()["num_lessons"]
    await client.post("/coe/feedback/discard")

    assert (given, (await client.get("/coe/feedback")).json()["num_lessons"]) == (1, 0)


async def test_a_shadow_model_is_compared_in_silence() -> None:
    """Its agreement is told; without one there is nothing to tell."""
    async with client_of(create_app(made(shadow_model=MODEL_DIRECTORY))) as client:
        await decided(client, INTEGRAL)
        async with asyncio.timeout(30):  # it compares in a thread of its own
            while not (report := (await client.get("/coe/shadow")).json()["shadow"])["num_compared"]:
                pass
    async with client_of(create_app(made())) as client:
        nothing = (await client.get("/coe/shadow")).json()

    assert (report["num_compared"], report["agreement"]) == (1, 1.0)
    assert nothing == {"shadow": None}


async def test_a_shadow_model_that_cannot_be_loaded_is_no_shadow(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the setting, and everything else works."""
    async with client_of(create_app(made(shadow_model=tmp_path))) as client:
        assert (await client.get("/coe/shadow")).json() == {"shadow": None}
        assert (await decided(client, INTEGRAL))["domain"] == "math"

    assert "COE_SHADOW_MODEL" in caplog.text


async def test_words_are_kept_only_where_allowed() -> None:
    """`keep_questions` puts the question into the log of decisions."""
    async with client_of(create_app(made(keep_questions=True))) as client:
        await decided(client, INTEGRAL)
        [entry] = (await client.get("/coe/decisions")).json()["decisions"]

    assert entry["text"] == INTEGRAL


def test_paths_may_be_set_to_nothing() -> None:
    """`COE_SHADOW_MODEL=` in an env file is no path."""
    assert settings(shadow_model="", supervisor_model="").shadow_model is None
