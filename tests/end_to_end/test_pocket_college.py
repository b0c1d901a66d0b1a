"""The pocket college as it lies in the repository: one file and twelve masks, told apart by the supervisor."""

from collections.abc import Iterator

import httpx
import pytest

from specialists.catalogue import load_catalogue
from tests.end_to_end.conftest import REPOSITORY, Gateway, serve

COLLEGE = REPOSITORY / "colleges" / "pocket.toml"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with serve(COLLEGE, tmp_path_factory.mktemp("home")) as running:
        yield running


def ask(gateway: Gateway, text: str) -> httpx.Response:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 12, "seed": 1}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60).raise_for_status()


def test_everyone_is_there() -> None:
    """Twelve specialists of one parent share one engine."""
    college = load_catalogue(COLLEGE)

    assert [each.unavailable for each in college.specialists.values()] == [None] * 12
    assert len({each.engine for each in college.specialists.values()}) == 1


def test_questions_go_to_their_specialists_and_the_frame_morphs(gateway: Gateway) -> None:
    """Another domain costs a morph of some experts, the same one nothing; nothing is loaded a second time."""
    asked = [
        ask(gateway, "The derivative of the function f(x) = x^2 is"),
        ask(gateway, "In a divorce, the court divides the property of the spouses"),
        ask(gateway, "The derivative of the function f(x) = x^3 is"),
    ]

    tags = [answer.headers["x-coe-specialist"] for answer in asked]
    assert tags == ["pocket-math:q8", "pocket-law:q8", "pocket-math:q8"]
    assert all(answer.json()["choices"][0]["message"]["content"] for answer in asked)
    assert gateway.log.count("morph to ") == 2
    assert gateway.log.count("load of pocket-q8_0.gguf") == 1
