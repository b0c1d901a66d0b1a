"""Tools, calls and results as a chat template wants them: in its own words, or as plain text where it has none.

Templates that read tools get them in the shape that Hugging Face settled on. For the others, the tools are described
in the system text, calls stand in the assistant's text and results in a user's turn. What a client sent stays text:
here it lies inside nested values, where marks would not survive a template's handling, so whatever spells a markup
token is broken up instead.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from specialists.request import Message, Tool, ToolCall, ToolChoice, ToolUse
from specialists.tool_calls.formats import GENERIC

SEAM = "\ue0ff"  # private use; marks where text must be tokenised in two parts

_HOW_TO_CALL = (
    "# Tools\n\nYou may call these functions:\n<tools>\n{tools}\n</tools>\n\nTo call one, write its name and its "
    'arguments as a JSON object:\n<tool_call>\n{{"name": "<function name>", "arguments": {{…}}}}\n</tool_call>\n'
)
_WHEN_TO_CALL = {
    ToolChoice.AUTO: "Call a function only if you need it; its result follows in <tool_response>. Else just answer.",
    ToolChoice.REQUIRED: "Answer with a call and nothing else.",
}
_FOLDED = re.compile(r"tool_responses")
_OWN_TURN = re.compile(r"==\s*['\"]tool['\"]")


class Defuser:
    """Takes the force out of text that spells markup, in whatever case a template may turn it into."""

    def __init__(self, markup: Collection[str]) -> None:
        longest_first = sorted(markup, key=len, reverse=True)
        self._whole = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)", re.IGNORECASE)
        lower = [text.lower() for text in markup]
        self._starts = frozenset(text[:size] for text in lower for size in range(1, len(text)))
        self._ends = frozenset(text[-size:] for text in lower for size in range(1, len(text)))
        self._longest = max(map(len, lower), default=1)

    def text(self, text: str) -> str:
        """`text` with a seam inside each spelling, and at an edge that the template's text might complete to one."""
        text = text.replace(SEAM, "\ufffd")
        text = self._whole.sub(lambda match: match.group()[0] + SEAM + match.group()[1:], text)
        lower = text.lower()
        sizes = range(1, min(self._longest, len(text)) + 1)
        before = SEAM if any(lower[:size] in self._ends for size in sizes) else ""
        after = SEAM if any(lower[-size:] in self._starts for size in sizes) else ""
        return before + text + after

    def value(self, value: Any) -> Any:
        """A JSON value with every text in it, keys too, defused."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self.text(key): self.value(inner) for key, inner in value.items()}
            case list():
                return [self.value(inner) for inner in value]
            case _:
                return value


def tool_objects(tools: Iterable[Tool], defuser: Defuser) -> list[dict[str, Any]]:
    """The tools as templates expect them."""
    return [defuser.value(_object(tool)) for tool in tools]


def message_objects(
    messages: Sequence[Message], enclose: Callable[[str, int], str], defuser: Defuser, *, folds_results: bool
) -> list[dict[str, Any]]:
    """The messages as templates expect them; `enclose` marks a content as that of message `index`.

    `folds_results` puts results into the message that called, since the template knows no turn of a tool.
    """
    found: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        if folds_results and message.role == "tool" and found and found[-1].get("tool_calls"):
            found[-1].setdefault("tool_responses", []).append(_response(message, defuser))
            continue
        each: dict[str, Any] = {"role": message.role, "content": enclose(message.content, index)}
        if message.tool_calls:
            each["tool_calls"] = [_call_object(call, defuser) for call in message.tool_calls]
        if message.role == "tool":
            each |= {"name": defuser.text(message.tool_name), "tool_call_id": defuser.text(message.tool_call_id)}
        found.append(each)
    return found


def folds_results(template: str) -> bool:
    """Whether a template has results inside the message that called and no turn of their own."""
    return _FOLDED.search(template) is not None and _OWN_TURN.search(template) is None


def plain_messages(messages: Sequence[Message], tool_use: ToolUse | None) -> tuple[Message, ...]:
    """The same conversation for a template that knows nothing of tools."""
    plain: list[Message] = []
    is_result = False
    for message in messages:
        if message.role == "tool" and is_result:
            plain[-1] = Message("user", f"{plain[-1].content}\n{_result_text(message)}")
        elif message.role == "tool":
            plain.append(Message("user", _result_text(message)))
        elif message.tool_calls:
            plain.append(Message(message.role, _with_calls(message)))
        else:
            plain.append(message)
        is_result = message.role == "tool"
    if tool_use is None:
        return tuple(plain)
    described = _described(tool_use)
    if plain and plain[0].role == "system":
        return (Message("system", f"{plain[0].content}\n\n{described}"), *plain[1:])
    return (Message("system", described), *plain)


def _described(tool_use: ToolUse) -> str:
    tools = "\n".join(_json(_object(tool)) for tool in tool_use.tools)
    return _HOW_TO_CALL.format(tools=tools) + _WHEN_TO_CALL[tool_use.choice]


def _object(tool: Tool) -> dict[str, Any]:
    described = {"name": tool.name, "description": tool.description, "parameters": json.loads(tool.parameters)}
    return {"type": "function", "function": described}


def _call_object(call: ToolCall, defuser: Defuser) -> dict[str, Any]:
    function = {"name": defuser.text(call.name), "arguments": defuser.value(json.loads(call.arguments))}
    return {"id": defuser.text(call.id), "type": "function", "function": function}


def _response(message: Message, defuser: Defuser) -> dict[str, Any]:
    """A result that is a JSON object keeps its parts; any other is one text."""
    try:
        value = json.loads(message.content)
    except (ValueError, RecursionError):
        value = None
    response = value if isinstance(value, dict) else message.content
    return {"name": defuser.text(message.tool_name or "unknown"), "response": defuser.value(response)}


def _with_calls(message: Message) -> str:
    calls = [
        f"{GENERIC.opening}{GENERIC.before_name}{call.name}{GENERIC.between}{call.arguments}{GENERIC.after}"
        f"{GENERIC.closing}"
        for call in message.tool_calls
    ]
    return "\n".join([message.content, *calls] if message.content else calls)


def _result_text(message: Message) -> str:
    return f"<tool_response>\n{message.content}\n</tool_response>"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
