"""What an attacker would try at the gateway's door: names that are paths, addresses to be fetched, smuggled requests.

Elsewhere: forged turns and hostile templates (specialists/engine/test_chat_template), keys (test_auth, test_keys),
hosts and origins (test_origin), deep and huge bodies (test_limits, test_fuzz), slow clients (test_protocol).
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from gateway.app import create_app
from gateway.downloads import DownloadDesk
from modelfiles.hub import HuggingFaceHub
from specialists.request import ChatPrompt
from tests.gateway.college import MATH, FakePool, LiveServer, chat, client_for, client_of, live_server
from tests.gateway.published import everything

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
TRAVERSALS = [
    "../../outside", "..", "/etc/passwd", "a/../../outside", "..\\..\\outside", "%2e%2e%2foutside", "a\x00.gguf",
    "hf.co/../../outside", "hf.co/owner/repo:../../outside.gguf", "~/outside", "file:///etc/passwd", "a:../b", "con/..",
]  # fmt: skip
SPELLS = ["{{ 7 * 7 }}", "{% for x in range(10**9) %}a{% endfor %}", "{{ ''.__class__.__mro__ }}", "${7*7}", "%(name)s"]


def bodies_with(name: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Every place of the interface where a client names something, with `name` there."""
    posts: list[tuple[str, dict[str, Any]]] = [
        (CHAT, chat(model=name)),
        ("/v1/completions", {"model": name, "prompt": "a"}),
        ("/v1/embeddings", {"model": name, "input": "a"}),
        ("/api/chat", {"model": name, "messages": [{"role": "user", "content": "a"}]}),
        ("/api/generate", {"model": name, "prompt": "a"}),
        ("/api/embed", {"model": name, "input": "a"}),
        ("/api/embeddings", {"model": name, "prompt": "a"}),
        ("/api/show", {"model": name}),
        ("/api/create", {"model": name, "from": MATH, "stream": False}),
        ("/api/create", {"model": "made", "from": name, "stream": False}),
        ("/api/create", {"model": "made", "modelfile": f"FROM {name}", "stream": False}),
        ("/api/copy", {"source": MATH, "destination": name}),
        ("/api/copy", {"source": name, "destination": "made"}),
        ("/api/pull", {"model": name, "stream": False}),
        ("/coe/feedback", {"decision_id": name, "domain": name}),
    ]
    return [("POST", path, body) for path, body in posts] + [("DELETE", "/api/delete", {"model": name})]


@pytest.mark.parametrize("name", TRAVERSALS)
async def test_no_name_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    """In every field and path that takes one: refused, and nothing is made, read or told outside the home."""
    (tmp_path / "outside.gguf").write_bytes(b"secret")
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    app = create_app(everything(folder))
    before = sorted(path for path in tmp_path.rglob("*") if not path.is_relative_to(folder / "home"))
    async with client_of(app) as client:
        for method, path, body in bodies_with(name):
            response = await client.request(method, path, json=body)
            assert 400 <= response.status_code < 500, (path, body, response.text)
            assert "secret" not in response.text
        for word in ("load", "unload", "pin"):
            response = await client.post(f"/coe/specialists/{name.replace(chr(0), '%00')}/{word}")
            assert 400 <= response.status_code < 500

    assert sorted(path for path in tmp_path.rglob("*") if not path.is_relative_to(folder / "home")) == before


# ── addresses ────────────────────────────────────────────────────────────────


@dataclass
class Trap:
    """A server that notes who comes; nobody should."""

    port: int = 0
    visits: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def trap() -> AsyncIterator[Trap]:
    caught = Trap()

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caught.visits.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(note, "127.0.0.1", 0)
    caught.port = server.sockets[0].getsockname()[1]
    async with server:
        yield caught


def addresses(port: int) -> list[str]:
    host = f"127.0.0.1:{port}"
    return [
        f"http://{host}/a.gguf", f"https://{host}/a", f"{host}/owner/repo", f"hf.co@{host}/owner/repo",
        f"http://hf.co@{host}/owner/repo", f"http://{host}\\@hf.co/owner/repo", f"file://{host}/a", f"ftp://{host}/a",
        f"hf.co/../{host}/repo", f"//{host}/a",
    ]  # fmt: skip


async def test_no_field_makes_the_gateway_ask_another_server(tmp_path: Path) -> None:
    """Images, models, sources, tools' and schemas' references: an address in them is refused or is just text."""
    made = everything(tmp_path)
    app = create_app(replace(made, downloads=DownloadDesk(HuggingFaceHub())))
    async with trap() as caught, client_of(app) as client:
        for address in addresses(caught.port):
            image = [{"type": "image_url", "image_url": {"url": address}}]
            schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": address}}}
            sent = [
                *bodies_with(address),
                ("POST", CHAT, chat(messages=[{"role": "user", "content": image}])),
                ("POST", CHAT, chat(response_format=schema)),
                ("POST", CHAT, chat(api_base=address, base_url=address, webhook=address)),
                ("POST", "/api/chat", {"model": MATH, "format": {"$ref": address}, "messages": chat()["messages"]}),
                ("POST", "/api/create", {"model": "made", "from": MATH, "adapters": {"a": address}}),
                ("POST", "/coe/classify", {"text": address}),
            ]
            for method, path, body in sent:
                response = await client.request(method, path, json=body)
                assert response.status_code < 500, (path, body, response.text)

    assert caught.visits == []


# ── templates ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spell", SPELLS)
async def test_what_clients_write_is_never_taken_for_a_template(spell: str, tmp_path: Path) -> None:
    """Message, system text, persona's text and name of a user reach the engine letter by letter."""
    pool = FakePool()
    made = everything(tmp_path)
    app = create_app(replace(made, pool=pool))
    messages = [{"role": "system", "content": spell}, {"role": "user", "content": spell}]
    async with client_of(app) as client:
        assert (await client.post(CHAT, json=chat(model=MATH, messages=messages, user=spell))).status_code == 200
        persona = {"model": "made", "from": MATH, "system": spell, "template": spell, "stream": False}
        assert (await client.post("/api/create", json=persona)).status_code == 200
        assert (await client.post(CHAT, json=chat(model="made"))).status_code == 200
    direct, through_persona = (request.prompt for request in pool.submitted)

    assert isinstance(direct, ChatPrompt)
    assert isinstance(through_persona, ChatPrompt)
    assert direct.messages[-1].content == spell
    assert direct.messages[0].content.endswith(spell)
    assert spell in through_persona.messages[0].content


# ── smuggling ────────────────────────────────────────────────────────────────

BODY = json.dumps(chat()).encode()
HIDDEN = b"GET /coe/status HTTP/1.1\r\nhost: x\r\n\r\n"


def head(*lines: bytes) -> bytes:
    return b"\r\n".join([b"POST /v1/chat/completions HTTP/1.1", b"host: x", *lines, b"", b""])


LENGTH = b"content-length: %d" % len(BODY)
SMUGGLED = {
    "two lengths that differ": head(LENGTH, b"content-length: 0") + BODY + HIDDEN,
    "length and chunked": head(LENGTH, b"transfer-encoding: chunked") + b"0\r\n\r\n" + HIDDEN,
    "chunked in disguise": head(b"transfer-encoding: xchunked") + b"0\r\n\r\n" + HIDDEN,
    "chunked twice": head(b"transfer-encoding: chunked, chunked") + b"0\r\n\r\n" + HIDDEN,
    "chunked after a tab": head(b"transfer-encoding:\tchunked", LENGTH) + b"0\r\n\r\n" + HIDDEN,
    "a length with a sign": head(b"content-length: +5") + BODY + HIDDEN,
    "a length in hex": head(b"content-length: 0x10") + BODY + HIDDEN,
    "a length of two numbers": head(b"content-length: 5, 6") + BODY + HIDDEN,
    "a space before the colon": head(b"content-length : 5") + BODY + HIDDEN,
    "a folded line": head(b"x-a: b\r\n transfer-encoding: chunked", b"content-length: zero") + HIDDEN,
    "a chunk size with a sign": head(b"transfer-encoding: chunked") + b"-5\r\nhello\r\n0\r\n\r\n" + HIDDEN,
    "a huge chunk size": head(b"transfer-encoding: chunked") + b"f" * 40 + b"\r\n" + HIDDEN,
    "a null in a name": head(b"x\x00y: z", LENGTH) + BODY + HIDDEN,
}


async def replies(live: LiveServer, data: bytes) -> list[bytes]:
    """The status lines that come back until the server closes."""
    reader, writer = await live.connect()
    writer.write(data)
    try:
        received = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    return re.findall(rb"HTTP/1\.1 [^\r]*", received)


@pytest.mark.parametrize("name", SMUGGLED)
async def test_what_two_servers_could_read_differently_is_refused(name: str) -> None:
    """One 4xx and the end of the connection: a request hidden behind it is never answered."""
    async with live_server(header_timeout_seconds=0.2, body_timeout_seconds=0.2) as live:
        found = await replies(live, SMUGGLED[name])

    assert len(found) == 1
    assert found[0].startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 408 ", b"HTTP/1.1 501 ")), found


async def test_an_honest_pair_of_requests_gets_two_answers() -> None:
    """The same bytes in good order: so the refusals above are not refusals of everything."""
    second = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    async with live_server() as live:
        found = await replies(live, head(LENGTH) + BODY + second)

    assert found == [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK"]


@pytest.mark.parametrize("name", ["x-forwarded-host", "x-forwarded-for", "x-real-ip", "forwarded", "x-original-url"])
async def test_headers_of_proxies_change_nothing(name: str, tmp_path: Path) -> None:
    """Nobody gains a key, another path or another origin by claiming to be a proxy."""
    async with client_for(api_key="secret") as client:
        response = await client.get("/v1/models", headers={name: "127.0.0.1", "x-rewrite-url": "/healthz"})

    assert response.status_code == 401


async def test_no_header_that_comes_back_can_be_split() -> None:
    """What a client sends and gets back in a header is of a shape that cannot end one."""
    async with live_server() as live:
        reader, writer = await live.connect()
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: a%0d%0ax-evil: 1\r\nconnection: close\r\n\r\n")
        received = await asyncio.wait_for(reader.read(), 10)
        writer.close()

    assert b"x-evil" not in received
    assert b"x-request-id: req_" in received
