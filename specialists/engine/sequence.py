"""One generation inside a context: its tokens, how many of them are computed, and what draws the next."""

from dataclasses import dataclass, field

from specialists.engine.chat_template import TokenizedPrompt
from specialists.engine.llama import SamplerChain
from specialists.engine.prefix_cache import Slot
from specialists.engine.structured import SchemaMatcher
from specialists.engine.text import TextStream
from specialists.request import GenerationRequest, TokenLogprob, Usage


@dataclass(slots=True, eq=False)
class Sequence:
    """A request under way. `tokens` is prompt plus answer; the first `num_computed` of them are in the cache.

    `max_tokens` is the answer's bound after the context's edge has been taken into account. `arrived` is in seconds
    of the engine's clock. `slot` is None while it waits, also after it has been preempted.
    """

    request: GenerationRequest
    prompt: TokenizedPrompt
    sampler: SamplerChain
    text: TextStream
    max_tokens: int
    arrived: float
    matcher: SchemaMatcher | None = None
    tokens: list[int] = field(init=False)
    num_computed: int = 0
    num_cached: int = 0
    slot: Slot | None = None
    is_started: bool = False
    is_paused: bool = False
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt.tokens)

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def slot_id(self) -> int:
        """The Sequence id it runs under; −1 while it waits."""
        return self.slot.id if self.slot is not None else -1

    @property
    def num_pending(self) -> int:
        """Tokens that must be computed before the next one can be drawn."""
        return len(self.tokens) - self.num_computed

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - len(self.prompt.tokens)

    @property
    def is_prefilling(self) -> bool:
        return self.num_computed < len(self.prompt.tokens)

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=len(self.prompt.tokens),
            completion_tokens=self.num_generated,
            cached_tokens=self.num_cached,
        )
