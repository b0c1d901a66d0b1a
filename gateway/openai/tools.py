"""Functions that a client offers, and how it wants them called: what may be sent, and what it means.

Checked to the last field like everything else; what a model makes of tools is `specialists.tool_calls`' affair.
Messages that bring calls and results back are checked against each other in `require_answered_calls`.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from gateway.openai.strict import Strict, invalid, unsupported, wrong_type
from specialists.errors import InvalidSchema, RequestRejected
from specialists.json_schema import check_schema
from specialists.request import Message, Tool, ToolCall, ToolChoice, ToolUse

MAX_TOOLS = 128
MAX_TOOLS_CHARACTERS = 256 * 1024
MAX_CALLS_IN_A_MESSAGE = 128
MAX_CALL_ID_CHARACTERS = 512
MAX_ARGUMENTS_CHARACTERS = 1024 * 1024
NO_PARAMETERS = {"type": "object", "properties": {}}
MODES = ("none", "auto", "required")


def schema_text(schema: object) -> str:
    """A schema as JSON text. Raises ValueError where it cannot be said in JSON, RecursionError where it is too deep."""
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _parameters(schema: dict[str, Any]) -> dict[str, Any]:
    try:
        check_schema(schema_text(schema))
    except (ValueError, RecursionError):
        raise invalid("The schema should be plain JSON of moderate depth with finite numbers") from None
    except InvalidSchema as error:
        raise PydanticCustomError("invalid_json_schema", "{text}", {"text": str(error)}) from None
    if schema.get("type", "object") != "object":
        raise invalid("The schema of a function's parameters should have the type 'object'")
    return schema


class FunctionDefinition(Strict):
    """A function. Without parameters it takes none."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str = ""
    parameters: Annotated[dict[str, Any], AfterValidator(_parameters)] = Field(default_factory=lambda: NO_PARAMETERS)
    strict: bool = False

    def as_tool(self) -> Tool:
        return Tool(self.name, self.description, schema_text(self.parameters), self.strict)


def require_function(kind: object) -> object:
    """The type of a tool, which can only be a function here. Raises a validation error."""
    if not isinstance(kind, str):
        raise wrong_type("Input should be a string")
    if kind != "function":
        raise unsupported(f"A tool of type '{kind[:64]}'", "offer functions only")
    return kind


FunctionType = Annotated[str, BeforeValidator(require_function)]


class ToolDefinition(Strict):
    """One of `tools`."""

    type: FunctionType = "function"
    function: FunctionDefinition


def require_sound_tools(functions: Sequence[FunctionDefinition]) -> None:
    """Raises a validation error on two functions of one name, or on more text than a prompt should begin with."""
    names = [function.name for function in functions]
    double = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if double is not None:
        raise invalid(f"Each function should have a name of its own, and '{double}' comes twice")
    size = sum(len(function.description) + len(schema_text(function.parameters)) for function in functions)
    if size > MAX_TOOLS_CHARACTERS:
        raise invalid(f"All functions together should have at most {MAX_TOOLS_CHARACTERS} characters")


def _sound(tools: list[ToolDefinition]) -> list[ToolDefinition]:
    require_sound_tools([tool.function for tool in tools])
    return tools


Tools = Annotated[list[ToolDefinition], Field(max_length=MAX_TOOLS), AfterValidator(_sound)]


class Choice(NamedTuple):
    """`mode` is none, auto or required; `names`, where given, are the only functions to choose from."""

    mode: str = "auto"
    names: tuple[str, ...] | None = None


def choice_reader(name_of: Callable[[dict[str, Any]], object]) -> Callable[[object], object]:
    """Reads a `tool_choice`; `name_of` finds the function's name where one is asked for, as the APIs differ there."""

    def read(value: object) -> object:
        if isinstance(value, Choice):
            return value
        if isinstance(value, str):
            if value not in MODES:
                raise invalid("Input should be 'none', 'auto', 'required' or a function")
            return Choice(value)
        if not isinstance(value, dict):
            raise wrong_type("Input should be a string or an object")
        if value.get("type") == "allowed_tools":
            return _allowed(value, name_of)
        require_function(value.get("type"))
        return Choice("required", (_named(name_of(value)),))

    return read


def _allowed(value: dict[str, Any], name_of: Callable[[dict[str, Any]], object]) -> Choice:
    given = value.get("allowed_tools", value)  # chat nests it, responses do not
    mode, tools = (given.get("mode", "auto"), given.get("tools")) if isinstance(given, dict) else (None, None)
    if mode not in ("auto", "required") or not isinstance(tools, list) or not tools:
        raise invalid("allowed_tools should have a mode 'auto' or 'required' and a list of tools")
    if len(tools) > MAX_TOOLS or not all(isinstance(tool, dict) for tool in tools):
        raise invalid(f"allowed_tools should hold at most {MAX_TOOLS} functions")
    return Choice(mode, tuple(_named(name_of(tool)) for tool in tools))


def _named(name: object) -> str:
    if not isinstance(name, str):
        raise wrong_type("A function to be called should have a name that is a string")
    return name


def _chat_name(value: dict[str, Any]) -> object:
    function = value.get("function")
    return function.get("name") if isinstance(function, dict) else None


ToolChoiceField = Annotated[Choice, BeforeValidator(choice_reader(_chat_name))]


def tool_use(
    functions: Iterable[FunctionDefinition], choice: Choice | None, *, parallel: bool | None
) -> ToolUse | None:
    """What the model may call; None if nothing. Raises RequestRejected on a choice among functions not offered."""
    tools = tuple(function.as_tool() for function in functions)
    if choice is None:
        choice = Choice()
    offered = {tool.name: tool for tool in tools}
    unknown = next((name for name in choice.names or () if name not in offered), None)
    if unknown is not None:
        raise RequestRejected(
            f"Invalid 'tool_choice': there is no function '{unknown[:64]}' among the tools.", param="tool_choice"
        )
    if choice.mode == "required" and not tools:
        raise RequestRejected("Invalid 'tool_choice': a call is required, and there are no tools.", param="tool_choice")
    if choice.mode == "none" or not tools:
        return None
    if choice.names is not None:
        tools = tuple(offered[name] for name in dict.fromkeys(choice.names))
    return ToolUse(tools=tools, choice=ToolChoice(choice.mode), parallel=parallel)


class CalledFunction(Strict):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: Annotated[str, Field(max_length=MAX_ARGUMENTS_CHARACTERS)] = ""


class ToolCallItem(Strict):
    """A call of the assistant's, sent back."""

    id: Annotated[str, Field(min_length=1, max_length=MAX_CALL_ID_CHARACTERS)]
    type: FunctionType = "function"
    function: CalledFunction

    def as_call(self) -> ToolCall:
        return ToolCall(self.id, self.function.name, arguments_object(self.function.arguments))


ToolCalls = Annotated[list[ToolCallItem], Field(max_length=MAX_CALLS_IN_A_MESSAGE)]


def arguments_object(text: str) -> str:
    """The arguments of an earlier call as a JSON object; a model's own mistake must not end its conversation."""
    try:
        value = json.loads(text or "{}")
        if isinstance(value, dict):
            return schema_text(value)
    except (ValueError, RecursionError):
        pass
    return json.dumps({"unparsed": text}, ensure_ascii=False)


def require_answered_calls(messages: Sequence[Message], *, field: str = "messages") -> tuple[Message, ...]:
    """The messages, each result with the name of its function.

    Raises RequestRejected on a result without a call, and on a conversation that ends before the results.
    """
    named: list[Message] = []
    names: dict[str, str] = {}
    for index, message in enumerate(messages):
        if message.tool_calls:
            names = {call.id: call.name for call in message.tool_calls}
        elif message.role == "tool":
            # Elsewhere a message need not be one item of what was sent, so its place would say nothing.
            param = f"{field}.{index}.tool_call_id" if field == "messages" else field
            named.append(_with_name(message, names, param))
            continue
        else:
            names = {}
        named.append(message)
    if messages and messages[-1].tool_calls:
        raise RequestRejected(
            f"Invalid '{field}': the last message calls functions; send their results after it.", param=field
        )
    return tuple(named)


def _with_name(message: Message, names: dict[str, str], param: str) -> Message:
    if message.tool_call_id not in names:
        raise RequestRejected(
            f"Invalid '{param}': no call of the assistant's before it has the id '{message.tool_call_id[:64]}'.",
            param=param,
        )
    return Message("tool", message.content, tool_name=names[message.tool_call_id], tool_call_id=message.tool_call_id)
