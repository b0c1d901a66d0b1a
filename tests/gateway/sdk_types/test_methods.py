"""Every method that the two SDKs' clients have is answered, or is known not to be."""

from pathlib import Path

import httpx
import ollama
import pytest

from gateway.app import create_app
from tests.gateway.college import FakePool, client_of
from tests.gateway.sdk_types.driving import services
from tests.gateway.sdk_types.methods import HELPERS, NOT_OLLAMAS, NOT_OPENAIS, openais
from tests.gateway.sdk_types.tables import OLLAMA, OPENAI

pytestmark = pytest.mark.anyio


def test_openais_methods_are_named() -> None:
    """An upgrade that brings one, or takes one away, is noticed here."""
    named = {call.name for call in OPENAI} | set(NOT_OPENAIS) | set(HELPERS)

    assert openais(NOT_OPENAIS) - named == set()
    assert {call.name for call in OPENAI} | set(NOT_OPENAIS) <= openais(NOT_OPENAIS)


def test_ollamas_methods_are_named() -> None:
    """The same for Ollama's."""
    found = {name for name in dir(ollama.AsyncClient) if not name.startswith("_")}

    assert found - set(HELPERS) == {call.name for call in OLLAMA} | set(NOT_OLLAMAS)


async def test_what_is_not_answered_is_said_to_be_missing(tmp_path: Path) -> None:
    """A 404, or a 405 where the place has another use, in each one's own form; an unknown model is no exception."""
    async with client_of(create_app(services(tmp_path, FakePool()))) as client:
        for place in (*NOT_OPENAIS.values(), *NOT_OLLAMAS.values()):
            verb, _, path = place.partition(" ")
            response: httpx.Response = await client.request(verb, path, json={})

            assert response.status_code in (404, 405), place
            assert response.json()["error"], place
