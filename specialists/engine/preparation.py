"""Everything about a request that can be done before it touches the cache: template, tokens, schema, sampler.

It runs beside the engine's loop, so a long prompt or a large schema never stalls a step.
"""

import secrets
from collections.abc import Callable

from specialists.engine.chat_template import ChatTemplate, TokenizedPrompt, tokenize_prompt
from specialists.engine.llama import Vocabulary
from specialists.engine.loop_guard import LoopGuard
from specialists.engine.loop_request import requested_repeats
from specialists.engine.loop_watch import LoopWatch
from specialists.engine.sampler import build_chain
from specialists.engine.sequence import Sequence
from specialists.engine.structured import SchemaCompiler, SchemaMatcher
from specialists.engine.text import TextStream
from specialists.engine.tool_grammar import is_enforced, tool_grammar
from specialists.errors import ContextOverflow, InvalidSchema, RequestRejected
from specialists.request import (
    ChatPrompt,
    GenerationRequest,
    LoopGuardMode,
    Prompt,
    TextPrompt,
    TokenPrompt,
    ToolChoice,
    ToolUse,
)


class Preparation:
    """Turns requests into Sequences that are ready to be scheduled.

    `members` are the specialists that the engine can be; without any, it is what it is, whatever a request calls it.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        template: ChatTemplate,
        *,
        clock: Callable[[], float],
        members: frozenset[str] = frozenset(),
    ) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._schemas = SchemaCompiler(vocabulary)
        self._clock = clock
        self._members = members

    def prepare(self, request: GenerationRequest) -> Sequence:
        """Raises RequestRejected, ContextOverflow or InvalidSchema."""
        if self._members and request.specialist not in self._members:
            raise RequestRejected(f"This engine cannot be {request.specialist[:200]!r}.", param="model")
        self._refuse_hopeless(request)
        prompt = tokenize_prompt(request.prompt, self._template, self._vocabulary)
        if not prompt.tokens:
            raise RequestRejected("The prompt is empty; give at least one token to continue.", param="prompt")
        room = request.context_tokens - len(prompt.tokens)
        if room < 1:
            raise ContextOverflow.of(prompt_tokens=len(prompt.tokens), context_tokens=request.context_tokens)
        return self._sequence(request, prompt, max_tokens=min(request.max_tokens, room))

    def _sequence(self, request: GenerationRequest, prompt: TokenizedPrompt, *, max_tokens: int) -> Sequence:
        params = request.sampling
        seed = params.seed if params.seed is not None else secrets.randbits(32)
        history = prompt.tokens[-params.repeat_last_n :] if params.repeat_last_n > 0 else ()
        sequence = Sequence(
            request=request,
            prompt=prompt,
            sampler=build_chain(params, self._vocabulary, seed=seed, history=history),
            text=TextStream(self._stops(request), request.call_marks),
            max_tokens=max_tokens,
            arrived=self._clock(),
            seed=seed,
            owner=request.specialist if self._members else "",
            matcher=self._matcher(request),
            watch=_loop_watch(request),
            tool_format=self._template.tool_format.name if _tool_use(request) is not None else "",
        )
        if sequence.watch is not None and sequence.watch.is_whole:
            sequence.text.hold()
        return sequence

    def _matcher(self, request: GenerationRequest) -> SchemaMatcher | None:
        """The grammar that shapes the answer, if one does."""
        tool_use, form = _tool_use(request), self._template.tool_format
        if tool_use is None:
            return self._schemas.compile(request.json_schema) if request.json_schema is not None else None
        if not is_enforced(tool_use, form) and request.json_schema is None:
            return None
        markup = self._vocabulary.markup
        try:
            return self._schemas.compile_calls(tool_grammar(tool_use, form, markup, answer_schema=request.json_schema))
        except InvalidSchema:
            if tool_use.choice is ToolChoice.REQUIRED:
                raise
        # The model may call with what it likes unless the function is strict, so a schema too hard is no obstacle.
        lenient = tool_grammar(tool_use, form, markup, answer_schema=request.json_schema, is_lenient=True)
        return self._schemas.compile_calls(lenient)

    def _stops(self, request: GenerationRequest) -> tuple[str, ...]:
        """Where only one call is wanted and no grammar says so, the end of the first ends the answer."""
        tool_use, form = _tool_use(request), self._template.tool_format
        is_single = tool_use is not None and tool_use.parallel is False and bool(form.closing)
        return (*request.stop, form.closing) if is_single else request.stop

    def _refuse_hopeless(self, request: GenerationRequest) -> None:
        """Refuse a prompt by its bytes alone where no tokenisation could make it fit: tokenising costs time."""
        least = _prompt_bytes(request) // self._vocabulary.longest_piece_bytes
        if least > request.context_tokens:
            raise ContextOverflow.of(prompt_tokens=least, context_tokens=request.context_tokens)


def _tool_use(request: GenerationRequest) -> ToolUse | None:
    return request.prompt.tool_use if isinstance(request.prompt, ChatPrompt) else None


def _must_call(request: GenerationRequest) -> bool:
    tool_use = _tool_use(request)
    return tool_use is not None and tool_use.choice is ToolChoice.REQUIRED


def _loop_watch(request: GenerationRequest) -> LoopWatch | None:
    mode = request.loop_guard.mode
    if mode is LoopGuardMode.OFF:
        return None
    guard = LoopGuard(
        is_constrained=request.json_schema is not None or _must_call(request),
        requested_repeats=requested_repeats(_last_words(request.prompt)),
    )
    is_rescued = mode is LoopGuardMode.RESCUE
    return LoopWatch(
        guard=guard,
        params=request.loop_guard,
        is_whole=is_rescued and not request.is_streamed,
        may_redraw_first=is_rescued and isinstance(request.prompt, ChatPrompt) and not request.prompt.continuation,
    )


def _last_words(prompt: Prompt) -> str:
    """What was asked for last, as far as it is text."""
    match prompt:
        case ChatPrompt(messages):
            return next((message.content for message in reversed(messages) if message.role == "user"), "")
        case TextPrompt(text):
            return text
        case TokenPrompt():
            return ""


def _prompt_bytes(request: GenerationRequest) -> int:
    match request.prompt:
        case ChatPrompt(messages):
            return sum(len(message.content.encode("utf-8", "replace")) for message in messages)
        case TextPrompt(text):
            return len(text.encode("utf-8", "replace"))
        case TokenPrompt():
            return 0
