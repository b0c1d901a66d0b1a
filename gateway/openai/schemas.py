"""What OpenAI's clients may send, checked to the last field before anything else looks at it.

Types are strict (a number in quotes is refused, as is `true` for a number), ranges are OpenAI's own, and
counts are bounded so that no request costs more than its size suggests. Unknown fields are ignored, as OpenAI's
servers do; known ones that are not supported here are refused by name. `null` means "not given" throughout.
What the fields mean for a specialist is decided in `gateway.policy`.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    field_validator,
)

from gateway.openai.strict import Strict, invalid, unsupported, wrong_type
from gateway.openai.tools import MAX_CALL_ID_CHARACTERS, ToolCalls, ToolChoiceField, Tools, schema_text
from specialists.request import LoopGuardMode

LARGEST_TOKEN_COUNT = 2**31 - 1
MAX_MESSAGES = 2048
MAX_CONTENT_PARTS = 1024
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_LOGIT_BIASES = 1024
MAX_PROMPTS = 16
MAX_SCHEMA_BYTES = 64 * 1024
MAX_MODEL_CHARACTERS = 256
MAX_ID_CHARACTERS = 512
CONVERSATION_NAMES = ("conversation_id", "chat_id", "thread_id", "session_id")


def _clamp_huge(value: object) -> object:
    """Any count beyond what a context could hold means "as many as possible"."""
    return min(value, LARGEST_TOKEN_COUNT) if type(value) is int else value


def _finite(value: object) -> object:
    """Integers are numbers too, unless they are too large for a float."""
    if type(value) is int and abs(value) > 2**53:
        raise invalid("Input should be a number of ordinary size")
    return value


def _refuse(value: object, info: ValidationInfo) -> None:
    """Empty values ask for nothing, and `auto` or `none` choose among no tools; anything else is refused."""
    if value and value not in ("none", "auto"):
        raise unsupported(f"The field '{info.field_name}'", "leave it out")


def _refuse_old(value: object, info: ValidationInfo) -> None:
    if value and value not in ("none", "auto"):
        raise unsupported(f"The field '{info.field_name}', which is deprecated,", "send tools and tool_choice instead")


def _refuse_sound(value: object) -> None:
    if value and value != ["text"]:
        raise unsupported("A modality other than text", "ask for ['text'], or leave the field out")


def _refuse_even_empty(value: object, info: ValidationInfo) -> None:
    raise unsupported(f"The field '{info.field_name}'", "leave it out")


TokenCount = Annotated[int, BeforeValidator(_clamp_huge), Field(ge=1)]
Number = Annotated[float, BeforeValidator(_finite)]
Refused = Annotated[None, BeforeValidator(_refuse)]
RefusedEvenEmpty = Annotated[None, BeforeValidator(_refuse_even_empty)]
Superseded = Annotated[None, BeforeValidator(_refuse_old)]


def _stops(value: object) -> object:
    stops = [value] if isinstance(value, str) else value
    if stops is None:
        return []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise wrong_type("Input should be a string or a list of strings")
    if len(stops) > MAX_STOPS:
        raise invalid(f"Input should hold at most {MAX_STOPS} stop strings")
    if any(not 1 <= len(stop) <= MAX_STOP_CHARACTERS for stop in stops):
        raise invalid(f"Each stop string should have 1 to {MAX_STOP_CHARACTERS} characters")
    return stops


def conversation_id(value: object) -> str | None:
    """Of all that may be in `metadata` only the conversation's id means something here."""
    if not isinstance(value, dict):
        raise wrong_type("Input should be an object")
    named = next((value[name] for name in CONVERSATION_NAMES if isinstance(value.get(name), str | int)), None)
    text = None if named is None or isinstance(named, bool) else str(named)
    if text is not None and len(text) > MAX_ID_CHARACTERS:
        raise invalid(f"A conversation's id should have at most {MAX_ID_CHARACTERS} characters")
    return text or None


UserName = Annotated[str, Field(max_length=MAX_ID_CHARACTERS)]
ConversationId = Annotated[str | None, BeforeValidator(conversation_id)]


Stops = Annotated[list[str], BeforeValidator(_stops)]


def _logit_bias(value: object) -> object:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong_type("Input should be an object of token id to bias")
    if len(value) > MAX_LOGIT_BIASES:
        raise invalid(f"Input should hold at most {MAX_LOGIT_BIASES} tokens")
    return {_token_id(key): _bias(bias) for key, bias in value.items()}


def _token_id(key: object) -> int:
    if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) <= 10 and int(key) < 2**31:
        return int(key)
    raise invalid("Each key should be a token id written in digits, below 2147483648")


def _bias(bias: object) -> float:
    if isinstance(bias, bool) or not isinstance(bias, int | float):
        raise wrong_type("Each bias should be a number")
    if not -100 <= bias <= 100:  # also false for NaN
        raise invalid("Each bias should be between -100 and 100")
    return float(bias)


LogitBias = Annotated[dict[int, float], BeforeValidator(_logit_bias)]


def _content(value: object) -> object:
    """Text, or a list of text parts that are joined; a part of another kind is refused by name."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong_type("Input should be a string or a list of content parts")
    if len(value) > MAX_CONTENT_PARTS:
        raise invalid(f"Input should hold at most {MAX_CONTENT_PARTS} content parts")
    return "".join(_part_text(part) for part in value)


def _part_text(part: object) -> str:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise wrong_type("Each content part should be an object with a type")
    kind = part["type"]
    if kind not in ("text", "input_text", "output_text", "refusal"):
        raise unsupported(f"A content part of type '{kind[:64]}'", "send text parts only")
    text = part.get("refusal" if kind == "refusal" else "text")
    if not isinstance(text, str):
        raise wrong_type("Each text part should have a text that is a string")
    return text


Content = Annotated[str, BeforeValidator(_content)]


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = Field(default=None, validate_default=True)

    refusal: str = ""
    tool_calls: ToolCalls = Field(default_factory=list)
    tool_call_id: Annotated[str, Field(max_length=MAX_CALL_ID_CHARACTERS)] = ""
    function_call: Superseded = None
    audio: Refused = None

    @field_validator("tool_calls")
    @classmethod
    def _only_the_assistant_may_call(cls, value: ToolCalls, info: ValidationInfo) -> ToolCalls:
        if value and info.data.get("role", "assistant") != "assistant":
            raise invalid("Only a message of role 'assistant' may have tool_calls")
        return value

    @field_validator("content")
    @classmethod
    def _only_the_assistant_may_be_silent(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("role", "assistant") != "assistant":
            raise invalid("Only a message of role 'assistant' may go without content")
        return value


def moderate(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    """A schema that is plain JSON, and not too long. Raises a validation error."""
    try:
        text = schema_text(schema)
    except (ValueError, RecursionError):
        raise invalid("The schema should be plain JSON of moderate depth with finite numbers") from None
    if len(text.encode()) > MAX_SCHEMA_BYTES:
        raise invalid(f"The schema should have at most {MAX_SCHEMA_BYTES} bytes as JSON text")
    return schema


class JSONSchemaFormat(Strict):
    # `schema` is a method of BaseModel, hence the alias
    definition: Annotated[dict[str, Any], AfterValidator(moderate)] = Field(alias="schema")


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchemaFormat | None = Field(default=None, validate_default=True)

    def schema_text(self) -> str | None:
        """The JSON schema that the answer must match, as text; None when any text will do."""
        if self.type == "text":
            return None
        if self.type == "json_object" or self.json_schema is None:
            return '{"type":"object"}'
        return schema_text(self.json_schema.definition)

    @field_validator("json_schema")
    @classmethod
    def _schema_must_be_there(cls, value: JSONSchemaFormat | None, info: ValidationInfo) -> JSONSchemaFormat | None:
        if value is None and info.data.get("type") == "json_schema":
            raise invalid("A response_format of type 'json_schema' should have a json_schema")
        return value


class StreamOptions(Strict):
    include_usage: bool = False


class CoeFields(Strict):
    """What only this server understands; the answer's object of the same name says what became of it."""

    loop_guard: Literal["off", "detect", "rescue"] | None = None
    calculator: bool = True
    knowledge: bool = True

    @property
    def mode(self) -> LoopGuardMode | None:
        return LoopGuardMode(self.loop_guard) if self.loop_guard else None


class SamplingFields(Strict):
    """What chat and raw completions have in common."""

    model: Annotated[str, Field(min_length=1, max_length=MAX_MODEL_CHARACTERS)]
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[Number, Field(gt=0, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    seed: int | None = None
    logit_bias: LogitBias = Field(default_factory=dict)
    stop: Stops = Field(default_factory=list)
    n: Annotated[int, Field(ge=1, le=128)] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    coe: CoeFields | None = None
    grammar: Refused = None

    @property
    def loop_guard(self) -> LoopGuardMode | None:
        return self.coe.mode if self.coe is not None else None

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatCompletionBody(SamplingFields):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: TokenCount | None = None
    max_completion_tokens: TokenCount | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    user: UserName | None = None
    metadata: ConversationId = None

    tools: Tools = Field(default_factory=list)
    tool_choice: ToolChoiceField | None = None
    parallel_tool_calls: bool | None = None
    functions: Superseded = None
    function_call: Superseded = None
    audio: Refused = None
    modalities: Annotated[None, BeforeValidator(_refuse_sound)] = None
    moderation: Refused = None
    web_search_options: RefusedEvenEmpty = None

    @field_validator("top_logprobs")
    @classmethod
    def _top_logprobs_need_logprobs(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and not info.data.get("logprobs", True):
            raise invalid("top_logprobs should come with logprobs set to true")
        return value


Prompts = list[str] | list[list[int]]


def _prompts(value: object) -> list[Any]:
    """One prompt or several, as text or as token ids, always returned as a list of prompts."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise wrong_type("Input should be a string, a list of token ids, or a non-empty list of either")
    if all(_is_token(item) for item in value):
        return [value]
    if len(value) > MAX_PROMPTS:
        raise invalid(f"Input should hold at most {MAX_PROMPTS} prompts")
    if all(isinstance(item, str) for item in value):
        return value
    if all(isinstance(item, list) and item and all(_is_token(token) for token in item) for item in value):
        return value
    raise wrong_type("Input should be a string, a list of token ids, or a non-empty list of either")


def _is_token(item: object) -> bool:
    return type(item) is int and 0 <= item < 2**31


class CompletionBody(SamplingFields):
    """The body of POST /v1/completions."""

    prompt: Annotated[Prompts, PlainValidator(_prompts)]
    max_tokens: TokenCount = 16
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool = False
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    suffix: Refused = None
