"""Lines with bands, scatters with error bars, and bars with intervals, as inline SVG.

A value that is no number, or has no place on an axis, is left out. What the numbers mean is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from specialists.builder.svg import (
    BOTTOM,
    NUM_COLOURS,
    TOP,
    Frame,
    Range,
    axes,
    colour,
    drawing,
    is_drawable,
    legend,
    span,
    text,
    x_axis,
)

_ROW: Final = 22  # pixels of one bar and the gap below it
_LONGEST_NAME: Final = 28
_DASHES: Final = ("", "6 3", "2 3", "8 3 2 3")  # tell lines apart once the colours are used up


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line: `ys` over `xs`, with an optional band from `lows` to `highs`, all of one length."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    lows: Sequence[float] = ()
    highs: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """One cloud: `sigmas` are vertical bars of one standard deviation, `labels` appear when pointed at."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    sigmas: Sequence[float] = ()
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar from zero to `value`, with an optional interval."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


def lines(series: Sequence[Series], across: str, up: str, label: str) -> str:
    frame = Frame(
        x=span(x for one in series for x in one.xs),
        y=span(y for one in series for y in (*one.ys, *one.lows, *one.highs)),
    )
    marks = "".join(_line(frame, number, one) for number, one in enumerate(series))
    return drawing(frame.width, frame.height, axes(frame, across, up) + marks, label) + legend([s.name for s in series])


def scatter(clouds: Sequence[Points], across: str, up: str, label: str, line: tuple[float, float] | None = None) -> str:
    """`line` is the (intercept, slope) of a dashed line drawn through the clouds."""
    frame = Frame(x=span(x for one in clouds for x in one.xs), y=span(y for one in clouds for y in _reach(one)))
    marks = _through(frame, *line) if line is not None else ""
    marks += "".join(_cloud(frame, number, one) for number, one in enumerate(clouds))
    return drawing(frame.width, frame.height, axes(frame, across, up) + marks, label) + legend([c.name for c in clouds])


def bars(values: Sequence[Bar], along: str, label: str) -> str:
    """Horizontal bars, one row each, with their names to the left."""
    ends = [end for bar in values for end in (bar.value, bar.low, bar.high) if end is not None]
    left = 20 + 7 * min(_LONGEST_NAME, max((len(bar.name) for bar in values), default=0))
    frame = Frame(
        x=span([0.0, *ends]), y=Range(len(values) or 1, 0), height=TOP + BOTTOM + _ROW * len(values), left=left
    )
    rows = "".join(_bar(frame, row, bar) for row, bar in enumerate(values))
    return drawing(frame.width, frame.height, x_axis(frame, along) + rows, label)


def _line(frame: Frame, number: int, one: Series) -> str:
    band = ""
    if one.lows and one.highs:
        there = _points(frame, one.xs, one.highs)
        back = _points(frame, [*reversed(one.xs)], [*reversed(one.lows)])
        band = f'<polygon points="{there} {back}" fill="{colour(number)}" fill-opacity=".18"/>'
    dash = _DASHES[number // NUM_COLOURS % len(_DASHES)]
    stroke = f'stroke="{colour(number)}" stroke-width="2" stroke-dasharray="{dash}"'
    return f'{band}<polyline points="{_points(frame, one.xs, one.ys)}" fill="none" {stroke}/>'


def _points(frame: Frame, xs: Sequence[float], ys: Sequence[float]) -> str:
    finite = [(x, y) for x, y in zip(xs, ys, strict=True) if is_drawable(x) and is_drawable(y)]
    return " ".join(f"{frame.across(x)},{frame.up(y)}" for x, y in finite)


def _reach(one: Points) -> list[float]:
    return [*one.ys, *(y + sign * s for y, s in zip(one.ys, one.sigmas, strict=False) for sign in (-1, 1))]


def _cloud(frame: Frame, number: int, one: Points) -> str:
    sigmas = one.sigmas or [0.0] * len(one.ys)
    labels = one.labels or [""] * len(one.ys)
    rows = zip(one.xs, one.ys, sigmas, labels, strict=True)
    return "".join(
        _dot(frame, x, y, s, said, colour(number)) for x, y, s, said in rows if is_drawable(x) and is_drawable(y)
    )


def _dot(frame: Frame, x: float, y: float, sigma: float, said: str, ink: str) -> str:
    at, whisker = frame.across(x), ""
    if sigma > 0 and is_drawable(sigma):
        whisker = f'<path d="M{at} {frame.up(y - sigma)}V{frame.up(y + sigma)}" stroke="{ink}" stroke-opacity=".5"/>'
    title = f"<title>{escape(said)}</title>" if said else ""
    return f'{whisker}<circle cx="{at}" cy="{frame.up(y)}" r="4" fill="{ink}" fill-opacity=".8">{title}</circle>'


def _through(frame: Frame, intercept: float, slope: float) -> str:
    """The part of the line that lies inside the frame."""
    crossings = [(y - intercept) / slope for y in frame.y] if slope else []
    xs = sorted(x for x in (*frame.x, *crossings) if frame.x.low <= x <= frame.x.high)
    ends = [(x, intercept + slope * x) for x in (xs[0], xs[-1])]
    inside = [(x, y) for x, y in ((x, intercept + slope * x) for x in xs) if _is_within(y, frame.y)] or ends
    points = " ".join(f"{frame.across(x)},{frame.up(y)}" for x, y in (inside[0], inside[-1]))
    return f'<polyline points="{points}" fill="none" stroke="var(--soft)" stroke-dasharray="5 4"/>'


def _is_within(value: float, limits: Range) -> bool:
    slack = 1e-9 * (limits.high - limits.low)
    return limits.low - slack <= value <= limits.high + slack


def _bar(frame: Frame, row: int, bar: Bar) -> str:
    middle = frame.up(row + 0.5)
    name = text(frame.left - 6, middle + 4, bar.name[:_LONGEST_NAME], "end")
    if not is_drawable(bar.value):
        return name
    low, high = sorted((frame.across(0), frame.across(bar.value)))
    box = f'<rect x="{low}" y="{middle - 7:.1f}" width="{high - low:.1f}" height="14" fill="{colour(0)}"/>'
    if bar.low is None or bar.high is None or not (is_drawable(bar.low) and is_drawable(bar.high)):
        return name + box
    ends = f"M{frame.across(bar.low)} {middle:.1f}H{frame.across(bar.high)}"
    return f'{name}{box}<path d="{ends}" stroke="var(--ink)" stroke-width="2"/>'
