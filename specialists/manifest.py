"""What the gateway knows of one specialist: everything but its weights."""

from dataclasses import dataclass, field

from specialists.engine.protocol import EngineSpec
from specialists.request import LoopGuardMode, LoopGuardParams, Message, SamplingParams

RESCUE = LoopGuardParams(mode=LoopGuardMode.RESCUE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopGuardRules:
    """What is done about a specialist's loops. `clients_may_choose`: a request may name another mode.

    `fallback` is the tag of who answers instead when an answer nobody has seen cannot be rescued; None for nobody.
    """

    params: LoopGuardParams = RESCUE
    clients_may_choose: bool = True
    fallback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnowledgeRules:
    """What is looked up for a specialist's answers: at most so many `passages` of together `tokens`, from the index
    that was made for the specialist `index`."""

    index: str
    passages: int = 5
    tokens: int = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialistManifest:
    """One specialist of a college, resolved from `college.toml` and its Modelfile.

    `context_tokens` bounds one conversation, `max_tokens` its answer (Modelfile `num_ctx`, `num_predict`).
    `examples` are the Modelfile's MESSAGE turns, shown to the model before the conversation. `pin` keeps its engine in
    memory from the start on, `preload` only loads it then. `keep_alive_seconds` None means: stay until the room is
    needed; negative: stay once it is loaded. `unavailable` says why this specialist cannot be served at all (its file
    is missing or corrupt); None when it can. With a `calculator` what it wants to compute is computed for it;
    `knowledge` None means that nothing is looked up. `notes` are sentences for the operator: what was asked for and
    could not be had as it was, with the mend after the last semicolon.

    An embedding model is one whose engine has a pooling; its vectors have `vector_width` components, and what is about
    answers has no meaning for it.
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
    preload: bool = False
    keep_alive_seconds: float | None = None
    loop_guard: LoopGuardRules = field(default_factory=LoopGuardRules)
    calculator: bool = False
    knowledge: KnowledgeRules | None = None
    unavailable: str | None = None
    notes: tuple[str, ...] = ()
    vector_width: int = 0

    @property
    def makes_embeddings(self) -> bool:
        """Whether it makes vectors of texts, and answers nobody."""
        return self.engine.pooling is not None
