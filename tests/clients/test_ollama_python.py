"""Ollama's Python package works with a starter college, as a person would use it."""

import subprocess
import sys

from tests.clients.ollama_python import CHECKS
from tests.end_to_end.conftest import REPOSITORY


def test_every_check_of_the_script_holds(starter_url: str) -> None:
    """In a process of its own, with real weights."""
    command = [sys.executable, "-m", "tests.clients.ollama_python", starter_url]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok: ") == len(CHECKS)
