"""Over HTTP: what was looked up is in the prompt and named in the answer, and never costs the conversation its room."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.app import create_app
from gateway.knowledge.indexing import prepare_store, update
from gateway.knowledge.librarian import Librarian, index_path
from gateway.knowledge.store import open_store
from gateway.services import Services
from specialists.errors import ContextOverflow
from specialists.manifest import KnowledgeRules
from specialists.request import ChatPrompt, GenerationRequest
from tests.fakes import Script
from tests.gateway.college import GENERAL, MATH, FakeCatalogue, FakePool, chat, client_of, manifest, services
from tests.gateway.knowledge.words_encoder import WordsEncoder, count_words

pytestmark = pytest.mark.anyio

CATALOGUE = FakeCatalogue(
    specialists={GENERAL: manifest(GENERAL), MATH: manifest(MATH, knowledge=KnowledgeRules(index=MATH))}
)


def prompt_of(request: GenerationRequest) -> str:
    assert isinstance(request.prompt, ChatPrompt)
    return request.prompt.messages[-1].content


def served(pool: FakePool, folder: Path, *, with_index: bool = True) -> Services:
    if with_index:
        (folder / "notes").mkdir()
        (folder / "notes" / "carnot.txt").write_text("A Carnot engine takes heat from a hot reservoir.")
        path, encoder = index_path(folder, MATH), WordsEncoder()
        prepare_store(path, encoder=encoder, name="words")
        with open_store(path) as store:
            update(store, folder / "notes", encoder=encoder, count_tokens=count_words)
    made = services(pool, CATALOGUE)
    librarian = Librarian(folder=folder, observer=made.metrics, open_encoder=lambda name: WordsEncoder())
    return replace(made, librarian=librarian)


async def answer(made: Services, **fields: Any) -> dict[str, Any]:
    asked = chat(**({"model": MATH, "messages": [{"role": "user", "content": "Carnot engine heat?"}]} | fields))
    async with client_of(create_app(made)) as client:
        response = await client.post("/v1/chat/completions", json=asked)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()["coe"]
    return found


async def test_sources_are_in_the_prompt_and_in_the_answer(tmp_path: Path) -> None:
    """With the time it took, and counted."""
    pool = FakePool()
    made = served(pool, tmp_path)
    found = (await answer(made))["knowledge"]

    assert prompt_of(pool.submitted[0]).startswith("<context>\n[1] notes/carnot.txt, line 1:\nA Carnot engine")
    assert prompt_of(pool.submitted[0]).endswith("\n\nCarnot engine heat?")
    (source,) = found["sources"]
    assert (source["source"], source["position"], source["score"]) == ("notes/carnot.txt", "line 1", 1.0)
    assert found["warning"] is None
    assert found["ms"] >= 0
    assert b'coe_lookup_seconds_count{outcome="found",specialist="coe-math:q4"} 1.0' in made.metrics.render()


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"coe": {"knowledge": False}}, {"state": "off", "sources": []}), ({"model": GENERAL}, None)],
)
async def test_nothing_is_looked_up_unasked(tmp_path: Path, fields: dict[str, Any], said: object) -> None:
    """Where the client declines, or the specialist has no documents."""
    pool = FakePool()
    found = await answer(served(pool, tmp_path), **fields)

    assert found["knowledge"] == said
    assert prompt_of(pool.submitted[0]) == "Carnot engine heat?"


async def test_a_missing_index_is_said(tmp_path: Path) -> None:
    """And the answer comes all the same."""
    found = (await answer(served(FakePool(), tmp_path, with_index=False)))["knowledge"]

    assert found["sources"] == []
    assert f"coe knowledge add DIR --specialist {MATH}" in found["warning"]


async def test_a_prompt_that_is_too_long_with_its_context_goes_without(tmp_path: Path) -> None:
    """The estimate was wrong; the conversation is answered alone, and the warning says so."""

    def small(request: GenerationRequest) -> Script:
        is_long = "<context>" in prompt_of(request)
        return Script(error=ContextOverflow.of(prompt_tokens=9, context_tokens=8)) if is_long else Script()

    pool = FakePool(small)
    found = (await answer(served(pool, tmp_path)))["knowledge"]

    assert [("<context>" in prompt_of(request)) for request in pool.submitted] == [True, False]
    assert found["sources"] == []
    assert "no room" in found["warning"]
