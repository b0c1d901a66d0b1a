"""A report stands alone, hides nothing odd, and says the same to people and programs."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.builder.report import Bar, Figure, Points, Report, Series, shown
from specialists.builder.svg import span, ticks

NASTY = '<script>alert("x")</script> & ünï'
odd_floats = st.floats(allow_nan=True, allow_infinity=True)


class Tags(HTMLParser):
    """Collects tags and attributes as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def full_report(text: str = "Title") -> Report:
    report = Report(text, text, {text: text})
    report.add_text(text)
    report.add_figures([Figure(name=text, value=0.5, low=0.4, high=0.6, over=text)])
    report.add_table(text, [text, "n"], [[text, 1], [None, 0.25]])
    report.add_heatmap(text, [[0.1, 0.9], [0.5, float("nan")]], [text, "b"], text, [[True, False], [False, True]], text)
    report.add_matrix(text, [[1.0, 0.2], [0.2, 1.0]], [text, "b"], [text, "b"])
    report.add_lines(text, [Series(name=text, xs=[0, 1], ys=[1, 2], lows=[0, 1], highs=[2, 3])] * 2, text, text)
    report.add_bars(text, [Bar(name=text, value=-1.5, low=-2, high=-1), Bar(name="b", value=2)], text)
    clouds = [Points(name=text, xs=[0.1, 0.9], ys=[0.2, 1.1], sigmas=[0.1, 0.2], labels=[text, text])] * 2
    report.add_scatter(text, clouds, text, text, (0.1, 1.0))
    return report


def drawings(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)]


def test_a_page_needs_nothing_else() -> None:
    """No script, no link, no address to fetch from; its own policy forbids them; it knows light and dark."""
    page = Tags()
    html = full_report().to_html()
    page.feed(html)

    assert not {"script", "link", "img", "iframe", "object", "base"} & set(page.tags)
    assert not {"href", "src", "xlink:href", "srcset"} & {name for name, _ in page.attributes}
    assert "http" not in html.replace("http-equiv", "")
    assert "url(" not in html
    assert "default-src 'none'" in html
    assert "prefers-color-scheme:dark" in html


def test_every_text_is_escaped() -> None:
    """Titles, names, cells, labels and notes may hold anything; no tag comes of it."""
    page = Tags()
    page.feed(full_report(NASTY).to_html())

    assert "script" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert page.tags.count("svg") == 5


def test_every_drawing_is_sound_and_says_what_it_is() -> None:
    """Each is well-formed XML with a label for those who cannot see it, in colours of the page's theme."""
    found = drawings(full_report().to_html())

    assert len(found) == 5
    for drawing in found:
        assert drawing.get("role") == "img"
        assert drawing.get("aria-label") == "Title"
        colours = {mark.get("fill") for mark in drawing.iter()} | {mark.get("stroke") for mark in drawing.iter()}
        assert all(colour in (None, "none") or colour.startswith("var(--") for colour in colours)


def test_the_json_says_the_same(tmp_path: Path) -> None:
    """Every section with its data, odd numbers as null, written beside what was made."""
    paths = full_report().write_beside(tmp_path / "math.mask.json")
    content = json.loads(paths.json.read_text())

    assert sorted(each.name for each in tmp_path.iterdir()) == ["math.mask.report.html", "math.mask.report.json"]
    assert [each["kind"] for each in content["sections"]] == [
        "text", "figures", "table", "heatmap", "matrix", "lines", "bars", "scatter",
    ]  # fmt: skip
    assert content["sections"][3]["values"][1] == [0.5, None]
    assert content["sections"][1]["figures"][0]["low"] == 0.4
    assert content["format"] == "coe-report/1"


def test_numbers_of_any_library_are_written() -> None:
    """numpy's scalars and arrays become JSON's own."""
    report = Report("n")
    report.add_heatmap("h", np.array([[1, 2]], dtype=np.int64).tolist(), ["a"], "x")
    single: Any = np.arange(1, 4, dtype=np.float32)
    report.add_lines("l", [Series(name="s", xs=np.arange(3.0).tolist(), ys=single)], "x", "y")

    assert json.loads(report.to_json())["sections"][1]["series"][0]["ys"] == [1, 2, 3]


def test_a_figure_says_what_it_is_over() -> None:
    """A number without that is not accepted."""
    with pytest.raises(ValueError, match="what it is over"):
        Figure(name="accuracy", value=0.9, over="")


def test_a_report_never_overwrites_what_it_is_about(tmp_path: Path) -> None:
    """`math.mask.html` would put its JSON on the mask itself."""
    with pytest.raises(ValueError, match=r"NAME\.report\.html"):
        Report("x").write(tmp_path / "math.mask.html")


@given(ys=st.lists(odd_floats, min_size=1, max_size=6))
def test_any_numbers_can_be_drawn(ys: list[float]) -> None:
    """NaN, infinities, all alike, one alone: there is a well-formed drawing without them, never an error."""
    report = Report("odd")
    xs = [float(number) for number in range(len(ys))]
    report.add_lines("l", [Series(name="s", xs=xs, ys=ys, lows=ys, highs=ys)], "x", "y")
    report.add_scatter("s", [Points(name="p", xs=ys, ys=xs, sigmas=ys)], "x", "y", (0.0, 1.0))
    report.add_bars("b", [Bar(name="b", value=y, low=y, high=y) for y in ys], "x")
    report.add_heatmap("h", [ys, ys], ["a", "b"], "x")
    report.add_matrix("m", [ys], ["a"], [str(x) for x in xs])

    html = report.to_html()

    assert len(drawings(html)) == 5
    assert not re.search(r'="[^"]*\b(nan|inf)', html)
    assert json.loads(report.to_json())["sections"][0]["series"][0]["xs"] == xs


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_inside(low: float, width: float) -> None:
    """Between two and eight of them on any axis, ascending, none beyond it."""
    within = span([low, low + width])
    found = ticks(within)

    slack = 1e-9 * (abs(within.low) + abs(within.high))
    assert 1 <= len(found) <= 8
    assert found == sorted(set(found))
    assert within.low - slack <= found[0] <= found[-1] <= within.high + slack


@pytest.mark.parametrize(
    ("cell", "expected"),
    [(None, "–"), (float("nan"), "–"), (True, "yes"), (1234, "1,234"), (0.123456, "0.1235"), ("L0", "L0"), (0.0, "0")],
)
def test_cells_are_shown_for_people(cell: str | float | None, expected: str) -> None:
    """Four digits, thousands apart, a dash for nothing."""
    assert shown(cell) == expected


def test_a_large_heat_map_stays_small() -> None:
    """30 layers of 128 experts with half of them marked take less than 150 kB."""
    report = Report("large")
    rng = np.random.default_rng(0)
    marked = (rng.random((30, 128)) < 0.5).tolist()
    report.add_heatmap("u", rng.random((30, 128)).tolist(), [f"L{n}" for n in range(30)], "expert", marked)

    assert len(report.to_html()) < 150_000
