"""What is shipped: the wheel and the container's build context hold every file that serving needs, and no others."""

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from tests.test_house import PACKAGES, REPOSITORY

# Of the kinds of files that are no Python; at least these are read at run time.
READ_AT_RUN_TIME = (
    "modelfiles/math.Modelfile",
    "supervisor/chat_questions.txt",
    "supervisor/model/card.json",
    "supervisor/model/encoder.onnx",
    "supervisor/model/heads.npz",
    "supervisor/model/tokenizer.json",
    "supervisor/model/words.npz",
    "supervisor/transfer.json",
)

# From a folder that is not the repository, with nothing but the wheel's files in front of everything else.
USE = """
from pathlib import Path
import gateway.cli, supervisor.classifier
from modelfiles.builtin import builtin, builtin_names
from supervisor.lessons import frozen_benchmark
from supervisor.transfer_fit import TransferTable
assert str(Path(supervisor.classifier.__file__).resolve()).startswith(str(Path.cwd().resolve())), "not the wheel"
assert all(builtin(name).parameters for name in builtin_names())
TransferTable.load()
frozen_benchmark()
said = supervisor.classifier.SupervisorClassifier.load().classify_text("Is hearsay admissible in court?")
print(len(builtin_names()), said.domain)
"""


def package_files() -> set[str]:
    """Every file of the packages that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *PACKAGES],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return {name for name in listed.split("\0") if name and (REPOSITORY / name).is_file()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution as pip would install it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    [made] = folder.glob("*.whl")
    return made


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    """Model, Modelfiles and tables are in it like the code; tests, benches and caches are not."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert package_files() - held == set()
    assert {name.partition("/")[0] for name in held} == set(PACKAGES)
    assert set(READ_AT_RUN_TIME) <= held
    assert not [name for name in held if "__pycache__" in name]


def test_the_wheel_works_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    """Everything that is read at run time is found beside the code that reads it; the command is there."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    [entry_points] = tmp_path.glob("*.dist-info/entry_points.txt")

    assert done.stdout.split() == ["17", "law"], done.stderr
    assert "coe = gateway.cli:main" in entry_points.read_text()


class DockerIgnore:
    """Docker's rules: patterns in order, the last that matches a path or a folder above it wins, `!` takes back."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        self._rules = [
            (not line.startswith("!"), re.compile(_expression(line.removeprefix("!").strip("/"))))
            for line in lines
            if line and not line.startswith("#")
        ]

    def excludes(self, path: str) -> bool:
        above = [str(each) for each in PurePosixPath(path).parents if str(each) != "."]
        is_excluded = False
        for excludes, pattern in self._rules:
            if any(pattern.fullmatch(each) for each in (path, *above)):
                is_excluded = excludes
        return is_excluded


def _expression(pattern: str) -> str:
    """A Docker pattern as a regular expression."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.sub(r"\*\*/|\*\*|\*|\?|[^*?]+", lambda found: parts.get(found[0], re.escape(found[0])), pattern)


@pytest.fixture(scope="module")
def ignore() -> DockerIgnore:
    return DockerIgnore((REPOSITORY / ".dockerignore").read_text())


def copied() -> Iterator[str]:
    """What the Dockerfile copies out of the build context."""
    for line in (REPOSITORY / "Dockerfile").read_text().splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith("--from"):
            yield from words[1:-1]


def test_the_build_context_holds_what_the_image_is_made_from(ignore: DockerIgnore) -> None:
    """Every file of the packages, and whatever else the Dockerfile copies."""
    others = {str(each.relative_to(REPOSITORY)) for each in (REPOSITORY / "colleges").iterdir()}
    wanted = {*package_files(), *others, *copied()}

    assert set(PACKAGES) | {"pyproject.toml", "README.md", "LICENSE", "college.toml", "colleges"} <= set(copied())
    assert [name for name in sorted(wanted) if ignore.excludes(name)] == []
    assert [name for name in copied() if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize(
    "path",
    [
        ".git/HEAD",
        ".venv/bin/python",
        "tests/pico.py",
        "bench/routing.py",
        "gateway/__pycache__/cli.cpython-311.pyc",
        "supervisor/model/__pycache__/x.pyc",
        "weights.gguf",
        ".env",
    ],
)
def test_the_build_context_holds_nothing_else(ignore: DockerIgnore, path: str) -> None:
    """Neither the environment nor tests, caches, weights or secrets that lie about."""
    assert ignore.excludes(path)


@pytest.mark.parametrize(
    ("text", "path", "is_excluded"),
    [
        ("a", "a/b", True),
        ("*\n!a", "a/b/c", False),
        ("*\n!a", "b", True),
        ("*\n!a\na/b", "a/b/c", True),
        ("**/x", "x", True),
        ("**/x", "a/b/x/y", True),
        ("a/*.txt", "a/b/c.txt", False),
        ("# a", "# a", False),
    ],
)
def test_the_rules_are_dockers(text: str, path: str, is_excluded: bool) -> None:
    """Examples from Docker's description of the file."""
    assert DockerIgnore(text).excludes(path) is is_excluded
