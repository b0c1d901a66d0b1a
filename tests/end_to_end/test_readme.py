"""The README's examples are run as they stand, against a gateway that serves the starter college."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BLOCK = re.compile(
    r"<!-- test: (?P<name>[^>]+?) -->\n```(?P<language>\w+)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE
)
DOCUMENTED_URL = "http://127.0.0.1:8000"
RUNNERS = {"python": [sys.executable, "-"], "bash": ["bash", "-euo", "pipefail", "-s"]}

# What each example's output must hold, as a regular expression.
EXPECTED = {
    "curl": r'"object": ?"chat\.completion"',
    "sdk": r"\w",
    "sdk stream": r"\w",
    "sdk json": r"\w",
    "curl stream": r"data: \{.*\n\ndata: \[DONE\]",
    "curl models": r'"auto"',
}


@dataclass(frozen=True, slots=True)
class Example:
    name: str
    language: str
    code: str

    def run(self, url: str) -> subprocess.CompletedProcess[str]:
        code = self.code.replace(DOCUMENTED_URL, url)
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        return subprocess.run(
            RUNNERS[self.language],
            input=code,
            env=environment | {"PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def examples() -> list[Example]:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return [Example(found["name"], found["language"], found["code"]) for found in BLOCK.finditer(readme)]


def test_every_marked_example_is_known_here() -> None:
    """Each marked block is found, speaks to the documented address, and has an expectation."""
    found = examples()

    assert sorted(example.name for example in found) == sorted(EXPECTED)
    assert all(DOCUMENTED_URL in example.code for example in found)


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_an_example_does_what_the_readme_says(example: Example, college_url: str) -> None:
    """It ends well and prints what a reader would expect to see."""
    done = example.run(college_url)

    assert done.returncode == 0, done.stderr
    assert re.search(EXPECTED[example.name], done.stdout, flags=re.DOTALL), done.stdout
