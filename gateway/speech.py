"""What a model says, sorted: answer, reasoning, and calls of functions. One Speech for each generation.

Text goes through the parser of calls first, so that arguments may speak of reasoning without being taken for it.
"""

import hashlib
from collections.abc import Iterator
from json import loads

from gateway.events import ChoiceDelta, ChoiceToolCall
from specialists.reasoning import Channel, Piece, ReasoningSplitter
from specialists.request import (
    ChatPrompt,
    FinishReason,
    GenerationRequest,
    Started,
    TokenLogprob,
    Tokens,
    ToolChoice,
    ToolUse,
)
from specialists.tool_calls.bodies import CallArguments, CallBegun, types_of
from specialists.tool_calls.formats import format_named
from specialists.tool_calls.parser import Said, Text, ToolCallParser

MAX_CALLS = 128  # what OpenAI's own client for Node takes
Delta = ChoiceDelta | ChoiceToolCall


def call_id(generation_id: str, call: int) -> str:
    """The id of a call, the same whenever the same generation is told again."""
    return "call_" + hashlib.sha256(f"{generation_id}/{call}".encode()).hexdigest()[:24]


class Speech:
    """Turns the text of one generation into deltas; `started` comes first, as it says how this model calls.

    Log-probabilities wait for the content they belong to; those of reasoning and of calls are dropped with it.
    """

    def __init__(self, index: int, generation: GenerationRequest) -> None:
        self._index = index
        self._id = generation.id
        prompt = generation.prompt
        self._tool_use = prompt.tool_use if isinstance(prompt, ChatPrompt) else None
        # A grammar leaves no room for reasoning, and its strings may well speak of markers; raw text is raw.
        is_free = isinstance(prompt, ChatPrompt) and generation.json_schema is None and not _must_call(self._tool_use)
        self._splitter = ReasoningSplitter() if is_free else None
        self._parser: ToolCallParser | None = None
        self._logprobs: tuple[TokenLogprob, ...] = ()
        self._has_called = False

    def started(self, event: Started) -> None:
        if self._tool_use is not None:
            self._parser = _parser(self._tool_use, event.tool_format)

    def hear(self, event: Tokens) -> Iterator[Delta]:
        self._logprobs += event.logprobs
        if self._parser is None:
            yield from self._content(event.text)
        else:
            yield from self._tell(self._parser.push(event.text))

    def end(self) -> Iterator[Delta]:
        if self._parser is not None:
            yield from self._tell(self._parser.finish())
        if self._splitter is not None:
            yield from self._deltas(self._splitter.finish())

    def reason(self, reason: FinishReason) -> FinishReason:
        """Why the answer ended, given why the generation did."""
        return FinishReason.TOOL_CALLS if self._has_called and reason is FinishReason.STOP else reason

    def _tell(self, said: list[Said]) -> Iterator[Delta]:
        for each in said:
            match each:
                case Text(text):
                    yield from self._content(text)
                case CallBegun(call, name):
                    self._logprobs = ()
                    self._has_called = True
                    yield ChoiceToolCall(self._index, call, "", id=call_id(self._id, call), name=name)
                case CallArguments(call, text):
                    self._logprobs = ()
                    yield ChoiceToolCall(self._index, call, text)

    def _content(self, text: str) -> Iterator[ChoiceDelta]:
        if self._splitter is None:
            yield ChoiceDelta(self._index, text, "", self._take_logprobs())
        else:
            yield from self._deltas(self._splitter.push(text))

    def _deltas(self, pieces: list[Piece]) -> Iterator[ChoiceDelta]:
        for channel, text in pieces:
            logprobs = self._take_logprobs()
            if channel is Channel.CONTENT:
                yield ChoiceDelta(self._index, text, "", logprobs)
            else:
                yield ChoiceDelta(self._index, "", text, ())

    def _take_logprobs(self) -> tuple[TokenLogprob, ...]:
        taken, self._logprobs = self._logprobs, ()
        return taken


def _must_call(tool_use: ToolUse | None) -> bool:
    return tool_use is not None and tool_use.choice is ToolChoice.REQUIRED


def _parser(tool_use: ToolUse, tool_format: str) -> ToolCallParser:
    types = {tool.name: types_of(loads(tool.parameters)) for tool in tool_use.tools}
    max_calls = 1 if tool_use.parallel is False else MAX_CALLS
    return ToolCallParser(format_named(tool_format), types, max_calls=max_calls)
