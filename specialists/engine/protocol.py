"""What the pool and the gateway may ask of an engine, wherever it runs.

`client.EngineClient` (a child process on this machine) is the first implementation; an engine behind another
OpenAI-compatible server is the second. Everything that crosses is plain data.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from specialists.request import GenerationEvent, GenerationRequest


class Pooling(StrEnum):
    """How the vectors of a text's tokens become one, the text's own."""

    MEAN = "mean"  # their average
    CLS = "cls"  # the first one's
    LAST = "last"  # the last one's


class CacheType(StrEnum):
    """What keys and values are kept in; smaller ones save memory and cost a little accuracy."""

    F16 = "f16"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"


@dataclass(frozen=True, slots=True)
class FamilyMember:
    """A specialist of a family: the name that requests and morphs use, and what makes it.

    Which is an expert mask over the family's parent, or a file of its own with its digests beside it
    (`tensor_digests`); all members are of one kind.
    """

    name: str
    mask_path: Path | None = None
    model_path: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What to load and how; specialists with equal specs share one engine.

    `context_tokens` is per conversation; the cache holds `context_tokens * parallel` tokens in all. `gpu_layers` −1
    means all that the device takes; of those on it, the first `cpu_expert_layers` layers have their experts in RAM all
    the same. With a `family` the engine is a frame that serves one of its members at a time;
    `model_path` is then their parent, or the first member's own file. `parking_bytes` is how much host memory it may
    take for conversations that had to leave the cache. `replica` numbers equal frames of one family, which are loaded
    beside each other. With a `pooling` the engine makes embeddings and generates nothing, and `context_tokens` bounds
    one text. `cache_type` is of keys and values, None as whoever loads it has it by default.
    """

    model_path: Path
    context_tokens: int
    parallel: int = 4
    gpu_layers: int = -1
    adapter_path: Path | None = None
    threads: int | None = None
    family: tuple[FamilyMember, ...] = ()
    parking_bytes: int = 0
    cpu_expert_layers: int = 0
    replica: int = 0
    pooling: Pooling | None = None
    cache_type: CacheType | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextVector:
    """`vector` is float32 (width,) and of length 1; `num_tokens` were read of its text, all unless `is_truncated`."""

    vector: NDArray[np.float32]
    num_tokens: int
    is_truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What a loaded engine says of itself.

    `serving` is the family's member that it serves ("" without a family). `why_fixed` says why it cannot become any
    other member, each of which then needs a load of its own; None where it can, or where there is no family.
    """

    model_name: str
    vocabulary_size: int
    trained_context_tokens: int
    load_seconds: float
    pid: int
    serving: str = ""
    why_fixed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """A snapshot for people and metrics; never wakes anything.

    `parked` conversations of `parked_bytes` in all are in host memory, out of the cache and not forgotten.
    """

    running: int
    waiting: int
    parked: int = 0
    parked_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MorphReport:
    """What one morph did: experts written, bytes moved, and for how long the frame could not decode."""

    num_writes: int
    num_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameReport:
    """A sample of a frame's slots, read back from the model and compared with the files they came from.

    `digest` (SHA-256 of the sampled bytes as the model holds them) is equal for equal samples of equal content.
    """

    serving: str
    num_slots: int
    num_bytes: int
    digest: str
    mismatches: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        return not self.mismatches


class Engine(Protocol):
    """One loaded model that generates for many requests at once."""

    async def load(self, on_progress: Callable[[float], None], *, serving: str = "") -> EngineInfo:
        """Load the model, reporting the share done in [0, 1]; of a family as the member `serving` ("": the first).

        Cancelling the task cancels the load. Raises SpecialistUnavailable (the file is bad or missing),
        ModelTooLarge (memory ran out), LoadTimeout (no progress), WorkerLost (the process died).
        """
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Yield Started, Tokens… and Finished; closing the iterator early aborts the generation.

        Raises RequestRejected and its kinds before Started; WorkerLost or WorkerTimeout at any point.
        """
        ...

    async def embed(self, texts: Sequence[str], *, may_truncate: bool) -> list[TextVector]:
        """The vector of each text, in their order. Only of an engine with a `pooling`.

        Raises ContextOverflow for a text that is too long and may not be cut, RequestRejected for one without tokens,
        GenerationFailed, WorkerLost or WorkerTimeout.
        """
        ...

    async def morph(self, name: str) -> MorphReport:
        """Serve another member of the family; requests for members that are not served wait.

        Conversations of the member served so far stay in the cache, unfinished ones too, and go on when it returns.
        Raises MorphFailed; the engine is then to be closed, and another loaded.
        """
        ...

    def read_ahead(self, name: str) -> None:
        """Have what a morph to `name` would read brought into memory, as `name` is likely to be next. A hint."""
        ...

    async def check_frame(self, *, num_slots: int, seed: int) -> FrameReport:
        """Compare a sample of the frame's slots with the files. Raises SpecialistUnavailable without a frame."""
        ...

    def status(self) -> EngineStatus: ...

    async def close(self) -> None:
        """Stop at once; running generations raise WorkerLost. Idempotent."""
        ...

    async def wait_lost(self) -> None:
        """Return when the engine has ended, whether by `close` or by a crash."""
        ...
