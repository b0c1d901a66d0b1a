"""What a client asked for, whatever dialect it spoke: the value between the mappings and the policy.

Fields that are None were not asked for; the policy fills them from the specialist. Knows neither HTTP nor the
engine's own types beyond Message.
"""

from dataclasses import dataclass

from specialists.request import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingWishes:
    """Sampling parameters as the client gave them, already of the right type and inside OpenAI's ranges."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A conversation to be answered `n` times. `json_schema` is a schema as text that each answer must match."""

    model: str
    messages: tuple[Message, ...]
    wishes: SamplingWishes = SamplingWishes()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None
    json_schema: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """Raw prompts (text or token ids), each to be continued `n` times; no template, no think block."""

    model: str
    prompts: tuple[str | tuple[int, ...], ...]
    wishes: SamplingWishes = SamplingWishes()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None
    echo: bool = False
