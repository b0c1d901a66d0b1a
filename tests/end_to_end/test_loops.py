"""A model that loops, through the real server: the loop is taken back, told, counted, and nobody has to wait."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.loop_judge import judge
from tests.end_to_end.conftest import REPOSITORY, serve

PROMPT = "Plan a year with friendship: say for each week what is to be done, and why."


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One small model that may be asked greedily, which makes it loop."""
    college: Path = REPOSITORY / "bench" / "loops.toml"
    with serve(college, tmp_path_factory.mktemp("loops"), temperature_policy="allow") as gateway:
        yield gateway.url


def ask(url: str, guard: str, **fields: Any) -> dict[str, Any]:
    body = {
        "model": "plain:q4",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 160,
        "temperature": 0,
        "seed": 3,
        "coe": {"loop_guard": guard},
    }
    answer: dict[str, Any] = httpx.post(f"{url}/v1/chat/completions", json=body | fields, timeout=120).json()
    return answer


@pytest.fixture(scope="module")
def off(url: str) -> dict[str, Any]:
    """The answer without a guard."""
    return ask(url, "off")


def test_a_loop_is_shown_without_the_guard_and_not_with_it(url: str, off: dict[str, Any]) -> None:
    """The same request, off and on: one answer runs in circles to its limit, the other does not, and says why."""
    on = ask(url, "rescue")
    assert judge(off["choices"][0]["message"]["content"]).is_looped
    assert off["coe"]["loop"] is None
    assert not judge(on["choices"][0]["message"]["content"]).is_looped
    loop = on["coe"]["loop"]
    assert loop["hits"] >= 1
    assert loop["rung"] is not None
    assert loop["tokens_discarded"] > 0
    [entry] = httpx.get(f"{url}/coe/decisions").json()["loops"]
    assert (entry["specialist"], entry["hits"]) == ("plain:q4", loop["hits"])
    assert (
        f'coe_loop_hits_total{{domain="general",specialist="plain:q4"}} {loop["hits"]}.0'
        in httpx.get(f"{url}/metrics").text
    )


def test_a_guard_that_only_looks_changes_nothing(url: str, off: dict[str, Any]) -> None:
    """Detecting gives the very answer that having no guard gives, and a count."""
    seen = ask(url, "detect")
    assert seen["choices"] == off["choices"]
    assert seen["coe"]["loop"]["hits"] >= 1
    assert seen["coe"]["loop"]["rung"] is None
