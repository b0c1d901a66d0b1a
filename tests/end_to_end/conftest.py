"""Real gateways: `coe serve` as a person starts it, in a process of its own, ended by its id."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest

from tests.pico import write_pico_gemma

REPOSITORY = Path(__file__).resolve().parents[2]
LISTENING = re.compile(r"(http://127\.0\.0\.1:\d+)")


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway; `log` is everything it has written so far."""

    url: str
    process: subprocess.Popen[str]
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def engine_pids(self) -> list[int]:
        """Process ids of the engines this gateway runs now."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"specialists.engine" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def terminate(self, timeout_seconds: float = 40.0) -> int:
        """SIGTERM, as a service manager would; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=timeout_seconds)


COE = (str(Path(sys.executable).with_name("coe")),)


@contextmanager
def serve(
    college: Path, folder: Path, *, program: Sequence[str] = COE, port: int = 0, **settings: str
) -> Iterator[Gateway]:
    """`coe serve` with `COE_…` settings, on a free port unless one is named; ready when it says where it listens.

    `program` stands in for the command `coe`.
    """
    log_path = folder / "gateway.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COE_")}
    environment |= {f"COE_{name.upper()}": value for name, value in settings.items()}
    command = [*program, "serve", "--port", str(port), "--college", str(college)]
    with log_path.open("w") as log:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True
        )
    try:
        yield Gateway(_await_address(process, log_path), process, log_path)
    finally:
        process.kill()
        process.wait()


def _await_address(process: subprocess.Popen[str], log_path: Path) -> str:
    """The address in the log, as soon as the gateway has bound it."""
    Thread(target=process.wait, daemon=True).start()  # `tail` follows a process that ended until somebody reaps it
    follow = subprocess.Popen(
        ["tail", "--pid", str(process.pid), "-n", "+1", "-F", str(log_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert follow.stdout is not None
        for line in follow.stdout:
            if "Serving" in line:
                found = LISTENING.search(line)
                if found:
                    return found[1]
        raise AssertionError(f"the gateway ended before it listened:\n{log_path.read_text()}")
    finally:
        follow.kill()
        follow.communicate()


Serve = Callable[..., Iterator[Gateway]]


@pytest.fixture(scope="session")
def college_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The starter college, with real weights."""
    with serve(REPOSITORY / "college.toml", tmp_path_factory.mktemp("starter")) as gateway:
        yield gateway.url


@pytest.fixture(scope="session")
def pico_college(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A college of pico specialists: `pico:a` and `pico:b` share one file, `pico:broken` has a corrupt one."""
    folder = tmp_path_factory.mktemp("college")
    model = write_pico_gemma(folder / "pico.gguf")
    (folder / "broken.gguf").write_bytes(model.read_bytes()[:4000])
    specialists = [
        ("pico:a", "math", "pico.gguf"),
        ("pico:b", "law", "pico.gguf"),
        ("pico:broken", "cs", "broken.gguf"),
    ]
    blocks = [
        f'[[specialist]]\ntag = "{tag}"\ndomains = ["{domain}"]\nmodelfile = "general"\nmodel = "{file}"\n'
        "context = 2048\nparallel = 4\n"
        for tag, domain, file in specialists
    ]
    college = folder / "college.toml"
    college.write_text('[college]\nname = "pico"\ndefault = "pico:a"\n\n' + "\n".join(blocks))
    return college


@pytest.fixture
def pico_gateway(pico_college: Path, tmp_path: Path) -> Iterator[Gateway]:
    with serve(pico_college, tmp_path) as gateway:
        yield gateway
