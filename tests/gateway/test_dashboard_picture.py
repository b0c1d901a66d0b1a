"""The dashboard as people see it: in a real browser, live, in light and dark, on a desk and on a telephone.

A page that is empty, wider than its window, or in trouble with its script or its security policy fails.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from tests.gateway.browser import Page, browser, find_browser
from tests.gateway.college import LiveServer, chat, live_services
from tests.gateway.published import everything

pytestmark = pytest.mark.anyio

T = TypeVar("T")
PROGRAM = find_browser()
CONTENT_WIDTH = "document.documentElement.scrollWidth"
SPILLING = """[...document.querySelectorAll("main > section")].filter((each) => {
  const box = each.getBoundingClientRect();
  return box.right > window.innerWidth + 1 || box.left < -1 || box.height < 20;
}).map((each) => each.getAttribute("aria-label"))"""
NUM = "document.querySelectorAll({!r}).length"
SHOWN = f"{NUM.format('#specialists .chip')} > 0 && {NUM.format('#decisions td')} > 5"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if PROGRAM is None:
        pytest.skip("no Chromium here to look at the dashboard with (Debian: apt install chromium)")
    with browser(PROGRAM, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LiveServer]:
    """One that has decided and answered something, so that there is something to see."""
    async with live_services(everything(tmp_path)) as live, httpx.AsyncClient(base_url=live.url) as client:
        for question in ("What is the integral of x squared?", "Sort a list.", "<script>alert(1)</script>" * 20):
            await client.post("/v1/chat/completions", json=chat(messages=[{"role": "user", "content": question}]))
        yield live


@pytest.fixture
def page(window: Page, gateway: LiveServer) -> Iterator[Page]:
    """The window, empty again before the gateway ends: a page that watches would hold it up."""
    yield window
    window.look("about:blank", width=800, height=600, scheme="light")


async def seen(look: Callable[[], T]) -> T:
    """Looking blocks, and the gateway lives on this very loop."""
    return await asyncio.to_thread(look)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desk", "telephone"])
async def test_the_dashboard_is_neither_empty_nor_too_wide(
    page: Page, gateway: LiveServer, width: int, height: int, scheme: str, tmp_path: Path
) -> None:
    """Live data is in it, every section lies inside the window, and its picture is not that of an empty page."""

    def look() -> None:
        page.look("about:blank", width=width, height=height, scheme=scheme)
        nothing = page.picture()
        page.troubles.clear()
        page.look(gateway.url, width=width, height=height, scheme=scheme)
        assert page.comes_to(SHOWN), page.says("document.body.innerText")
        picture = page.picture()
        (tmp_path / f"dashboard-{width}-{scheme}.png").write_bytes(picture)
        assert page.says(CONTENT_WIDTH) <= width
        assert page.says(SPILLING) == []
        assert len(picture) > 4 * len(nothing)
        assert page.troubles == []

    await seen(look)


async def test_dark_is_dark_and_light_is_light(page: Page, gateway: LiveServer) -> None:
    """The page follows the reader's scheme."""

    def brightness(scheme: str) -> int:
        page.look(gateway.url, width=800, height=600, scheme=scheme)
        assert page.comes_to("document.body && document.readyState === 'complete'")
        colour = page.says("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))

    light, dark = await seen(lambda: (brightness("light"), brightness("dark")))
    assert light > 600
    assert dark < 200


async def test_the_playground_asks_and_shows_the_answer(page: Page, gateway: LiveServer) -> None:
    """A question typed into the page is answered in it, as text."""

    def ask() -> str:
        page.look(gateway.url, width=1280, height=900, scheme="light")
        assert page.comes_to(SHOWN)
        page.says('document.getElementById("question").value = "Hello?"; document.querySelector("#ask button").click()')
        assert page.comes_to('document.getElementById("talk").innerText.includes("Hello there")')
        return str(page.says('document.getElementById("talk").innerText'))

    assert "Hello?" in await seen(ask)


async def test_the_judge_can_find_fault(page: Page, gateway: LiveServer) -> None:
    """A page that spills over and one that has nothing to show are told from a good one."""

    def look() -> tuple[bool, bool, bool]:
        page.look(gateway.url, width=390, height=844, scheme="light")
        assert page.comes_to(SHOWN)
        good = page.says(CONTENT_WIDTH) <= 390
        page.says(
            'document.body.append(Object.assign(document.createElement("div"), {style: "width: 900px; height: 9px"}))'
        )
        spilled = page.says(CONTENT_WIDTH) <= 390
        page.says('document.querySelector("main").replaceChildren()')
        return good, spilled, page.says(SHOWN)

    assert await seen(look) == (True, False, False)
