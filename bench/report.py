"""Turn timings into the few numbers people compare; pure arithmetic and text, every number with its unit."""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.load import LoadResult


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds."""

    p50: float
    p95: float
    p99: float

    def __str__(self) -> str:
        return f"{self.p50:8.1f} {self.p95:8.1f} {self.p99:8.1f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One load at one concurrency. Counts are tokens and requests, times milliseconds."""

    tokens_per_second: float
    first_token_ms: Percentiles
    per_token_ms: Percentiles
    pause_ms: Percentiles
    requests: int
    failed: int
    completion_tokens: int
    prompt_tokens: int
    cached_tokens: int
    reached_limit: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours divided by theirs, round by round."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:5.2f}× ({self.lowest:.2f}–{self.highest:.2f})"


def say(what: str) -> None:
    """What a bench is doing, on standard error."""
    print(f"{what} …", file=sys.stderr, flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, interpolated linearly; 0 for no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def percentiles_ms(seconds: Sequence[float]) -> Percentiles:
    return Percentiles(*(1e3 * percentile(seconds, share) for share in (0.50, 0.95, 0.99)))


def summarise(result: LoadResult) -> Summary:
    timings = result.timings
    return Summary(
        tokens_per_second=result.tokens_per_second,
        first_token_ms=percentiles_ms([timing.first_token_seconds for timing in timings]),
        per_token_ms=percentiles_ms([each for timing in timings if (each := timing.seconds_per_token) is not None]),
        pause_ms=percentiles_ms([pause for timing in timings for pause in timing.pause_seconds]),
        requests=len(timings) + len(result.failures),
        failed=len(result.failures),
        completion_tokens=result.completion_tokens,
        prompt_tokens=sum(timing.prompt_tokens for timing in timings),
        cached_tokens=sum(timing.cached_tokens for timing in timings),
        reached_limit=sum(timing.reached_limit for timing in timings),
    )


def middle(rounds: Sequence[Summary]) -> Summary:
    """The median round by tokens/s (the lower of two): real numbers of one round, not a mixture of several."""
    ordered = sorted(rounds, key=lambda summary: summary.tokens_per_second)
    return ordered[(len(ordered) - 1) // 2]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """None when a denominator is zero: a server that gave nothing cannot be compared with."""
    if not ours or any(their <= 0 for their in theirs):
        return None
    pairs = [our / their for our, their in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(pairs), min(pairs), max(pairs))


def ratios(ours: Sequence[Summary], theirs: Sequence[Summary]) -> dict[str, Ratio | None]:
    """tokens/s: more than 1 is better for us; the times: less than 1 is."""
    return {
        "tokens_per_second": ratio([s.tokens_per_second for s in ours], [s.tokens_per_second for s in theirs]),
        "first_token_p50": ratio([s.first_token_ms.p50 for s in ours], [s.first_token_ms.p50 for s in theirs]),
        "per_token_p50": ratio([s.per_token_ms.p50 for s in ours], [s.per_token_ms.p50 for s in theirs]),
    }


HEADER = (
    f"{'clients':>7}  {'server':<6} {'tokens/s':>9}   {'first token ms: p50':>19} {'p95':>8} {'p99':>8}   "
    f"{'per token ms: p50':>17} {'p95':>8} {'p99':>8}   {'pauses ms: p50':>14} {'p95':>8} {'p99':>8}   "
    f"{'prompt tokens':>13} {'cached':>7} {'failed':>6}"
)


def row(concurrency: int, name: str, summary: Summary) -> str:
    return (
        f"{concurrency:>7}  {name:<6} {summary.tokens_per_second:>9.1f}   {'':>10} {summary.first_token_ms}   "
        f"{'':>8} {summary.per_token_ms}   {'':>5} {summary.pause_ms}   {summary.prompt_tokens:>13} "
        f"{summary.cached_tokens:>7} {summary.failed:>3}/{summary.requests}"
    )


def ratio_line(concurrency: int, found: dict[str, Ratio | None]) -> str:
    words = {"tokens_per_second": "tokens/s", "first_token_p50": "first token", "per_token_p50": "per token"}
    parts = [f"{words[name]} {value if value is not None else 'n/a'}" for name, value in found.items()]
    return f"{concurrency:>7}  ours/theirs: {' · '.join(parts)}"


def as_json(summary: Summary) -> dict[str, object]:
    return asdict(summary)
