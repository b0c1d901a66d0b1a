"""What a request brings to the pool and what it gets: plain values."""

import asyncio
from dataclasses import dataclass, field

from specialists.engine.protocol import Engine, EngineSpec
from specialists.errors import SpecialistError
from specialists.pool.forecast import Ticket
from specialists.pool.worker import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to use `engine` until the `async with` that gave it ends; the engine stays in memory so long.

    `waited_seconds` is all of the wait, `swap_seconds` the share of it during which the engine was loading.
    """

    engine: Engine
    waited_seconds: float
    swap_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a request wants of the pool; `name` is the family's member that is wanted, "" without a family.

    `is_heard`: what its engine holds by then is noted.
    """

    spec: EngineSpec
    name: str = ""
    pin: bool = False
    keep_alive_seconds: float | None = None
    ticket: Ticket = field(default_factory=Ticket)
    is_heard: bool = False


@dataclass(slots=True)
class Request:
    """One wish on its way: `outcome` becomes the worker it may use, or the error it is refused with."""

    wish: Wish
    since: float
    outcome: asyncio.Future[Worker | SpecialistError]
