"""What every plot needs: a frame that maps data to the page, axes with round numbers, and escaping.

Colours are CSS variables of the page that holds the drawing (`specialists.builder.report`), so that light and dark
themes both read.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, NamedTuple

NUM_COLOURS: Final = 6
WIDTH: Final = 520
HEIGHT: Final = 300
LEFT: Final = 58
RIGHT: Final = 14
TOP: Final = 12
BOTTOM: Final = 44
_LARGEST: Final = 1e100


class Range(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Maps data to the page, x to the right and y upwards; sizes in pixels."""

    x: Range
    y: Range
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT

    def across(self, value: float) -> float:
        share = (value - self.x.low) / (self.x.high - self.x.low)
        return round(self.left + share * (self.width - self.left - RIGHT), 1)

    def up(self, value: float) -> float:
        share = (value - self.y.low) / (self.y.high - self.y.low)
        return round(self.height - BOTTOM - share * (self.height - BOTTOM - TOP), 1)


def is_drawable(value: float) -> bool:
    """Whether it has a place on an axis: a number, and not so large that arithmetic on it overflows."""
    return -_LARGEST < float(value) < _LARGEST


def colour(number: int) -> str:
    return f"var(--c{number % NUM_COLOURS})"


def text(x: float, y: float, content: str, anchor: str = "middle", *, ink: bool = False) -> str:
    """`ink` is for text on shades, which the page's soft colour would not stand out from."""
    strong = ' class="ink"' if ink else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{strong}>{escape(content)}</text>'


def upright(x: float, y: float, content: str, anchor: str = "start") -> str:
    """Text that reads upwards."""
    return f'<text transform="translate({x:g} {y:g}) rotate(-90)" text-anchor="{anchor}">{escape(content)}</text>'


def drawing(width: float, height: float, marks: str, label: str) -> str:
    """The whole element; `label` is what is read out to those who cannot see it."""
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return f'<svg {size} role="img" aria-label="{escape(label)}">{marks}</svg>'


def axes(frame: Frame, across: str, up: str) -> str:
    rows = "".join(
        f'<path d="M{frame.left} {frame.up(at)}H{frame.width - RIGHT}" stroke="var(--rule)"/>'
        + text(frame.left - 6, frame.up(at) + 4, f"{at:g}", "end")
        for at in ticks(frame.y, 5)
    )
    return rows + upright(13, (TOP + frame.height - BOTTOM) / 2, up, "middle") + x_axis(frame, across)


def x_axis(frame: Frame, across: str) -> str:
    low = frame.height - BOTTOM
    marks = "".join(
        f'<path d="M{frame.across(at)} {low}v4" stroke="var(--soft)"/>' + text(frame.across(at), low + 17, f"{at:g}")
        for at in ticks(frame.x)
    )
    line = f'<path d="M{frame.left} {low}H{frame.width - RIGHT}" stroke="var(--soft)"/>'
    return line + marks + text((frame.left + frame.width - RIGHT) / 2, frame.height - 8, across)


def legend(names: Sequence[str]) -> str:
    """Nothing for a single name: the caption says what it is."""
    if len(names) < 2:
        return ""
    keys = "".join(f'<span><i style="background:{colour(n)}"></i>{escape(name)}</span>' for n, name in enumerate(names))
    return f'<div class="legend">{keys}</div>'


def span(values: Iterable[float]) -> Range:
    """From the least to the greatest value that can be drawn, a little wider than the data and never empty."""
    found = [value for value in values if is_drawable(value)]
    low, high = min(found, default=0.0), max(found, default=1.0)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1 / _LARGEST):
        half = 0.5 * (abs(low) if abs(low) > 1 / _LARGEST else 1)
        return Range(low - half, high + half)
    pad = 0.03 * (high - low)
    return Range(low if low == 0 else low - pad, high if high == 0 else high + pad)


def ticks(within: Range, most: int = 6) -> list[float]:
    """Round values inside `within`, in steps of 1, 2 or 5 times a power of ten."""
    rough = (within.high - within.low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor >= rough)
    first, last = math.ceil(within.low / step), math.floor(within.high / step)
    return [float(f"{number * step:.10g}") for number in range(first, last + 1)]
