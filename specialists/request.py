"""The values that cross from the gateway to an engine and back; plain data, frozen.

They are msgspec structs because they travel over a socket as they are (`engine.messages`). Nothing here
knows HTTP, llama.cpp or where the engine runs.
"""

from enum import StrEnum

from msgspec import Struct


class ToolCall(Struct, frozen=True):
    """A function that the assistant called: `arguments` is a JSON object as text, `id` what the result refers to."""

    id: str
    name: str
    arguments: str


class Message(Struct, frozen=True):
    """One turn of a conversation. All of it is untrusted text, which is never parsed for special tokens.

    `tool_calls` are the assistant's. In a message of role `tool`, `tool_name` is the function whose result this is and
    `tool_call_id` the call it answers.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""


class Tool(Struct, frozen=True):
    """A function that may be called. `parameters` is a JSON schema as text, of an object.

    `strict`: its arguments match the schema even where the model itself decides to call it.
    """

    name: str
    description: str
    parameters: str
    strict: bool = False


class ToolChoice(StrEnum):
    """Whether the answer is to be text or calls."""

    AUTO = "auto"  # as the model sees fit
    REQUIRED = "required"  # calls only


class ToolUse(Struct, frozen=True, kw_only=True):
    """The functions an answer may call. `parallel`: several in one answer; None leaves it to the model's format."""

    tools: tuple[Tool, ...]
    choice: ToolChoice = ToolChoice.AUTO
    parallel: bool | None = None


class ChatPrompt(Struct, frozen=True, tag="chat"):
    """A conversation, rendered by the model's own chat template with thinking off.

    `tool_use` is None where nothing may be called. `assistant_prefill` is trusted text that begins the answer (the
    closed think block); `continuation` is untrusted text of the answer that is to be continued, placed after it.
    """

    messages: tuple[Message, ...]
    assistant_prefill: str = ""
    continuation: str = ""
    tool_use: ToolUse | None = None


class TextPrompt(Struct, frozen=True, tag="text"):
    """Raw text to be continued; no template, no special tokens parsed."""

    text: str


class TokenPrompt(Struct, frozen=True, tag="tokens"):
    """Token ids to be continued."""

    tokens: tuple[int, ...]


Prompt = ChatPrompt | TextPrompt | TokenPrompt


class SamplingParams(Struct, frozen=True, kw_only=True):
    """How the next token is drawn. Defaults are neutral apart from the project's T = 0.6.

    top_k 0, top_p 1, min_p 0, repeat_penalty 1 and the other penalties 0 each switch that step off.
    `repeat_last_n` is the penalties' window in tokens. `logit_bias` holds (token id, bias) pairs.
    """

    temperature: float = 0.6
    top_k: int = 64
    top_p: float = 0.95
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()


class LoopGuardMode(StrEnum):
    """What is done about answers that repeat themselves."""

    OFF = "off"
    DETECT = "detect"  # counted and reported, never touched
    RESCUE = "rescue"  # taken back and drawn anew


class LoopGuardParams(Struct, frozen=True, kw_only=True):
    """How hard an answer that loops is tried to be rescued; `engine.loop_rescue` explains the rungs.

    `resamples` bounds the draws anew at one place, `paragraphs` the returns to a paragraph's start, `attempts` the
    answers begun from the prompt (the first one counts), `rewinds` all of them together. `rescue_tokens` is for how
    many tokens the first rewind changes the sampling; each further one doubles it.
    """

    mode: LoopGuardMode = LoopGuardMode.OFF
    resamples: int = 3
    paragraphs: int = 1
    attempts: int = 2
    rewinds: int = 8
    rescue_tokens: int = 64


class CallMarks(Struct, frozen=True):
    """How a model writes a call into its answer: `opening`, up to `max_characters` on the same line, one of `closings`.

    An opening before white space, or twice, opens nothing.
    """

    opening: str
    closings: tuple[str, ...]
    max_characters: int


class GenerationRequest(Struct, frozen=True, kw_only=True):
    """One generation, complete: an engine needs nothing else to run it.

    `max_tokens` bounds the answer and `context_tokens` bounds prompt plus answer, in tokens.
    `logprobs` is the number of alternatives wanted beside each token (0 = the token's own only; None = none).
    `json_schema` is a JSON schema as text that the answer must match.
    `echo_logprobs` asks for the log-probabilities of the prompt's own tokens (evaluation harnesses do).
    Where nothing `is_streamed`, the text comes in one piece at the end, so that all of it can still be taken back.
    `specialist` is the tag that answers: an engine that can be several serves one at a time, and others' requests wait.
    `priority` −10 to 10 decides who gets the next free place in an engine; more goes first.
    `call_marks`, where given, end the generation at each complete call of the model's.
    """

    id: str
    prompt: Prompt
    sampling: SamplingParams
    max_tokens: int
    context_tokens: int
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    json_schema: str | None = None
    echo_logprobs: bool = False
    loop_guard: LoopGuardParams = LoopGuardParams()
    is_streamed: bool = True
    specialist: str = ""
    priority: int = 0
    call_marks: CallMarks | None = None


class FinishReason(StrEnum):
    """Why a generation ended by itself."""

    STOP = "stop"  # end of turn, or a stop string
    LENGTH = "length"  # max_tokens or the context's edge
    TOOL_CALLS = "tool_calls"  # it ends in calls; engines say `stop`, whoever reads the calls says this


class TokenLogprob(Struct, frozen=True):
    """Log-probability (natural log) of one token; `piece` is its bytes as they appear in the text.

    `logprob` is None for a prompt's first token, which nothing predicts.
    """

    token: int
    piece: bytes
    logprob: float | None
    top: tuple[tuple[int, bytes, float], ...] = ()


class Usage(Struct, frozen=True, kw_only=True):
    """Token counts of one generation; `cached_tokens` of the prompt were reused, not computed again."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class LoopReport(Struct, frozen=True, kw_only=True):
    """What the loop guard saw and did in one answer. Tokens are counted in the answer, from 0.

    `rung` names the highest one that was needed, None when nothing was done; `onset` is where the last loop began
    to repeat. `tokens_discarded` were computed and taken back: no usage counts them. `tokens_resampled` of the
    answer were drawn otherwise than the request says, repetition being penalised. `first_token_redrawn`: the model
    had nothing to say at first. `handed_to` is the tag of who answered in the end, where that was somebody else.
    """

    hits: int = 0
    rewinds: int = 0
    rung: str | None = None
    onset: int | None = None
    tokens_discarded: int = 0
    tokens_resampled: int = 0
    first_token_redrawn: bool = False
    handed_to: str | None = None


class Started(Struct, frozen=True, tag="started"):
    """The prompt has been accepted and a Sequence assigned; computing it begins.

    `tool_format` names the row of `tool_calls.formats` in which the model writes calls ("": it was offered no tools).
    """

    prompt_tokens: int
    cached_tokens: int
    queue_seconds: float
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    tool_format: str = ""


class Tokens(Struct, frozen=True, tag="tokens"):
    """Text that is now certain: whole code points, and no part of a possible stop string.

    `num_draws` of tokens became text here; several where text waited for more (`engine.outbox`).
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    num_draws: int = 1


class Finished(Struct, frozen=True, tag="finished"):
    """The generation is complete; nothing follows. `loop` is None where no guard watched.

    `stop` is the stop string, or the closing of a call, that ended it; None where something else did.
    """

    reason: FinishReason
    usage: Usage
    loop: LoopReport | None = None
    stop: str | None = None


GenerationEvent = Started | Tokens | Finished
