"""What the pool and the gateway may ask of an engine, wherever it runs.

`client.EngineClient` (a child process on this machine) is the first implementation; an engine behind another
OpenAI-compatible server is the second. Everything that crosses is plain data.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from specialists.request import GenerationEvent, GenerationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What to load and how; specialists with equal specs share one engine.

    `context_tokens` is per conversation; the cache holds `context_tokens * parallel` tokens in all.
    `gpu_layers` −1 means all that the device takes.
    """

    model_path: Path
    context_tokens: int
    parallel: int = 4
    gpu_layers: int = -1
    adapter_path: Path | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What a loaded engine says of itself."""

    model_name: str
    vocabulary_size: int
    trained_context_tokens: int
    load_seconds: float
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """A snapshot for people and metrics; never wakes anything."""

    running: int
    waiting: int


class Engine(Protocol):
    """One loaded model that generates for many requests at once."""

    async def load(self, on_progress: Callable[[float], None]) -> EngineInfo:
        """Load the model, reporting the share done in [0, 1].

        Cancelling the task cancels the load. Raises SpecialistUnavailable (the file is bad or missing),
        ModelTooLarge (memory ran out), LoadTimeout (no progress), WorkerLost (the process died).
        """
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Yield Started, Tokens… and Finished; closing the iterator early aborts the generation.

        Raises RequestRejected and its kinds before Started; WorkerLost or WorkerTimeout at any point.
        """
        ...

    def status(self) -> EngineStatus: ...

    async def close(self) -> None:
        """Stop at once; running generations raise WorkerLost. Idempotent."""
        ...

    async def wait_lost(self) -> None:
        """Return when the engine has ended, whether by `close` or by a crash."""
        ...
