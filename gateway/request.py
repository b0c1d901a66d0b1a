"""What a client asked for, whatever dialect it spoke: the value between the mappings and the policy.

Fields that are None were not asked for; the policy fills them from the specialist. Knows neither HTTP nor the
engine's own types beyond Message.
"""

from dataclasses import dataclass

from specialists.request import LoopGuardMode, Message, ToolUse


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingWishes:
    """Sampling parameters as the client gave them, already of the right type and inside OpenAI's ranges.

    `repeat_last_n` is the penalties' window in tokens, −1 the whole context.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationThread:
    """What a client says of the conversation a request belongs to: its own id for it, and who is speaking."""

    user: str | None = None
    conversation_id: str | None = None


NO_THREAD = ConversationThread()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A conversation to be answered `n` times. `json_schema` is a schema as text that each answer must match.

    `tool_use` is what the answer may call, None where nothing.

    `calculator` and `knowledge`: whether the specialist may use what it has of them.

    Unless it `is_streamed` nobody sees any of an answer before all of it.
    """

    model: str
    messages: tuple[Message, ...]
    wishes: SamplingWishes = SamplingWishes()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None
    tool_use: ToolUse | None = None
    json_schema: str | None = None
    thread: ConversationThread = NO_THREAD
    loop_guard: LoopGuardMode | None = None
    calculator: bool = True
    knowledge: bool = True
    is_streamed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """Raw prompts (text or token ids), each to be continued `n` times; no template, no think block.

    The other fields are those of a ChatRequest.
    """

    model: str
    prompts: tuple[str | tuple[int, ...], ...]
    wishes: SamplingWishes = SamplingWishes()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None
    echo: bool = False
    json_schema: str | None = None
    loop_guard: LoopGuardMode | None = None
    is_streamed: bool = True
