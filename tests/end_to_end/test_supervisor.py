"""The supervisor in a whole gateway: missing, taught, and watched."""

from pathlib import Path
from typing import Any

import httpx

from tests.end_to_end.conftest import Gateway, serve


def body(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 2}


def test_a_missing_model_costs_the_choice_alone(pico_college: Path, tmp_path: Path) -> None:
    """`auto` means the default specialist, and says so; who names one notices nothing (F22)."""
    with serve(pico_college, tmp_path, supervisor_model=str(tmp_path / "nowhere")) as gateway:
        auto = httpx.post(f"{gateway.url}/v1/chat/completions", json=body("auto", "Is this legal?"), timeout=60)
        named = httpx.post(f"{gateway.url}/v1/chat/completions", json=body("pico:b", "Is this legal?"), timeout=60)

    assert (auto.status_code, auto.json()["model"], auto.headers["x-gateway-route"]) == (200, "pico:a", "fallback")
    assert (named.status_code, named.json()["model"]) == (200, "pico:b")
    assert "x-gateway-route" not in named.headers
    assert "nowhere" in gateway.log


def test_a_correction_reaches_the_answers(pico_gateway: Gateway) -> None:
    """From an answer's decision id to a promoted lesson, over HTTP alone."""
    text = "Which jesses suit a peregrine on its first flight to the lure?"
    with httpx.Client(base_url=pico_gateway.url, timeout=60) as client:
        before = client.post("/v1/chat/completions", json=body("auto", text))
        lesson = {"decision_id": before.headers["x-coe-decision"], "domain": "law"}
        given = client.post("/coe/feedback", json=lesson)
        promoted = client.post("/coe/feedback/promote")
        after = client.post("/v1/chat/completions", json=body("auto", f"Hello! {text}"))

    assert before.json()["model"] == "pico:a"
    assert (given.status_code, promoted.status_code) == (200, 200)
    assert (after.json()["model"], after.headers["x-coe-domain"]) == ("pico:b", "law")
