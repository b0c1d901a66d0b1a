"""The page on Ollama's dialect names what there is."""

from pathlib import Path

from fastapi.routing import APIRoute

from gateway.ollama.routes import ollama_routes
from gateway.ollama.schemas import Options
from tests.gateway.ollama.house import services

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "ollama.md").read_text(encoding="utf-8")


def test_every_endpoint_is_named(tmp_path: Path) -> None:
    """With its path."""
    paths = [route.path for route in ollama_routes(services(tmp_path)).routes if isinstance(route, APIRoute)]

    assert [path for path in paths if f"{path}`" not in PAGE] == []


def test_every_option_is_named() -> None:
    """Those that have an effect, as clients spell them."""
    assert [name for name in Options.model_fields if name != "ignored" and f"`{name}`" not in PAGE] == []
