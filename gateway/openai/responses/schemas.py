"""What may be sent to /v1/responses, checked to the last field.

Text and functions are understood. Tools that OpenAI runs itself, images, files and prompts kept elsewhere are refused
by name; what merely tunes OpenAI's own servers is ignored, as are unknown fields.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from gateway.openai.schemas import (
    MAX_ID_CHARACTERS,
    MAX_MESSAGES,
    MAX_MODEL_CHARACTERS,
    CoeFields,
    Content,
    Number,
    Refused,
    TokenCount,
    UserName,
    moderate,
)
from gateway.openai.strict import Strict, invalid, unsupported, wrong_type
from gateway.openai.tools import (
    MAX_ARGUMENTS_CHARACTERS,
    MAX_CALL_ID_CHARACTERS,
    MAX_TOOLS,
    Choice,
    FunctionDefinition,
    FunctionType,
    choice_reader,
    require_function,
    require_sound_tools,
    schema_text,
)

MAX_INSTRUCTIONS_CHARACTERS = 1024 * 1024
MAX_METADATA = 16
LOGPROBS = "message.output_text.logprobs"

CallId = Annotated[str, Field(min_length=1, max_length=MAX_CALL_ID_CHARACTERS)]


class MessageItem(Strict):
    """A turn; what the assistant said comes back in the same form as it was sent."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class FunctionCallItem(Strict):
    type: Literal["function_call"]
    call_id: CallId
    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: Annotated[str, Field(max_length=MAX_ARGUMENTS_CHARACTERS)] = ""


class FunctionCallOutputItem(Strict):
    type: Literal["function_call_output"]
    call_id: CallId
    output: Content


class ReasoningItem(Strict):
    """Reasoning of earlier answers, which is not shown to the model again."""

    type: Literal["reasoning"]


_KINDS = ("message", "function_call", "function_call_output", "reasoning")


def _item(value: object) -> object:
    """A turn may leave its type out; items of other types are refused by name."""
    if not isinstance(value, dict):
        raise wrong_type("Input should be an object")
    kind = value.get("type", "message")
    if not isinstance(kind, str):
        raise wrong_type("The type of an item should be a string")
    if kind not in _KINDS:
        raise unsupported(f"An item of type '{kind[:64]}'", "send messages, function calls and their outputs")
    return value | {"type": kind}


Item = Annotated[
    MessageItem | FunctionCallItem | FunctionCallOutputItem | ReasoningItem,
    Field(discriminator="type"),
    BeforeValidator(_item),
]


def _items(value: object) -> object:
    """A text is one turn of the user's."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise wrong_type("Input should be a string or a list of items")
    return value


class FunctionTool(FunctionDefinition):
    """One of `tools`, which is flat here."""

    type: FunctionType


def _tool(value: object) -> object:
    """Before anything else about a tool, whether it is a function at all."""
    if isinstance(value, dict):
        require_function(value.get("type"))
    return value


def _sound(tools: list[FunctionTool]) -> list[FunctionTool]:
    require_sound_tools(tools)
    return tools


class TextFormat(Strict):
    """`text.format`, flat here as well."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: Annotated[str, Field(max_length=64)] = "answer"
    definition: Annotated[dict[str, Any] | None, AfterValidator(moderate)] = Field(default=None, alias="schema")

    def schema_text(self) -> str | None:
        """The JSON schema that the text must match; None when any will do."""
        if self.type == "text":
            return None
        return schema_text(self.definition) if self.type == "json_schema" else '{"type":"object"}'


def _with_schema(value: object) -> object:
    if isinstance(value, dict) and value.get("type") == "json_schema" and value.get("schema") is None:
        raise invalid("A format of type 'json_schema' should have a schema")
    return value


class TextOptions(Strict):
    format: Annotated[TextFormat, BeforeValidator(_with_schema)] | None = None


def _refuse_truncation(value: object) -> None:
    if value != "disabled":
        raise unsupported("Leaving out parts of a conversation", "leave truncation out, or send 'disabled'")


def _metadata(value: object) -> object:
    if not isinstance(value, dict):
        raise wrong_type("Input should be an object")
    if len(value) > MAX_METADATA or not all(isinstance(text, str) and len(text) <= 512 for text in value.values()):
        raise invalid(f"Input should hold at most {MAX_METADATA} texts of at most 512 characters")
    if any(len(name) > 64 for name in value):
        raise invalid("The names in metadata should have at most 64 characters")
    return value


def _flat_name(value: dict[str, Any]) -> object:
    return value.get("name")


class ResponsesBody(Strict):
    """The body of POST /v1/responses."""

    model: Annotated[str, Field(min_length=1, max_length=MAX_MODEL_CHARACTERS)]
    input: Annotated[list[Item], BeforeValidator(_items), Field(min_length=1, max_length=MAX_MESSAGES)]
    instructions: Annotated[str, Field(max_length=MAX_INSTRUCTIONS_CHARACTERS)] | None = None
    previous_response_id: Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS)] | None = None
    store: bool = True
    stream: bool = False
    background: bool = False
    max_output_tokens: TokenCount | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: Annotated[list[str], Field(max_length=32)] = Field(default_factory=list)
    text: TextOptions | None = None
    tools: Annotated[
        list[Annotated[FunctionTool, BeforeValidator(_tool)]], Field(max_length=MAX_TOOLS), AfterValidator(_sound)
    ] = Field(default_factory=list)
    tool_choice: Annotated[Choice, BeforeValidator(choice_reader(_flat_name))] | None = None
    parallel_tool_calls: bool | None = None
    user: UserName | None = None
    metadata: Annotated[dict[str, str], BeforeValidator(_metadata)] = Field(default_factory=dict)
    coe: CoeFields | None = None

    truncation: Annotated[None, BeforeValidator(_refuse_truncation)] = None
    conversation: Refused = None
    prompt: Refused = None
    moderation: Refused = None
    context_management: Refused = None

    @property
    def num_logprobs(self) -> int | None:
        if self.top_logprobs is None and LOGPROBS not in self.include:
            return None
        return self.top_logprobs or 0

    @property
    def json_schema(self) -> str | None:
        return self.text.format.schema_text() if self.text and self.text.format else None
