"""The families' ways of writing a call, as data: what differs between them is a row, not a branch.

A format is found by what the model's own chat template spells. Every format can be read as the model was trained to
write it, and can also be enforced: an enforced call has the arguments as JSON, whatever the family prefers, since only
JSON can be held to a function's schema. The parsers read both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Syntax(StrEnum):
    """What stands between the markers."""

    TAGGED = "tagged"  # a JSON object with name and arguments, or <function=…><parameter=…>
    GEMMA = "gemma"  # call:name{key:value}, strings between <|"|>
    BARE = "bare"  # a JSON object that is the whole answer


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    """One way of writing calls.

    `opening` and `closing` enclose a call; a model may write `opening` though it is not needed where `is_optional`.
    An enforced call reads `before_name`, the name, `between`, the arguments as JSON, `after`; `separator` stands
    between two calls. `spelled` are texts of which a template of this family has all; `reads_tools` is False for the
    format whose description goes into the system text, as the template knows nothing of tools.
    """

    name: str
    syntax: Syntax
    opening: str
    closing: str = ""
    before_name: str = ""
    between: str = ""
    after: str = ""
    separator: str = ""
    is_optional: bool = False
    takes_several: bool = True
    spelled: tuple[str, ...] = ()
    reads_tools: bool = True

    @property
    def markers(self) -> tuple[str, ...]:
        """Everything that must stay visible in the model's text for its calls to be found."""
        quote = (GEMMA_QUOTE,) if self.syntax is Syntax.GEMMA else ()
        return tuple(marker for marker in (self.opening, self.closing, *quote) if marker)


GEMMA_QUOTE = '<|"|>'
_TAGGED = {
    "syntax": Syntax.TAGGED,
    "opening": "<tool_call>",
    "closing": "</tool_call>",
    "before_name": '\n{"name": "',
    "between": '", "arguments": ',
    "after": "}\n",
    "separator": "\n",
}
GENERIC = ToolFormat(name="generic", reads_tools=False, **_TAGGED)  # type: ignore[arg-type]

# First match wins, so that a family stands before the one whose marks it shares.
FORMATS: tuple[ToolFormat, ...] = (
    ToolFormat(
        name="gemma",
        syntax=Syntax.GEMMA,
        opening="<|tool_call>",
        closing="<tool_call|>",
        before_name="call:",
        spelled=("<|tool_call>", "<tool_call|>"),
    ),
    ToolFormat(name="tagged", spelled=("<tool_call>",), **_TAGGED),  # type: ignore[arg-type]
    ToolFormat(
        name="llama",
        syntax=Syntax.BARE,
        opening="<|python_tag|>",
        before_name='{"name": "',
        between='", "parameters": ',
        after="}",
        is_optional=True,
        takes_several=False,
        spelled=("<|start_header_id|>", '"parameters"'),
    ),
)
_BY_NAME: Mapping[str, ToolFormat] = {form.name: form for form in (GENERIC, *FORMATS)}


def format_of(template: str, *, reads_tools: bool) -> ToolFormat:
    """The format of a model with this chat template: the generic one unless it `reads_tools` in a known way."""
    if not reads_tools:
        return GENERIC
    return next((form for form in FORMATS if all(text in template for text in form.spelled)), GENERIC)


def format_named(name: str) -> ToolFormat:
    """The format that an engine named; the generic one where it named none."""
    return _BY_NAME.get(name, GENERIC)
