"""`coe knowledge` adds, lists, searches and removes, and says what to mend."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app

COLLEGE = """
[college]
name = "t"
default = "coe-physics:q4"
[[specialist]]
tag = "coe-physics:q4"
modelfile = "physics"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "college.toml").write_text(COLLEGE)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "carnot.md").write_text("A Carnot engine takes heat from a hot reservoir.")
    monkeypatch.setenv("COE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COE_COLLEGE", str(tmp_path / "college.toml"))
    return tmp_path


def coe(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["knowledge", *arguments])


def test_a_folder_is_added_found_listed_and_removed(place: Path) -> None:
    """With the encoder that ships."""
    added = coe("add", str(place / "notes"), "--specialist", "coe-physics:q4")
    found = coe("search", "What does a Carnot engine do?", "--specialist", "coe-physics:q4", "--json")
    listed = coe("list", "--json")
    removed = coe("remove", "--specialist", "coe-physics:q4")

    assert (added.exit_code, "1 added" in added.output) == (0, True)
    assert "knowledge = true" in added.output
    assert json.loads(found.stdout)[0]["source"] == "notes/carnot.md"
    assert json.loads(listed.stdout)[0]["num_documents"] == 1
    assert (removed.exit_code, json.loads(coe("list", "--json").stdout)) == (0, [])


def test_one_folder_of_several_can_be_removed(place: Path) -> None:
    """The others stay."""
    (place / "more").mkdir()
    (place / "more" / "law.txt").write_text("A contract needs offer and acceptance.")
    for name in ("notes", "more"):
        coe("add", str(place / name), "--specialist", "coe-physics:q4")
    removed = coe("remove", str(place / "more"), "--specialist", "coe-physics:q4")
    (left,) = json.loads(coe("list", "--json").stdout)

    assert "removed 1 documents" in removed.output
    assert [Path(folder).name for folder in left["folders"]] == ["notes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "notes", "--specialist", "nobody:q4"), "none of the tags"),
        (("add", "nowhere", "--specialist", "coe-physics:q4"), "no such folder"),
        (("search", "x", "--specialist", "coe-physics:q4"), "coe knowledge add"),
        (("remove", "--specialist", "coe-physics:q4"), "no index"),
        (("add", "notes", "--specialist", "coe-physics:q4", "--embedder", "magic"), "COE_EMBEDDER"),
    ],
)
def test_what_cannot_be_done_is_said_with_the_mend(
    place: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    """One line, exit code 2."""
    monkeypatch.chdir(place)
    result = coe(*arguments)

    assert result.exit_code == 2
    assert message in result.output
