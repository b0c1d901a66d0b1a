"""Starts a server for a bench, waits until it answers, and ends it by its process id."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

PATIENCE_SECONDS = 180.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def gateway(college: Path, **environment: str) -> Iterator[str]:
    """`coe serve` of that college, with these settings (COE_…) besides; yields its address."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("coe")), "serve", "--port", str(port), "--college", str(college)]
    with _running(command, f"http://127.0.0.1:{port}", "/readyz", environment) as url:
        yield url


@contextmanager
def router(llama_server: Path, models: Path, *options: str) -> Iterator[str]:
    """llama-server's router over a folder of GGUFs, one model in memory at a time; yields its address."""
    port = free_port()
    places = ["--models-dir", str(models), "--models-max", "1", "--port", str(port)]
    command = [str(llama_server), *places, "--no-webui", *options]
    with _running(command, f"http://127.0.0.1:{port}", "/health", {}) as url:
        yield url


@contextmanager
def _running(command: Sequence[str], url: str, ready: str, environment: Mapping[str, str]) -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(process, url + ready, Path(log.name))
            yield url
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)  # not listening yet
    raise SystemExit(f"{process.args!r} did not become ready:\n{log.read_text(errors='replace')[-2000:]}")
