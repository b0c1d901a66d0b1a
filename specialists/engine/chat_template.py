"""From a prompt to token ids: the model's own template around text that nobody can forge turns with.

The template (Jinja, from the GGUF) is somebody else's code: it is rendered in an immutable sandbox, under limits of
time and size. Message text goes in between marks that only this render knows, so afterwards every character is known
to come from the template (trusted: its control tokens count) or from a message (untrusted: it is text, even where it
spells a control token). Tokens are those of the text as a whole, so ordinary prompts tokenise as everywhere else.

It does not choose the prefill: `ChatPrompt.assistant_prefill` is policy and comes with the request.
"""

import datetime
import json
import re
import secrets
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import jinja2
import jinja2.nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from specialists.engine.llama import Vocabulary
from specialists.engine.tool_prompt import (
    SEAM,
    Defuser,
    folds_results,
    message_objects,
    plain_messages,
    tool_objects,
)
from specialists.errors import RequestRejected, SpecialistUnavailable
from specialists.request import ChatPrompt, Message, Prompt, TextPrompt, TokenPrompt, Tool, ToolUse
from specialists.tool_calls.formats import format_of

RENDER_SECONDS = 2.0
MAX_TEMPLATE_CHARS = 256 * 1024
MAX_REPEAT = 100_000  # `"x" * n` in a template


class Segment(NamedTuple):
    """A stretch of rendered prompt; `opens_message` is the index of the message whose text it is, or None."""

    text: str
    message: int | None


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """Token ids, and the counts of tokens at which later prompts are likely to part ways with this one.

    `boundaries` are ascending: the end of the system prompt and the end of the conversation before the assistant's
    prefill; a follow-up turn shares everything up to the latter.
    """

    tokens: tuple[int, ...]
    boundaries: tuple[int, ...] = ()


class TemplateFailed(Exception):
    """The template raised, took too long or produced too much."""


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [value for value in (left, right) if isinstance(value, int)]
        if operator == "**" or any(size > MAX_REPEAT for size in sizes):
            raise SecurityError(f"the template's {operator!r} is out of bounds")
        return super().call_binop(context, operator, left, right)


class ChatTemplate:
    """One model's template, compiled. Raises SpecialistUnavailable when it does not compile or cannot render.

    `tool_format` is how its model writes calls: in the generic form where the template knows nothing of tools.
    """

    def __init__(self, source: str, vocabulary: Vocabulary) -> None:
        if len(source) > MAX_TEMPLATE_CHARS:
            raise SpecialistUnavailable(
                f"the chat template has {len(source)} characters; the limit is {MAX_TEMPLATE_CHARS}"
            )
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        try:
            with _time_limit(RENDER_SECONDS):
                parsed = environment.parse(source)
                self._template = environment.from_string(parsed)
        except (jinja2.TemplateError, TemplateFailed, RecursionError) as error:
            raise SpecialistUnavailable(f"the chat template does not compile: {error}") from error
        self._tokens = {
            "bos_token": vocabulary.text_of(vocabulary.bos),
            "eos_token": vocabulary.text_of(vocabulary.eos),
        }
        self._defuser = Defuser(vocabulary.markup)
        self._folds_results = folds_results(source)
        reads_tools = any(name.name == "tools" for name in parsed.find_all(jinja2.nodes.Name))
        self.tool_format = format_of(source, reads_tools=reads_tools)

    def check(self) -> None:
        """Render a trivial conversation, so that a template that cannot work is found at load."""
        try:
            self.render((Message("user", "Hello"),))
        except RequestRejected as error:
            raise SpecialistUnavailable(f"the chat template does not render: {error}") from error

    def render(self, messages: Sequence[Message], tool_use: ToolUse | None = None) -> list[Segment]:
        """Segments of the prompt for an answer to `messages`, thinking off. Raises RequestRejected."""
        mark = secrets.token_hex(8)
        tools = tool_use.tools if tool_use is not None else ()
        variables = {
            **self._tokens,
            "messages": message_objects(
                messages,
                lambda content, index: _enclose(content, index, mark),
                self._defuser,
                folds_results=self._folds_results,
            ),
            "add_generation_prompt": True,
            "enable_thinking": False,
            "tools": tool_objects(tools, self._defuser) or None,
        }
        limit = 4 * (_num_chars(messages, tools) + MAX_TEMPLATE_CHARS)
        try:
            with _time_limit(RENDER_SECONDS):
                rendered = _bounded_join(self._template.generate(variables), limit)
        except (
            jinja2.TemplateError,
            TemplateFailed,
            RecursionError,
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:
            raise RequestRejected(
                f"The model's chat template refused these messages: {error}", param="messages"
            ) from error
        return _split(rendered, mark)


def tokenize_prompt(prompt: Prompt, template: ChatTemplate, vocabulary: Vocabulary) -> TokenizedPrompt:
    """Token ids of any prompt. Raises RequestRejected when the template refuses it or a token id is unknown."""
    match prompt:
        case ChatPrompt():
            return _tokenize_chat(prompt, template, vocabulary)
        case TextPrompt(text):
            tokens = _tokenize_segments([Segment(text, 0)], vocabulary)
        case TokenPrompt(given):
            unknown = [token for token in given if not 0 <= token < vocabulary.size]
            if unknown:
                raise RequestRejected(f"Token id {unknown[0]} is not in the vocabulary.", param="prompt")
            return TokenizedPrompt(given)
    bos = [vocabulary.bos] if vocabulary.adds_bos else []
    return TokenizedPrompt(tuple(bos + tokens))


def _tokenize_chat(prompt: ChatPrompt, template: ChatTemplate, vocabulary: Vocabulary) -> TokenizedPrompt:
    messages, tool_use = prompt.messages, prompt.tool_use
    if not template.tool_format.reads_tools:
        messages, tool_use = plain_messages(messages, tool_use), None
    segments = template.render(messages, tool_use)
    system_len = _system_prompt_segments(segments, messages)
    history = _tokenize_segments(segments, vocabulary)
    if vocabulary.adds_bos and history[:1] != [vocabulary.bos]:
        history.insert(0, vocabulary.bos)
    answer = [Segment(prompt.assistant_prefill, None), Segment(prompt.continuation, len(messages))]
    tokens = history + _tokenize_segments(answer, vocabulary)
    boundaries = [len(history)]
    if system_len:
        boundaries.insert(0, len(_tokenize_segments(segments[:system_len], vocabulary, open_ended=True)))
    return TokenizedPrompt(tuple(tokens), tuple(sorted({mark for mark in boundaries if 0 < mark < len(tokens)})))


def _system_prompt_segments(segments: Sequence[Segment], messages: Sequence[Message]) -> int:
    """How many leading segments belong to the system prompt: those before the first other message's text."""
    for index, segment in enumerate(segments):
        if segment.message is not None and messages[segment.message].role != "system":
            return index
    return 0


def _tokenize_segments(segments: Sequence[Segment], vocabulary: Vocabulary, *, open_ended: bool = False) -> list[int]:
    """Control tokens of trusted text as themselves, and every run of text between them as one piece.

    `open_ended` leaves out the last run, which more text might still join.
    """
    markup = vocabulary.markup
    pattern = re.compile("|".join(re.escape(text) for text in sorted(markup, key=len, reverse=True)) or r"(?!)")
    tokens: list[int] = []
    run: list[str] = []
    for segment in segments:
        if segment.message is not None:
            run.append(_defused(segment.text, pattern))
            continue
        position = 0
        for match in pattern.finditer(segment.text):
            run.append(segment.text[position : match.start()])
            tokens += _tokenize_run("".join(run), vocabulary)
            tokens.append(markup[match.group()])
            run = []
            position = match.end()
        run.append(segment.text[position:])
    return tokens if open_ended else tokens + _tokenize_run("".join(run), vocabulary)


def _defused(text: str, markup: re.Pattern[str]) -> str:
    """Untrusted text with a seam inside whatever spells a markup token, so that it stays the text it is."""
    text = text.replace(SEAM, "\ufffd")
    return markup.sub(lambda match: match.group()[0] + SEAM + match.group()[1:], text)


def _tokenize_run(text: str, vocabulary: Vocabulary) -> list[int]:
    return [token for part in text.split(SEAM) if part for token in vocabulary.tokenize(part)]


def _enclose(content: str, index: int, mark: str) -> str:
    """Content between marks; outer white space stays outside them, where a template's `trim` may reach it."""
    core = content.strip()
    if not core:
        return content
    start = content.index(core)
    return f"{content[:start]}\ue000{mark}:{index}\ue001{core}\ue000{mark}\ue001{content[start + len(core) :]}"


def _split(rendered: str, mark: str) -> list[Segment]:
    segments: list[Segment] = []
    message: int | None = None
    for part in re.split(f"(\ue000{mark}(?::[0-9]+)?\ue001)", rendered):
        if part.startswith(f"\ue000{mark}"):
            label = part[len(mark) + 2 : -1]
            message = int(label) if label else None
        elif part:
            segments.append(Segment(part, message))
    return segments


def _num_chars(messages: Sequence[Message], tools: Sequence[Tool]) -> int:
    said = sum(len(message.content) for message in messages)
    called = sum(len(call.arguments) for message in messages for call in message.tool_calls)
    return said + called + sum(len(tool.description) + len(tool.parameters) for tool in tools)


def _bounded_join(chunks: Iterator[str], limit: int) -> str:
    parts: list[str] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise TemplateFailed(f"it produced more than {limit} characters")
        parts.append(chunk)
    return "".join(parts)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Interrupt this (main) thread's Python code after `seconds`."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise TemplateFailed(f"it took more than {seconds:g} s")

    previous: Callable[[int, FrameType | None], Any] | int | None = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
