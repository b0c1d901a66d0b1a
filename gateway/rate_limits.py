"""How much each key may use a minute: buckets that fill at the limit's rate, and what a client is told of them.

A request is let in while both buckets hold something. What its answer cost in tokens is known only at its end and is
taken then, so a bucket may fall below empty; nothing more is let in before that debt is paid. Pure but for the clock's
readings, which are arguments in monotonic seconds.
"""

import math
from collections.abc import Mapping

from gateway.errors import LONGEST_RETRY_AFTER_SECONDS, GatewayError


class RateLimited(GatewayError):
    """The key has used what it may; `retry-after` says when there is room again, at most 30 s."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.headers = headers


class Bucket:
    """Holds `per_minute` at most, is full at first, and gains a sixtieth of that each second."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._read_at = now

    def level(self, now: float) -> float:
        """What it holds; negative while there is a debt."""
        gained = max(0.0, now - self._read_at) * self.per_minute / 60
        self._level = min(float(self.per_minute), self._level + gained)
        self._read_at = max(self._read_at, now)
        return self._level

    def take(self, amount: float, now: float) -> None:
        self._level = self.level(now) - amount

    def seconds_until(self, level: float, now: float) -> float:
        """How long until it holds `level` again, if nobody takes anything."""
        return max(0.0, level - self.level(now)) * 60 / self.per_minute


class Allowance:
    """What one key has left of each of its limits; a limit that is None is none."""

    def __init__(self, *, requests_per_minute: int | None, tokens_per_minute: int | None, now: float) -> None:
        limits = {"requests": requests_per_minute, "tokens": tokens_per_minute}
        self._buckets = {name: Bucket(limit, now) for name, limit in limits.items() if limit is not None}

    def admit(self, now: float) -> None:
        """Take one request. Raises RateLimited, and takes nothing, where any bucket holds less than one."""
        for name, bucket in self._buckets.items():
            # Levels are sums of floats, and whoever waited as long as told must not miss it by the last bit.
            if bucket.level(now) < 1 - 1e-6:
                raise self._refusal(name, bucket, now)
        self._take("requests", 1, now)

    def spend(self, num_tokens: int, now: float) -> None:
        self._take("tokens", num_tokens, now)

    def headers(self, now: float) -> dict[str, str]:
        """`x-ratelimit-…` in OpenAI's form, for the limits that there are."""
        said: dict[str, str] = {}
        for name, bucket in self._buckets.items():
            said[f"x-ratelimit-limit-{name}"] = str(bucket.per_minute)
            said[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(bucket.level(now) + 1e-6)))
            said[f"x-ratelimit-reset-{name}"] = duration(bucket.seconds_until(bucket.per_minute, now))
        return said

    def _take(self, name: str, amount: float, now: float) -> None:
        if name in self._buckets:
            self._buckets[name].take(amount, now)

    def _refusal(self, name: str, bucket: Bucket, now: float) -> RateLimited:
        seconds = bucket.seconds_until(1, now)
        wait = max(1, min(math.ceil(seconds), LONGEST_RETRY_AFTER_SECONDS))
        limit = f"{bucket.per_minute} {name} a minute"
        text = f"This key may use {limit} and has used them; there is room in {duration(seconds)}."
        return RateLimited(text, {**self.headers(now), "retry-after": str(wait)})


def duration(seconds: float) -> str:
    """A length of time as OpenAI writes it: 850ms, 12s, 6m0s."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{text}s" if minutes else f"{text}s"
