"""Tables of numbers as shaded cells: heat maps of many, matrices of few, as inline SVG.

Shades are opacities of one ink, so that more is further from the page in a light and a dark theme alike. Cells of
one shade are one path: 30 layers of 128 experts take 60 kB, not half a megabyte.
"""

from collections.abc import Callable, Sequence
from typing import Final

from specialists.builder.svg import colour, drawing, is_drawable, text, upright

MOST_NUMBERED: Final = 24  # columns of a matrix that leave room for a number in each cell
_SHADES: Final = 24
_WIDEST: Final = 900
_CELL_WIDTH, _CELL_HEIGHT = 40, 24

Grid = Sequence[Sequence[float]]


def heatmap(values: Grid, rows: Sequence[str], across: str, label: str, marked: Sequence[Sequence[bool]] = ()) -> str:
    """One cell per value, the largest darkest; `marked` cells get a dot. Columns are numbered from 0."""
    columns = max(len(line) for line in values)
    cell = max(5, min(24, _WIDEST // columns))
    left, low = _name_width(rows), len(values) * cell
    marks = _shaded(values, lambda row, column: f"M{left + column * cell} {row * cell}h{cell}v{cell}h-{cell}z")
    marks += _dots(marked, left, cell) + _row_names(rows, left, cell)
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64, 128, 4096) if step * cell >= 24)
    marks += "".join(text(left + (column + 0.5) * cell, low + 14, str(column)) for column in range(0, columns, step))
    marks += text(left + columns * cell / 2, low + 30, across)
    return drawing(left + columns * cell + 8, low + 36, marks, label)


def matrix(values: Grid, rows: Sequence[str], columns: Sequence[str], label: str) -> str:
    """A small table with its numbers in the cells, to two digits; a heat map without numbers when it is wide."""
    if len(columns) > MOST_NUMBERED:
        return heatmap(values, rows, "", label)
    left, top = _name_width(rows), _name_width(columns)

    def x(column: int) -> int:
        return left + column * _CELL_WIDTH

    def y(row: int) -> int:
        return top + row * _CELL_HEIGHT

    marks = _shaded(
        values, lambda row, column: f"M{x(column)} {y(row)}h{_CELL_WIDTH}v{_CELL_HEIGHT}h-{_CELL_WIDTH}z", darkest=0.5
    )
    marks += "".join(
        text(x(column) + _CELL_WIDTH / 2, y(row) + 16, f"{value:.2f}", ink=True)
        for row, line in enumerate(values)
        for column, value in enumerate(line)
        if is_drawable(value)
    )
    marks += "".join(text(left - 5, y(row) + 16, name, "end") for row, name in enumerate(rows))
    marks += "".join(upright(x(column) + 24, top - 5, name) for column, name in enumerate(columns))
    return drawing(x(len(columns)) + 8, y(len(rows)) + 8, marks, label)


def _shaded(values: Grid, cell: Callable[[int, int], str], darkest: float = 0.85) -> str:
    """All cells, grouped by shade; `darkest` is the opacity of the largest, lower where numbers stand in the cells."""
    finite = [value for line in values for value in line if is_drawable(value)]
    low, high = min([0.0, *finite]), max(finite, default=1.0)
    paths: dict[int, list[str]] = {}
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            if is_drawable(value) and high > low:
                paths.setdefault(round(_SHADES * (value - low) / (high - low)), []).append(cell(row, column))
    return "".join(
        f'<path d="{"".join(cells)}" fill="{colour(0)}" fill-opacity="{darkest * shade / _SHADES:.2f}"/>'
        for shade, cells in sorted(paths.items())
        if shade
    )


def _dots(marked: Sequence[Sequence[bool]], left: int, cell: int) -> str:
    at = [(row, column) for row, flags in enumerate(marked) for column, flag in enumerate(flags) if flag]
    size = max(2, cell // 3)
    edge = (cell - size) / 2
    path = "".join(f"M{left + c * cell + edge:g} {r * cell + edge:g}h{size}v{size}h-{size}z" for r, c in at)
    return f'<path d="{path}" fill="{colour(1)}"/>' if path else ""


def _row_names(rows: Sequence[str], left: int, cell: int) -> str:
    step = 1 if cell >= 11 else 5
    return "".join(
        text(left - 5, (row + 0.5) * cell + 4, name, "end") for row, name in enumerate(rows) if row % step == 0
    )


def _name_width(names: Sequence[str]) -> int:
    return 14 + 7 * max((len(name) for name in names), default=0)
