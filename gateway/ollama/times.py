"""Times as Ollama writes and reads them: RFC 3339, nanoseconds, and durations in Go's notation. Pure."""

import re
from datetime import UTC, datetime

LONGEST_SECONDS = 10 * 365 * 86_400.0
NEVER_SECONDS = 100 * 365.25 * 86_400.0  # a date is expected even where there is none; this one is far enough

_DURATION = re.compile(r"([+-]?)((?:(?:[0-9]{1,18}\.?[0-9]{0,18}|\.[0-9]{1,18})(?:ns|us|µs|μs|ms|s|m|h))+)")
_TERM = re.compile(r"([0-9.]+)(ns|us|µs|μs|ms|s|m|h)")
_PLAIN = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?")
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def rfc3339(unix_seconds: float) -> str:
    """UTC with microseconds, such as 2026-03-01T12:00:00.000000Z."""
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def nanoseconds(seconds: float | None) -> int:
    return 0 if seconds is None else max(0, round(seconds * 1e9))


def parse_duration(value: object) -> float:
    """Seconds from a number of seconds or from text such as "5m", "1h30m", "-1". Raises ValueError.

    Negative means for ever; what is longer than ten years is ten years.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError('a number of seconds or a text such as "5m" is expected')
    seconds = _seconds(value) if isinstance(value, str) else float(min(value, LONGEST_SECONDS))
    return min(seconds, LONGEST_SECONDS)


def _seconds(text: str) -> float:
    if _PLAIN.fullmatch(text):
        return float(text)
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f'{text[:40]!r} is no duration; write seconds, or a text such as "5m" or "1h30m"')
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _TERM.findall(found[2]))
    return -seconds if found[1] == "-" else seconds
