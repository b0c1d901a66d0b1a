"""A persona made over HTTP outlives the gateway that made it."""

from pathlib import Path

from ollama import Client

from tests.end_to_end.conftest import serve


def test_a_persona_is_there_after_a_restart(pico_college: Path, tmp_path: Path) -> None:
    """It answers on its specialist's engine, before and after, until it is deleted."""
    home = str(tmp_path / "home")
    asked = [{"role": "user", "content": "Hi"}]
    with serve(pico_college, tmp_path, home=home) as gateway, Client(host=gateway.url, timeout=60) as client:
        client.create(model="pirate", from_="pico:b", system="Arr.", parameters={"num_predict": 3})
        first = client.chat(model="pirate", messages=asked)
        assert gateway.terminate() == 0

    with serve(pico_college, tmp_path, home=home) as gateway, Client(host=gateway.url, timeout=60) as client:
        assert client.show("pirate").parameters is not None
        second = client.chat(model="pirate", messages=asked)
        assert {model.model for model in client.ps().models} == {"pico:a", "pico:b", "pirate:latest"}
        client.delete("pirate")
        assert "pirate:latest" not in {model.model for model in client.list().models}

    assert first.eval_count is not None
    assert second.eval_count is not None
    assert 0 < first.eval_count <= 3
    assert 0 < second.eval_count <= 3
