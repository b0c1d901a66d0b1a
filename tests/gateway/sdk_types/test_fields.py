"""Every field that the two SDKs can send is in the tables, and is treated as they say."""

from collections.abc import Callable
from typing import Any

import ollama
import openai
import pytest

from tests.fakes import Script
from tests.gateway.sdk_types.driving import Stage, without_coe
from tests.gateway.sdk_types.fields import nullable, paths
from tests.gateway.sdk_types.table import Call, Row, Treatment
from tests.gateway.sdk_types.tables import CALLS, OPENAI

pytestmark = pytest.mark.anyio


Staging = Callable[[Call, Row], Stage]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for the module, as for an application."""
    return "asyncio"


@pytest.fixture(scope="module")
async def stage(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> Staging:
    """An application for each call and each choice of settings."""
    stages: dict[str, Stage] = {}

    def of(call: Call, row: Row) -> Stage:
        key = f"{call.route} {row.settings}"
        if key not in stages:
            stages[key] = Stage(tmp_path_factory.mktemp("stage"), **row.settings)
        return stages[key]

    return of


def rows(treatment: Treatment) -> list[Any]:
    return [
        pytest.param(call, row, id=f"{call.route}:{row.path}")
        for call in CALLS
        for row in call.rows
        if row.treatment is treatment
    ]


@pytest.mark.parametrize("call", CALLS, ids=[call.route for call in CALLS])
def test_the_tables_name_what_the_sdk_has(call: Call) -> None:
    """Every field and no other: an upgrade that brings one, or takes one away, is noticed here."""
    named = [row.path for row in call.rows]
    ends = {row.path for row in call.rows if row.ends_the_walk}

    assert sorted(set(named)) == sorted(named)
    assert paths(call.method, call.body, ends) - set(named) == set()
    assert set(named) - paths(call.method, call.body, ends) == set()


@pytest.mark.parametrize(("call", "row"), rows(Treatment.HONOURED))
async def test_what_is_honoured_can_be_seen(call: Call, row: Row, stage: Staging) -> None:
    """In what the engine is asked or in the answer; without the field it is not there."""
    assert row.proof is not None
    beside = {**call.base, **row.beside}
    without = await stage(call, row).play(call, beside, row.script)
    seen = await stage(call, row).play(call, {**beside, **row.sent}, row.script)

    assert row.proof(seen)
    assert not row.proof(without)


@pytest.mark.parametrize(("call", "row"), rows(Treatment.ACCEPTED))
async def test_what_has_no_effect_has_none(call: Call, row: Row, stage: Staging) -> None:
    """The engine is asked the same and the answer is the same, `coe` apart."""
    beside = {**call.base, **row.beside}
    without = await stage(call, row).play(call, beside, row.script)
    seen = await stage(call, row).play(call, {**beside, **row.sent}, row.script)

    assert row.note
    assert without.error is seen.error is None
    assert seen.requests == without.requests
    assert without_coe(seen.raw) == without_coe(without.raw)


@pytest.mark.parametrize(("call", "row"), rows(Treatment.REFUSED))
async def test_what_is_refused_is_named(call: Call, row: Row, stage: Staging) -> None:
    """A 400 in the SDK's own class, with the field; without the field the call is answered."""
    beside = {**call.base, **row.beside}
    without = await stage(call, row).play(call, beside, row.script)
    seen = await stage(call, row).play(call, {**beside, **row.sent}, row.script)

    assert without.error is None
    assert seen.requests == []
    if call.is_ollamas:
        assert isinstance(seen.error, ollama.ResponseError)
        assert seen.error.status_code == 400
        assert row.param in seen.error.error
    else:
        assert isinstance(seen.error, openai.BadRequestError)
        assert seen.error.param == row.param


@pytest.mark.parametrize("call", [call for call in OPENAI if call.body], ids=lambda call: call.route)
async def test_what_no_sdk_has_is_ignored(call: Call, stage: Staging) -> None:
    """As OpenAI's servers do."""
    on = stage(call, call.rows[0])
    without = await on.play(call, call.base, Script())
    seen = await on.play(call, {**call.base, "extra_body": {"brand_new": {"x": [1]}}}, Script())

    assert without.error is seen.error is None
    assert without_coe(seen.raw) == without_coe(without.raw)


@pytest.mark.parametrize("call", [call for call in OPENAI if call.body], ids=lambda call: call.route)
async def test_null_means_not_given(call: Call, stage: Staging) -> None:
    """For every field that may be null, all of them at once; a prompt is needed, whatever its type says."""
    on = stage(call, call.rows[0])
    nulls = dict.fromkeys(nullable(call.body) - {"prompt"})
    without = await on.play(call, call.base, Script())
    seen = await on.play(call, {**call.base, **nulls}, Script())

    assert without.error is seen.error is None
    assert seen.requests == without.requests
    assert without_coe(seen.raw) == without_coe(without.raw)
