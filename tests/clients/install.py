"""Gives each heavy client an environment of its own under .venv/clients: `python -m tests.clients.install [NAME…]`.

They are tried, not depended on: none of them is among this project's requirements. Versions are those tried last.
"""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / ".venv" / "clients"
PYTHON_CLIENTS = {
    "langchain": ("langchain-openai==1.7.3", "langchain-ollama==1.1.0"),
    "litellm": ("litellm==1.106.2",),
    "lm-eval": ("lm-eval[api]==0.4.13",),
}
NODE_CLIENTS = {"openai-node": ("openai@6.49.0",)}


def interpreter(name: str) -> Path:
    return FOLDER / name / "bin" / "python"


def node_modules(name: str) -> Path:
    return FOLDER / name / "node_modules"


def install(name: str) -> None:
    folder = FOLDER / name
    if name in NODE_CLIENTS:
        folder.mkdir(parents=True, exist_ok=True)
        run("npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *NODE_CLIENTS[name])
        return
    run(sys.executable, "-m", "venv", str(folder))
    run(str(interpreter(name)), "-m", "pip", "install", "--quiet", *PYTHON_CLIENTS[name])


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def main(names: list[str]) -> None:
    for name in names or [*PYTHON_CLIENTS, *NODE_CLIENTS]:
        try:
            install(name)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.stderr.write(f"{name} cannot be installed: {error}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
