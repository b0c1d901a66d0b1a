"""What OpenAI's clients may send, checked to the last field before anything else looks at it.

Types are strict (a number in quotes is refused, as is `true` for a number), ranges are OpenAI's own, and
counts are bounded so that no request costs more than its size suggests. Unknown fields are ignored, as OpenAI's
servers do; known ones that are not supported here are refused by name. `null` means "not given" throughout.
What the fields mean for a specialist is decided in `gateway.policy`.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

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


def unsupported(what: str, mend: str) -> PydanticCustomError:
    """An error that becomes `unsupported_parameter`."""
    return PydanticCustomError(
        "unsupported_parameter", "{what} is not supported here; {mend}", {"what": what, "mend": mend}
    )


def invalid(text: str) -> PydanticCustomError:
    return PydanticCustomError("invalid_value", "{text}", {"text": text})


def wrong_type(text: str) -> PydanticCustomError:
    return PydanticCustomError("json_type", "{text}", {"text": text})


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


def _refuse_sound(value: object) -> None:
    if value and value != ["text"]:
        raise unsupported("A modality other than text", "ask for ['text'], or leave the field out")


TokenCount = Annotated[int, BeforeValidator(_clamp_huge), Field(ge=1)]
Number = Annotated[float, BeforeValidator(_finite)]
Refused = Annotated[None, BeforeValidator(_refuse)]


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


def _conversation_id(value: object) -> object:
    """Of all that may be in `metadata` only the conversation's id means something here."""
    if not isinstance(value, dict):
        raise wrong_type("Input should be an object")
    named = next((value[name] for name in CONVERSATION_NAMES if isinstance(value.get(name), str | int)), None)
    text = None if named is None or isinstance(named, bool) else str(named)
    if text is not None and len(text) > MAX_ID_CHARACTERS:
        raise invalid(f"A conversation's id should have at most {MAX_ID_CHARACTERS} characters")
    return text or None


UserName = Annotated[str, Field(max_length=MAX_ID_CHARACTERS)]
ConversationId = Annotated[str | None, BeforeValidator(_conversation_id)]


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


class Strict(BaseModel):
    """Base of every request model. Fields given as null fall back to their defaults."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _null_means_not_given(cls, data: object) -> object:
        if not isinstance(data, dict):
            raise wrong_type("Input should be a JSON object")
        return {key: value for key, value in data.items() if value is not None}


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
    if kind not in ("text", "input_text", "refusal"):
        raise unsupported(f"A content part of type '{kind[:64]}'", "send text parts only")
    text = part.get("refusal" if kind == "refusal" else "text")
    if not isinstance(text, str):
        raise wrong_type("Each text part should have a text that is a string")
    return text


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[str | None, BeforeValidator(_content)] = Field(default=None, validate_default=True)

    tool_calls: Refused = None
    function_call: Refused = None
    audio: Refused = None

    @field_validator("content")
    @classmethod
    def _only_the_assistant_may_be_silent(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("role", "assistant") != "assistant":
            raise invalid("Only a message of role 'assistant' may go without content")
        return value


def _as_text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _moderate(schema: dict[str, Any]) -> dict[str, Any]:
    try:
        text = _as_text(schema)
    except (ValueError, RecursionError):
        raise invalid("The schema should be plain JSON of moderate depth with finite numbers") from None
    if len(text.encode()) > MAX_SCHEMA_BYTES:
        raise invalid(f"The schema should have at most {MAX_SCHEMA_BYTES} bytes as JSON text")
    return schema


class JSONSchemaFormat(Strict):
    # `schema` is a method of BaseModel, hence the alias
    definition: Annotated[dict[str, Any], AfterValidator(_moderate)] = Field(alias="schema")


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JSONSchemaFormat | None = Field(default=None, validate_default=True)

    def schema_text(self) -> str | None:
        """The JSON schema that the answer must match, as text; None when any text will do."""
        if self.type == "text":
            return None
        if self.type == "json_object" or self.json_schema is None:
            return '{"type":"object"}'
        return _as_text(self.json_schema.definition)

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

    tools: Refused = None
    tool_choice: Refused = None
    functions: Refused = None
    function_call: Refused = None
    audio: Refused = None
    modalities: Annotated[None, BeforeValidator(_refuse_sound)] = None

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
