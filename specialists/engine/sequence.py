"""One generation inside a context: its tokens, how many of them are computed, and what draws the next."""

from dataclasses import dataclass, field

from specialists.engine.chat_template import TokenizedPrompt
from specialists.engine.llama import SamplerChain
from specialists.engine.loop_watch import LoopWatch
from specialists.engine.prefix_cache import Slot
from specialists.engine.structured import SchemaMatcher
from specialists.engine.text import TextStream
from specialists.request import GenerationRequest, LoopGuardMode, TokenLogprob, Usage


@dataclass(slots=True, eq=False)
class Sequence:
    """A request under way. `tokens` is prompt plus answer; the first `num_computed` of them are in the cache.

    `owner` is the specialist whose weights make its cells; they are nonsense to any other. `tool_format` names how it
    writes calls, "" where it was offered no tools.
    `num_told` answer tokens have become text that left. `max_tokens` is the answer's bound after the context's edge
    has been taken into account. `arrived` is in seconds of the engine's clock. `slot` is None while it waits, also
    after it has been preempted. `watch` is None where no loop guard was asked for.
    """

    request: GenerationRequest
    prompt: TokenizedPrompt
    sampler: SamplerChain
    text: TextStream
    max_tokens: int
    arrived: float
    seed: int
    owner: str = ""
    tool_format: str = ""
    matcher: SchemaMatcher | None = None
    watch: LoopWatch | None = None
    tokens: list[int] = field(init=False)
    num_computed: int = 0
    num_told: int = 0
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
    def num_prompt(self) -> int:
        return len(self.prompt.tokens)

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - len(self.prompt.tokens)

    @property
    def may_rewind(self) -> bool:
        return self.watch is not None and self.watch.params.mode is LoopGuardMode.RESCUE

    @property
    def answer(self) -> list[int]:
        return self.tokens[len(self.prompt.tokens) :]

    def last_tokens(self, count: int) -> list[int]:
        return self.tokens[-count:] if count > 0 else []

    @property
    def is_prefilling(self) -> bool:
        return self.num_computed < len(self.prompt.tokens)

    @property
    def scores_prompt(self) -> bool:
        """Whether the next tokens to be computed are to be scored as well."""
        return self.request.echo_logprobs and self.is_prefilling and not self.is_started

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=len(self.prompt.tokens),
            completion_tokens=self.num_generated,
            cached_tokens=self.num_cached,
        )
