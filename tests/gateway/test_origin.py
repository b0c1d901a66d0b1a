"""Web pages cannot drive a local server, and everybody else does not notice."""

import httpx
import pytest

from gateway.origin import OriginRules, host_of, is_local_name, listed
from tests.gateway.college import chat, client_for

pytestmark = pytest.mark.anyio

HERE = "127.0.0.1:8000"


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8000", "localhost"),
        ("127.0.0.1:8000", "127.0.0.1"),
        ("[::1]:8000", "::1"),
        ("localhost.", "localhost"),
        ("a.example:99999999", None),
        ("user@localhost", None),
        ("localhost/health?", None),
        ("[::1", None),
        ("", None),
        ("a b", None),
    ],
)
def test_a_host_is_read_out_of_an_authority_or_not_at_all(authority: str, host: str | None) -> None:
    """Ports, brackets and the final dot come off; what is no name or address is none."""
    assert host_of(authority) == host


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("localhost", True),
        ("college", True),
        ("college.localhost", True),
        ("box.local", True),
        ("host.docker.internal", True),
        ("192.168.1.5", True),
        ("8.8.8.8", True),
        ("::1", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("local", True),
        ("evillocal.example", False),
    ],
)
def test_names_that_no_stranger_can_own_are_local(host: str, is_local: bool) -> None:
    """A page can rebind a public name to this machine, but no address and no name without a dot."""
    assert is_local_name(host) is is_local


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (f"http://{HERE}", True),
        ("http://localhost:3000", True),
        ("https://localhost", True),
        ("http://[::1]:5173", True),
        ("http://127.0.0.2:80", True),
        ("app://obsidian.md", True),
        ("vscode-webview://abc", True),
        ("http://evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1.evil.example:8000", False),
        ("http://192.168.1.5:3000", False),
        ("http://localhost@evil.example", False),
        ("null", False),
        ("", False),
        ("file://", False),
        ("chrome-extension://abc", False),
        ("http://[::1", False),
    ],
)
def test_pages_of_this_machine_may_ask_and_others_may_not(origin: str, allowed: bool) -> None:
    """The same origin, a page on loopback, or an application; `null` is what any sandboxed frame can be."""
    assert OriginRules().allows_origin(origin, HERE) is allowed


def test_what_the_operator_adds_is_allowed() -> None:
    """Whole names and whole origins, in any case, with or without a final slash; * for all."""
    rules = OriginRules(hosts=listed("College.Example, other.example"), origins=listed("https://Chat.Example/"))

    assert rules.allows_host("college.example:8000")
    assert not rules.allows_host("a.college.example")
    assert rules.allows_origin("https://chat.example", HERE)
    assert not rules.allows_origin("http://chat.example", HERE)
    assert OriginRules(hosts=listed("*")).allows_host("any.example")
    assert OriginRules(origins=listed("*")).allows_origin("https://any.example", HERE)
    assert listed(None) == listed(" , ") == frozenset()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
async def test_a_foreign_page_gets_nothing_done(path: str) -> None:
    """The request is refused before it is read, in the path's own dialect, without permission to read the answer."""
    async with client_for() as client:
        response = await client.post(path, json=chat(), headers={"origin": "https://evil.example"})

    assert response.status_code == 403
    assert "COE_ALLOWED_ORIGINS" in response.text
    assert "access-control-allow-origin" not in response.headers
    assert isinstance(response.json()["error"], str if path.startswith("/api") else dict)


async def test_a_rebound_name_is_refused_unless_there_is_a_key() -> None:
    """Without a key the Host decides; with one, the page lacks the key anyway and a proxy may keep its Host."""
    asked = {"host": "evil.example", "origin": "http://evil.example"}
    async with client_for() as client:
        refused = await client.get("/v1/models", headers=asked)
    async with client_for(api_key="secret") as client:
        keyless = await client.get("/v1/models", headers=asked)
        keyed = await client.get("/v1/models", headers={"host": "chat.example", "authorization": "Bearer secret"})

    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "forbidden_host"
    assert keyless.status_code == 401
    assert keyed.status_code == 200


async def test_the_rule_holds_for_every_path() -> None:
    """Also for probes and for paths that do not exist; a Host with a path in it is no way around it."""
    async with client_for() as client:
        for path in ("/", "/healthz", "/metrics", "/api/tags", "/nowhere"):
            response = await client.get(path, headers={"host": "evil.example/healthz?"})
            assert response.status_code == 403, path


async def test_a_local_page_may_read_its_answer() -> None:
    """It is told so, and caches are told that the answer depends on who asked."""
    async with client_for() as client:
        response = await client.get("/v1/models", headers={"origin": "http://localhost:3000"})

    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "access-control-allow-credentials" not in response.headers
    assert "Origin" in response.headers["vary"]


async def preflight(client: httpx.AsyncClient, origin: str) -> httpx.Response:
    return await client.options(
        "/v1/chat/completions",
        headers={
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type, x-stainless-os",
            "access-control-request-private-network": "true",
        },
    )


async def test_preflights_are_answered_without_a_key() -> None:
    """Browsers send none with them; the request itself still needs it."""
    async with client_for(api_key="secret", allowed_origins="https://chat.example") as client:
        allowed = await preflight(client, "https://chat.example")
        foreign = await preflight(client, "https://evil.example")

    assert allowed.status_code == 204
    assert "POST" in allowed.headers["access-control-allow-methods"]
    assert "x-stainless-os" in allowed.headers["access-control-allow-headers"]
    assert allowed.headers["access-control-allow-private-network"] == "true"
    assert foreign.status_code == 403


async def test_programs_send_no_origin_and_get_no_cors_headers() -> None:
    """For them nothing has changed."""
    async with client_for() as client:
        response = await client.get("/v1/models")

    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("access-control")]
