"""One report: an HTML page that needs nothing else, and the same content as JSON for programs.

    report = Report("Mask: math", inputs={"profile": digest})
    report.add_figures([Figure("retained mass", .991, low=.989, high=.993, over="1,000 resamples of 210 records")])
    report.add_heatmap("Utility by layer and expert", utility, rows=layer_names, across="expert")
    report.write_beside(Path("math.mask.json"))     # math.mask.report.html and math.mask.report.json

A section is data first; how it is drawn is decided in `plots` and `grids`. A figure must say what it is over: an
interval without that means nothing, and a figure without an interval must say why it has none. Text is escaped, the
page runs no script and fetches nothing (its policy forbids both).
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Final, NamedTuple

from specialists.bounded_json import write_text
from specialists.builder.grids import Grid, heatmap, matrix
from specialists.builder.plots import Bar, Points, Series, bars, lines, scatter

__all__ = ["Bar", "Figure", "Points", "Report", "Series", "Written"]

FORMAT: Final = "coe-report/1"
Cell = str | int | float | bool | None

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
:root{{color-scheme:light dark;--page:#fff;--ink:#1b1f24;--soft:#59636e;--rule:#d8dee4;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b0568c;--c4:#b57f00;--c5:#4a4aa8}}
@media (prefers-color-scheme:dark){{:root{{--page:#14171a;--ink:#e6e9ec;--soft:#9aa4ae;--rule:#333a41;
--c0:#56b4e9;--c1:#ff8c42;--c2:#3ec99b;--c3:#e29ac6;--c4:#f0c04a;--c5:#a3a3f5}}}}
body{{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;
background:var(--page);color:var(--ink)}}
h1{{margin-bottom:.2rem}}h2{{margin:2rem 0 .3rem;font-size:1.1rem}}
p.soft,figcaption,dl{{color:var(--soft)}}
figure,.wide{{margin:.5rem 0 1.2rem;overflow-x:auto}}
table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}
td,th{{padding:.15rem .7rem;text-align:right;border-bottom:1px solid var(--rule)}}
td:first-child,th:first-child{{text-align:left;padding-left:0}}
svg text{{font-size:11px;fill:var(--soft)}}svg text.ink{{fill:var(--ink)}}
.legend span{{margin-right:1.2rem}}.legend i{{display:inline-block;width:.8em;height:.8em;margin-right:.4em}}
dl{{display:grid;grid-template-columns:max-content 1fr;gap:0 1rem;font-size:13px}}dd{{margin:0;overflow-wrap:anywhere}}
</style></head><body><h1>{title}</h1><p class="soft">{subtitle}</p>
{body}
</body></html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number that is claimed: its interval where there is one, its unit, and what both are over."""

    name: str
    value: float
    over: str
    low: float | None = None
    high: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if not self.over:
            raise ValueError(f"the figure {self.name!r} must say what it is over")


class Written(NamedTuple):
    html: Path
    json: Path


@dataclass(slots=True)
class Report:
    """Sections in the order they are added. `inputs` names what the report was made from, with digests."""

    title: str
    subtitle: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    sections: list[dict[str, Any]] = field(default_factory=list)
    _drawn: list[str] = field(default_factory=list)

    def add_text(self, text: str) -> None:
        self._add({"kind": "text", "text": text}, f"<p>{escape(text)}</p>")

    def add_figures(self, figures: Sequence[Figure], caption: str = "Figures") -> None:
        rows = [(each.name, _with_unit(each), _interval(each), each.over) for each in figures]
        drawn = _table(("", "value", "interval", "over"), rows)
        self._add({"kind": "figures", "caption": caption, "figures": [asdict(each) for each in figures]}, drawn)

    def add_table(self, caption: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        kept = [list(row) for row in rows]
        drawn = _table(columns, [[shown(cell) for cell in row] for row in kept])
        self._add({"kind": "table", "caption": caption, "columns": list(columns), "rows": kept}, drawn)

    def add_heatmap(
        self, caption: str, values: Grid, rows: Sequence[str], across: str, marked: Sequence[Sequence[bool]] = (),
        note: str = "",
    ) -> None:  # fmt: skip
        """Rows of one length each; `marked` cells (of the same shape) get a dot, which `note` explains."""
        kept = _numbers(values)
        section = {"kind": "heatmap", "caption": caption, "rows": list(rows), "across": across, "values": kept}
        flags = [[bool(flag) for flag in line] for line in marked]
        drawn = heatmap(kept, rows, across, caption, flags)
        self._add({**section, "marked": flags, "note": note}, _figure(drawn, note))

    def add_matrix(
        self, caption: str, values: Grid, rows: Sequence[str], columns: Sequence[str], note: str = ""
    ) -> None:
        kept = _numbers(values)
        section = {"kind": "matrix", "caption": caption, "rows": list(rows), "columns": list(columns), "values": kept}
        self._add({**section, "note": note}, _figure(matrix(kept, rows, columns, caption), note))

    def add_lines(self, caption: str, series: Sequence[Series], across: str, up: str, note: str = "") -> None:
        section = {"kind": "lines", "caption": caption, "across": across, "up": up, "note": note}
        drawn = _figure(lines(series, across, up, caption), note)
        self._add({**section, "series": [asdict(one) for one in series]}, drawn)

    def add_bars(self, caption: str, values: Sequence[Bar], along: str, note: str = "") -> None:
        section = {"kind": "bars", "caption": caption, "along": along, "note": note}
        drawn = _figure(bars(values, along, caption), note)
        self._add({**section, "bars": [asdict(bar) for bar in values]}, drawn)

    def add_scatter(
        self, caption: str, clouds: Sequence[Points], across: str, up: str,
        line: tuple[float, float] | None = None, note: str = "",
    ) -> None:  # fmt: skip
        """`line` is an (intercept, slope)."""
        section = {"kind": "scatter", "caption": caption, "across": across, "up": up, "line": line, "note": note}
        drawn = _figure(scatter(clouds, across, up, caption, line), note)
        self._add({**section, "clouds": [asdict(one) for one in clouds]}, drawn)

    def to_html(self) -> str:
        inputs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in self.inputs.items())
        body = [*self._drawn, f"<h2>Inputs</h2><dl>{inputs}</dl>" if inputs else ""]
        return _PAGE.format(
            title=escape(self.title), subtitle=escape(self.subtitle), body="\n".join(filter(None, body))
        )

    def to_json(self) -> str:
        """Values that are not finite become null."""
        content = {"format": FORMAT, "title": self.title, "subtitle": self.subtitle, "inputs": dict(self.inputs)}
        return json.dumps(_plain({**content, "sections": self.sections}), ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, path: Path) -> Written:
        """The page at `path`, whose name ends in .report.html so that its JSON (.report.json) overwrites no input."""
        if not path.name.endswith(".report.html"):
            raise ValueError(f"{path.name}: a report is called NAME.report.html")
        paths = Written(path, path.with_suffix(".json"))
        write_text(paths.html, self.to_html())
        write_text(paths.json, self.to_json())
        return paths

    def write_beside(self, output: Path) -> Written:
        """Beside what was made: `math.mask.json` gets `math.mask.report.html` and `math.mask.report.json`."""
        return self.write(output.with_suffix(".report.html"))

    def _add(self, section: dict[str, Any], drawn: str) -> None:
        self.sections.append(section)
        caption = section.get("caption")
        self._drawn.append((f"<h2>{escape(caption)}</h2>" if caption else "") + drawn)


def shown(cell: Cell) -> str:
    """A cell for people: four significant digits for a fraction, a dash for what there is none of."""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.4g}" if isinstance(cell, float) else cell


def _with_unit(figure: Figure) -> str:
    return f"{shown(float(figure.value))} {figure.unit}".rstrip()


def _interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return "–"
    return f"{shown(float(figure.low))} to {shown(float(figure.high))}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(drawn: str, note: str) -> str:
    return f"<figure>{drawn}{f'<figcaption>{escape(note)}</figcaption>' if note else ''}</figure>"


def _numbers(values: Grid) -> list[list[float]]:
    return [[float(value) for value in line] for line in values]


def _plain(value: Any) -> Any:
    """Only what JSON has: numbers of any library become Python's, odd ones null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, bool | str | int) or value is None:
        return value
    if isinstance(value, Iterable):
        return [_plain(each) for each in value]
    number = float(value)
    return number if math.isfinite(number) else None
