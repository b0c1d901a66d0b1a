"""The model card says what its files say, and credits whom it must."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pocket.card import CURVE, LOG, write_card

SOURCES = """# Corpora
## Sources by domain

### math

| source | commit | title | author(s) | licence | public | private |
|---|---|---|---|---|---|---|
| a/algebra | `1` | Algebra | Ada | CC-BY-4.0 | 1 | 1 |
| a/analysis | `2` | Analysis | Bo | CC-BY-SA-4.0 | 1 | 1 |

### physics

| source | commit | title | author(s) | licence | public | private |
|---|---|---|---|---|---|---|
| a/algebra | `1` | Algebra | Ada | CC-BY-4.0 | 1 | 1 |
## Notices

- MIT: (c) Cy
## Method
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rows = [
        {"step": 20, "tokens": 1_000_000, "loss": 8.0, "cpu_s": 1800.0},
        {"step": 40, "tokens": 2_000_000, "loss": 4.0, "cpu_s": 3600.0},
        {"step": 40, "tokens": 2_000_000, "held_out": {"math": 0.25, "law": 0.5, "mean": 0.375, "loss": 4.5}},
    ]
    (tmp_path / LOG).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    (tmp_path / "SOURCES").write_text(SOURCES, encoding="utf-8")
    write_card(tmp_path, tmp_path / "SOURCES")
    return tmp_path


def test_the_card_tells_the_end_of_the_training(model: Path) -> None:
    """The last line of either kind, and each file's size."""
    card = (model / "README.md").read_text(encoding="utf-8")

    assert "40 steps, 2.0 million tokens, 1.0 hours" in card
    assert "| law | math |" in card
    assert "| 50.0% | 25.0% |" in card
    assert "| some.gguf | 4 | `" in card


def test_sources_are_credited_once_and_share_alike_ones_were_not_used(model: Path) -> None:
    """A source of two domains has one row, and notices are repeated word for word."""
    card = (model / "README.md").read_text(encoding="utf-8")

    assert card.count("| a/algebra | Algebra | Ada | CC-BY-4.0 |") == 1
    assert "Analysis" not in card
    assert card.endswith("- MIT: (c) Cy\n")


def test_the_curve_is_a_drawing_that_stands_alone(model: Path) -> None:
    """Well-formed XML in SVG's namespace, with a line for either series."""
    drawing = ElementTree.parse(model / CURVE).getroot()  # our own file

    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    marks = (model / CURVE).read_text(encoding="utf-8")
    assert marks.count("var(--c0)") >= 1
    assert marks.count("var(--c1)") >= 1
