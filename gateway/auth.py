"""Who may ask: those with a key, or everybody where there is no key at all.

Guards routes as a dependency, never by looking at paths, since the path a client shows in its Host header need
not be the one that is served. `/healthz`, `/readyz` and `/metrics` stay open: they tell nothing about
conversations, and whatever watches the server should not need its key.
"""

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import Request

from gateway.caller import Caller, set_caller
from gateway.errors import AuthenticationFailed
from gateway.keys import ApiKey, KeyFile, KeyFileError, digest_of, find_key
from gateway.rate_limits import Allowance, RateLimited

logger = logging.getLogger("gateway")

Guard = Callable[[Request], Awaitable[None]]
OPERATOR = "COE_API_KEY"  # what the one key in that setting is called
LOOK_AGAIN_SECONDS = 1.0


class KeyObserver(Protocol):
    """Who counts what keys are used for; `key` is a name."""

    def key_asked(self, key: str, *, outcome: str) -> None:
        """A request came; `outcome` is admitted or limited."""

    def key_spent(self, key: str, *, prompt_tokens: int, completion_tokens: int) -> None: ...


@dataclass(slots=True)
class _Holder:
    key: ApiKey
    allowance: Allowance


@dataclass(slots=True, kw_only=True)
class KeyDesk:
    """Knows the keys: the operator's own, and those in a file that may change while the gateway runs.

    A file that cannot be read any more leaves the keys as they were. Once there was a key, one is needed until the
    process ends, also when the last has been removed. `clock` is monotonic seconds.
    """

    api_key: str | None
    file: KeyFile | None
    observer: KeyObserver
    clock: Callable[[], float]
    is_guarded: bool = field(default=False, init=False)
    _version: object = field(default=None, init=False)
    _looked_at: float = field(default=-math.inf, init=False)
    _holders: dict[str, _Holder] = field(default_factory=dict, init=False)

    def open(self) -> "KeyDesk":
        """Read the file for the first time. Raises KeyFileError when it is not ours."""
        if self.file is not None:
            self._version = self.file.version()
            self._take(self.file.read())
        else:
            self._take(())
        return self

    def identify(self, presented: bytes) -> ApiKey | None:
        """Whose secret this is; None for nobody's."""
        self._look_again()
        return find_key([holder.key for holder in self._holders.values()], presented)

    def admit(self, key: ApiKey) -> None:
        """Count a request against the key's limits. Raises RateLimited."""
        try:
            self._holders[key.name].allowance.admit(self.clock())
        except RateLimited:
            self.observer.key_asked(key.name, outcome="limited")
            raise
        self.observer.key_asked(key.name, outcome="admitted")

    def headers(self, key: ApiKey) -> dict[str, str]:
        return self._holders[key.name].allowance.headers(self.clock())

    def caller(self, key: ApiKey) -> Caller:
        """Who asks with this key; what is spent in its name comes off its allowance."""
        allowance = self._holders[key.name].allowance

        def spend(prompt_tokens: int, completion_tokens: int) -> None:
            allowance.spend(prompt_tokens + completion_tokens, self.clock())
            self.observer.key_spent(key.name, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)

        return Caller(name=key.name, priority=key.priority, spend=spend)

    def needs_key(self) -> bool:
        """Whether a key is needed now."""
        self._look_again()
        return self.is_guarded

    def _look_again(self) -> None:
        now = self.clock()
        if self.file is None or now < self._looked_at + LOOK_AGAIN_SECONDS:
            return
        self._looked_at = now
        version = self.file.version()
        if version == self._version:
            return
        self._version = version
        try:
            self._take(self.file.read())
        except KeyFileError as error:
            logger.error("the keys stay as they were: %s", error)
        else:
            logger.info("API keys: %s", ", ".join(self._holders) or "none")

    def _take(self, keys: tuple[ApiKey, ...]) -> None:
        """From now on these; a key whose limits did not change keeps what it has left."""
        own = () if self.api_key is None else (ApiKey(name=OPERATOR, sha256=digest_of(self.api_key.encode())),)
        before, self._holders = self._holders, {}
        for key in (*keys, *own):
            known = before.get(key.name)
            is_same = known is not None and known.key == key
            self._holders[key.name] = known if known and is_same else _Holder(key, self._allowance(key))
        self.is_guarded = self.is_guarded or bool(self._holders)

    def _allowance(self, key: ApiKey) -> Allowance:
        return Allowance(
            requests_per_minute=key.requests_per_minute, tokens_per_minute=key.tokens_per_minute, now=self.clock()
        )


def require_key(desk: KeyDesk) -> Guard:
    """A dependency that raises AuthenticationFailed without a key where one is needed, RateLimited beyond its limits.

    Each POST counts as a request; what only reads is free. The limits that are left go out with the answer.
    """

    async def guard(request: Request) -> None:
        if not desk.needs_key():
            return
        key = desk.identify(_presented_key(request))
        if key is None:
            raise AuthenticationFailed(
                "The API key is missing or wrong. Send it as 'Authorization: Bearer KEY' or as 'x-api-key: KEY'."
            )
        request.state.key = key.name
        if request.method == "POST":
            desk.admit(key)
            request.state.headers = desk.headers(key)
        set_caller(desk.caller(key))

    return guard


def _presented_key(request: Request) -> bytes:
    """The key the client sent, as the bytes of its header; empty if it sent none."""
    headers: dict[bytes, bytes] = dict(request.scope["headers"])
    scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.strip()
    return headers.get(b"x-api-key", b"").strip()
