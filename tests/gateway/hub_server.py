"""A model hub on loopback: as much of the hub's HTTP interface as its client uses, ranges and digests included."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "owner/repo"


class HubServer(ThreadingHTTPServer):
    """One repository. `lies` are digests that it claims falsely; `gate`, if set, holds back the second half of a body.

    `ranges` records where each transfer began.
    """

    daemon_threads = True

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.files = files
        self.lies: dict[str, str] = {}
        self.gate: threading.Event | None = None
        self.ranges: list[tuple[str, int]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def sha256(self, name: str) -> str:
        return self.lies.get(name, hashlib.sha256(self.files[name]).hexdigest())


class _Request(BaseHTTPRequestHandler):
    server: HubServer

    def do_HEAD(self) -> None:
        self._file(send_body=False)

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            self._list()
        else:
            self._file(send_body=True)

    def _list(self) -> None:
        if not self.path.startswith(f"/api/models/{REPOSITORY}"):
            self._head(404, {"X-Error-Code": "RepoNotFound", "Content-Length": "0"})
            return
        siblings = [
            {
                "rfilename": name,
                "size": len(data),
                "lfs": {"sha256": self.server.sha256(name), "size": len(data), "pointerSize": 135},
            }
            for name, data in self.server.files.items()
        ]
        body = json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode()
        self._head(200, {"Content-Length": str(len(body))})
        self.wfile.write(body)

    def _file(self, *, send_body: bool) -> None:
        name = unquote(self.path.partition("?")[0].removeprefix(f"/{REPOSITORY}/resolve/main/"))
        data = self.server.files.get(name)
        if data is None:
            self._head(404, {"X-Error-Code": "EntryNotFound", "Content-Length": "0"})
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {
            "ETag": f'"{self.server.sha256(name)}"',
            "Accept-Ranges": "bytes",
            "Content-Length": str(len(data) - start),
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._head(206 if start else 200, headers)
        if send_body:
            self.server.ranges.append((name, start))
            self._body(data[start:])

    def _body(self, data: bytes) -> None:
        half = len(data) // 2
        self.wfile.write(data[:half])
        if self.server.gate is not None:
            self.wfile.flush()
            self.server.gate.wait(10)
        with suppress(OSError):  # the client may have left
            self.wfile.write(data[half:])

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Tests are quiet."""


@contextmanager
def hub_server(files: Mapping[str, bytes]) -> Iterator[HubServer]:
    with HubServer(files) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            if server.gate is not None:
                server.gate.set()
            server.shutdown()
            thread.join()
