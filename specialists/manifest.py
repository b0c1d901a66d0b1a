"""What the gateway knows of one specialist: everything but its weights."""

from dataclasses import dataclass, field

from specialists.engine.protocol import EngineSpec
from specialists.request import Message, SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialistManifest:
    """One specialist of a college, resolved from `college.toml` and its Modelfile.

    `context_tokens` bounds one conversation, `max_tokens` its answer (Modelfile `num_ctx`, `num_predict`).
    `examples` are the Modelfile's MESSAGE turns, shown to the model before the conversation.
    `keep_alive_seconds` None means: stay until the room is needed. `unavailable` says why this specialist
    cannot be served at all (its file is missing or corrupt); None when it can.
    """

    tag: str
    engine: EngineSpec
    context_tokens: int
    max_tokens: int
    sampling: SamplingParams
    domains: tuple[str, ...] = ()
    system: str | None = None
    examples: tuple[Message, ...] = ()
    stop: tuple[str, ...] = field(default=())
    pin: bool = False
    keep_alive_seconds: float | None = None
    unavailable: str | None = None
