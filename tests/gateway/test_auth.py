"""With a key set, nobody asks without it; without one, everybody may."""

import pytest

from tests.gateway.college import chat, client_for

pytestmark = pytest.mark.anyio

KEY = "sk-schlüssel"
PROTECTED = ["/v1/models", "/v1/models/auto", "/coe/status"]
OPEN = ["/healthz", "/readyz", "/metrics"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer "},
        {"authorization": f"Basic {KEY}"},
        {"authorization": KEY},
        {"x-api-key": "wrong"},
        {"authorization": "Bearer ключ 🔑"},
        {"x-api-key": ""},
    ],
    ids=str,
)
async def test_a_wrong_key_is_a_401_and_never_a_500(headers: dict[str, str]) -> None:
    """Anything but the key is refused alike, whatever bytes it is made of."""
    raw = {name.encode(): value.encode() for name, value in headers.items()}
    async with client_for(api_key=KEY) as client:
        response = await client.post("/v1/chat/completions", json=chat(), headers=raw)

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
async def test_the_key_opens(name: str) -> None:
    """As a bearer token or in x-api-key, compared byte by byte."""
    value = KEY if name == "x-api-key" else f"Bearer {KEY}"
    async with client_for(api_key=KEY) as client:
        response = await client.post("/v1/chat/completions", json=chat(), headers={name.encode(): value.encode()})

    assert response.status_code == 200


@pytest.mark.parametrize("path", PROTECTED)
async def test_everything_else_needs_it_too(path: str) -> None:
    """Models and status tell about the college, so they are guarded."""
    async with client_for(api_key=KEY) as client:
        assert (await client.get(path)).status_code == 401


@pytest.mark.parametrize("path", OPEN)
async def test_probes_and_metrics_stay_open(path: str) -> None:
    """What watches the server does not need its key."""
    async with client_for(api_key=KEY) as client:
        assert (await client.get(path)).status_code == 200


async def test_the_guard_does_not_depend_on_paths_that_clients_choose() -> None:
    """A Host header that looks like an open path opens nothing."""
    async with client_for(api_key=KEY) as client:
        response = await client.get("/v1/models", headers={"host": "x/healthz?"})

    assert response.status_code == 401


async def test_the_body_is_not_read_before_the_key() -> None:
    """Strangers cannot make the gateway parse anything."""
    async with client_for(api_key=KEY) as client:
        response = await client.post("/v1/chat/completions", content=b"{not json")

    assert response.status_code == 401


async def test_without_a_key_everybody_may_ask() -> None:
    """Open unless told otherwise; a key that is sent anyway does no harm."""
    async with client_for() as client:
        response = await client.post("/v1/chat/completions", json=chat(), headers={"authorization": "Bearer any"})

    assert response.status_code == 200
