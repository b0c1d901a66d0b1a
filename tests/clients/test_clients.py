"""Real clients work with a starter college. Those that are not installed are skipped; `make clients` installs them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients import openai_python
from tests.clients.install import NODE_CLIENTS, PYTHON_CLIENTS, interpreter, node_modules
from tests.end_to_end.conftest import REPOSITORY

HERE = Path(__file__).resolve().parent
SCRIPTS = {"langchain": "langchain_python.py", "litellm": "litellm_python.py", "lm-eval": "lm_eval_python.py"}


def ran(command: list[str]) -> str:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_openais_python_package(starter_url: str) -> None:
    """Every check of its script holds, with real weights, in a process of its own."""
    said = ran([sys.executable, "-m", "tests.clients.openai_python", starter_url])

    assert said.count("ok: ") == len(openai_python.CHECKS)


@pytest.mark.parametrize("name", PYTHON_CLIENTS)
def test_a_python_client(name: str, starter_url: str) -> None:
    """Every check of its script holds, in the client's own environment."""
    if not interpreter(name).exists():
        pytest.skip(f"{name} is not installed; `make clients` does it")
    said = ran([str(interpreter(name)), str(HERE / SCRIPTS[name]), starter_url])

    assert "ok: " in said


@pytest.mark.parametrize("name", NODE_CLIENTS)
def test_a_node_client(name: str, starter_url: str) -> None:
    """The npm package, under the Node of this machine."""
    node = shutil.which("node")
    if node is None or not node_modules(name).exists():
        pytest.skip(f"Node and {name} are not installed; `make clients` installs the latter")
    said = ran([node, str(HERE / "openai_node.mjs"), starter_url, str(node_modules(name).parent)])

    assert said.count("ok: ") == 7
