"""A headless Chromium, spoken to over its debugging pipe: open a page, ask it questions, take its picture."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--disable-features=BackForwardCache",
    "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE_MS = 60_000

# The browser reads its orders from descriptor 3 and answers on 4; first out of the way, lest one overwrites the other.
WITH_PIPES = """
import os, sys
source, target = (os.dup(os.dup(os.dup(int(each)))) for each in sys.argv[1:3])
os.dup2(source, 3), os.dup2(target, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_browser() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab. `troubles` are its script errors and whatever its security policy stopped, so far."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes]) -> None:
        self._requests = requests
        self._replies = replies
        self._ids = itertools.count(1)
        self._session: str | None = None
        self._num_loads = 0
        self.troubles: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def look(self, url: str, *, width: int, height: int, scheme: str) -> None:
        """Open `url` in a window of this size in pixels, with the colour scheme `light` or `dark`."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        num_loads = self._num_loads
        self._ask("Page.navigate", url=url)
        while self._num_loads == num_loads:
            self._note(self._read())

    def says(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self._ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def comes_to(self, condition: str) -> bool:
        """Whether the expression becomes true within a minute."""
        look = f"() => {{ if ({condition}) done(true); else if (--left < 0) done(false); else setTimeout(look, 50); }}"
        promise = f"new Promise((done) => {{ let left = {PATIENCE_MS // 50}; const look = {look}; look(); }})"
        return bool(self.says(promise))

    def picture(self) -> bytes:
        """The visible part as a PNG."""
        return base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"])

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        id = next(self._ids)
        message = {"id": id, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._requests.write(json.dumps(message).encode() + b"\0")
        self._requests.flush()
        while True:
            reply = self._read()
            if reply.get("id") == id:
                assert "error" not in reply, reply
                result: dict[str, Any] = reply["result"]
                return result
            self._note(reply)

    def _read(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self._replies.read(1)) != b"\0":
            assert byte, "the browser ended"
            data += byte
        message: dict[str, Any] = json.loads(data)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Page.loadEventFired":
            self._num_loads += 1
        elif event.get("method") == "Runtime.exceptionThrown":
            self.troubles.append(json.dumps(event["params"])[:500])
        elif event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.troubles.append(event["params"]["entry"]["text"])


@contextmanager
def browser(program: str, folder: Path) -> Iterator[Page]:
    """A browser of its own with one page, its files in `folder`; gone when the context ends."""
    their_input, our_output = os.pipe()
    our_input, their_output = os.pipe()
    command = [program, *FLAGS, f"--user-data-dir={folder}"]
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_PIPES, str(their_input), str(their_output), *command],
        pass_fds=(their_input, their_output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    os.close(their_input)
    os.close(their_output)
    try:
        with open(our_output, "wb") as requests, open(our_input, "rb") as replies:
            yield Page(requests, replies)
    finally:
        os.killpg(process.pid, 9)
        process.wait()
