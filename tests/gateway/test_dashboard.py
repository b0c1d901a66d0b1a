"""The dashboard: a page that needs nobody else, and a stream of true snapshots behind the key."""

import json
import re

import pytest

from gateway.dashboard.page import MAX_WATCHERS, PAGE_FILE, dashboard_routes, snapshot
from tests.gateway.college import BROKEN, GENERAL, MATH, FakePool, client_for, services

pytestmark = pytest.mark.anyio

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def test_browsers_get_the_page_and_probes_the_words_they_know() -> None:
    """One address serves people and Ollama's clients, told apart by what they accept."""
    async with client_for() as client:
        page = await client.get("/", headers=BROWSER)
        probe = await client.get("/")

    assert page.headers["content-type"].startswith("text/html")
    assert "College of Experts" in page.text
    assert probe.text == "Ollama is running"


async def test_the_page_asks_no_other_host() -> None:
    """It holds no address of another host, and its policy forbids what it might be tricked into."""
    async with client_for() as client:
        policy = (await client.get("/", headers=BROWSER)).headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert not re.search(r"(?:https?:)?//[a-z]|@import|\bsrc=", PAGE_FILE.read_text(encoding="utf-8"))


def test_nothing_shown_is_parsed_as_markup() -> None:
    """Tags, reasons and answers come from others: they become text nodes, never HTML."""
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", PAGE_FILE.read_text("utf-8"))


def test_a_snapshot_tells_pool_specialists_and_why_one_cannot_serve() -> None:
    """What the page shows is what the pool and the catalogue say, as plain JSON."""
    told = json.loads(json.dumps(snapshot(services(FakePool()))))

    assert told["pool"]["budget_bytes"] == 100
    assert [each["tag"] for each in told["specialists"]] == [GENERAL, MATH, BROKEN]
    assert told["specialists"][2]["unavailable"] == "its file is missing"


async def test_the_stream_ends_when_the_gateway_drains() -> None:
    """A page that watches does not hold up a shutdown, and sees that it has begun."""
    made = services(FakePool())
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            made.lifecycle.begin_draining()

    [route] = dashboard_routes(made, sleep=sleep).routes
    response = await route.endpoint()  # type: ignore[attr-defined]
    lines = [line async for line in response.body_iterator]

    assert len(lines) == 2
    assert all(json.loads(line.removeprefix(b"data: "))["college"] == "testing" for line in lines)


async def test_more_pages_than_allowed_are_told_so() -> None:
    """Watching is bounded; whoever leaves makes room."""
    [route] = dashboard_routes(services(FakePool())).routes
    watching = [(await route.endpoint()).body_iterator for _ in range(MAX_WATCHERS)]  # type: ignore[attr-defined]
    for page in watching:
        await anext(page)
    refused = await route.endpoint()  # type: ignore[attr-defined]
    await watching[0].aclose()
    admitted = await route.endpoint()  # type: ignore[attr-defined]

    assert refused.status_code == 429
    assert admitted.status_code == 200
    for page in watching[1:]:
        await page.aclose()


async def test_the_snapshots_need_the_key_and_the_page_does_not() -> None:
    """The page can ask for the key only once it is there."""
    async with client_for(api_key="secret") as client:
        assert (await client.get("/", headers=BROWSER)).status_code == 200
        assert (await client.get("/coe/live")).status_code == 401
