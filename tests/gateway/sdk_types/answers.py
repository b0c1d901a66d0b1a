"""Answers of every form that the routes give, with the SDK's type for each; and where they differ from it.

Paths are written as in `strict`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import ollama
from ollama import _types as ollama_types
from openai.pagination import AsyncPage
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_item_list import ResponseItemList

from gateway.embeddings import ENCODER_TAG
from specialists.request import FinishReason, TokenLogprob
from tests.fakes import Script
from tests.gateway.college import GENERAL, MATH
from tests.gateway.sdk_types import (
    ollama_fields,
    ollama_models,
    openai_chat,
    openai_completions,
    openai_kept,
    openai_responses,
)
from tests.gateway.sdk_types.openai_chat import LIKELY
from tests.gateway.sdk_types.table import VECTORS, Call, Fields

OPENAIS_OWN = {
    "coe": "who answered and why, what became of the sampling, loops caught, times ([api.md](api.md))",
    "response.coe": "the same in the last event of a stream",
    "data.coe": "of a model in the list: its domains, its context, whether it can be served",
    "choices.message.reasoning_content": "reasoning that a model wrote all the same",
    "choices.delta.reasoning_content": "the same in a stream",
    "store": "of a response, as sent",
    "response.store": "the same in the events of a stream",
    "name": "of the function, in the event that tells a call's whole arguments",
    "logprobs.bytes": "in the events that tell a response's text",
    "logprobs.top_logprobs.bytes": "in the events that tell a response's text",
}
OLLAMAS_OWN = {
    "coe": "who answered and why, what became of the sampling, loops caught, times ([api.md](api.md))",
    "models.coe": "of a model in memory: whether it is pinned, how many specialists share its engine",
    "models.modified_at": "of a model in memory, as in the list",
    "models.name": "of a listed model, as Ollama's server has it",
    "message.tool_calls.id": "as Ollama's server has it",
    "message.tool_calls.function.index": "as Ollama's server has it",
    "logprobs.bytes": "as Ollama's server has it",
    "logprobs.top_logprobs.bytes": "as Ollama's server has it",
    "system": "of a shown model, as Ollama's server has it",
}
# Where OpenAI's servers say null and the SDK's type knows none.
NULLS = {
    "choices.finish_reason": "null in all chunks of a streamed completion but the last, as from OpenAI's servers",
    "choices.logprobs.token_logprobs": "null for the first token of an echoed prompt, which nothing predicts",
    "choices.logprobs.top_logprobs": "null for the first token of an echoed prompt, which nothing predicts",
}
EVENTS = (
    *("response.created", "response.queued", "response.in_progress", "response.output_item.added"),
    *("response.content_part.added", "response.output_text.delta", "response.output_text.done"),
    *("response.reasoning_text.delta", "response.reasoning_text.done", "response.content_part.done"),
    *("response.function_call_arguments.delta", "response.function_call_arguments.done", "response.output_item.done"),
    *("response.completed", "response.incomplete", "response.failed"),
)

ONE_CALL = Script(pieces=("Well.\n<tool_call>", '{"name": "weather", "arguments": {"ci', 'ty": "Oslo"}}</tool_call>'))
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'
TWO_CALLS = Script(pieces=(CALL, "\n", CALL))
THINKING = Script(pieces=("<think>hm</think>", "Hi."))
CUT = Script(pieces=("Hello", " there"), reason=FinishReason.LENGTH)
HELD = Script(gates={0: asyncio.Event()})
ECHOED = Script(
    pieces=LIKELY.pieces,
    prompt_logprobs=(TokenLogprob(5, b"On", None), TokenLogprob(6, b"ce", -0.5, ((6, b"ce", -0.5),))),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`kind` is the SDK's type of the answer; of a stream, of each of its parts. `nulls` may be null against it.

    `shows` is in the answer, so many `times` or more, if it is what its name says.
    """

    name: str
    call: Call
    kind: Any
    shows: str
    sent: Fields = field(default_factory=dict)
    script: Script = field(default_factory=Script)
    nulls: frozenset[str] = frozenset()
    times: int = 1

    @property
    def own(self) -> Mapping[str, str]:
        return OLLAMAS_OWN if self.call.is_ollamas else OPENAIS_OWN


class Way(NamedTuple):
    """To ask for an answer of one form, whole or streamed."""

    sent: Fields
    script: Script
    shows: str
    times: int = 1


def both(name: str, call: Call, kind: Any, chunk: Any, way: Way) -> list[Case]:
    """The same answer whole and streamed."""
    sent, script, shows, times = way
    streamed = {**sent, "stream": True}
    return [
        Case(name=name, call=call, kind=kind, sent=sent, script=script, shows=shows, times=times),
        Case(name=f"{name}, streamed", call=call, kind=chunk, sent=streamed, script=script, shows=shows, times=times),
    ]


TEXT = Way({}, Script(), "Hello")


def chats() -> list[Case]:
    offered = openai_chat.offered()
    ways = {
        "text": TEXT,
        "cut at its length": Way({"max_tokens": 2}, CUT, '"finish_reason":"length"'),
        "a call": Way(offered, ONE_CALL, '"finish_reason":"tool_calls"'),
        "several calls": Way({**offered, "parallel_tool_calls": True}, TWO_CALLS, '"name":"weather"', 2),
        "log-probabilities": Way({"logprobs": True, "top_logprobs": 2}, LIKELY, '"top_logprobs":[{"token":"Hi"'),
        "several choices": Way({"n": 2}, Script(), '"index":1,'),
        "a schema": Way(openai_chat.schema(), Script(pieces=("{}",)), '"content":"{}"'),
        "reasoning": Way({}, THINKING, '"reasoning_content":"hm"'),
    }
    call, usage = openai_chat.CHAT, {"stream": True, "stream_options": {"include_usage": True}}
    return [
        *(case for name, way in ways.items() for case in both(name, call, ChatCompletion, ChatCompletionChunk, way)),
        Case(name="usage, streamed", call=call, kind=ChatCompletionChunk, sent=usage, shows='"choices":[],"usage":{'),
    ]


def completions() -> list[Case]:
    echo: Fields = {"echo": True, "logprobs": 2}
    ways = {
        "text": TEXT,
        "cut at its length": Way({"max_tokens": 2}, CUT, '"finish_reason":"length"'),
        "several prompts and choices": Way({"prompt": ["One", "Two"], "n": 2}, Script(), '"index":3,'),
        "log-probabilities": Way({"logprobs": 2}, LIKELY, '"token_logprobs":[-0.5]'),
        "an echo": Way({"echo": True}, Script(), "Once"),
        "an echo with log-probabilities": Way(echo, ECHOED, '"token_logprobs":[null,-0.5'),
    }
    cases = []
    for name, way in ways.items():
        nulls = (
            {f"choices.logprobs.{each}" for each in ("token_logprobs", "top_logprobs")} if way.sent is echo else set()
        )
        sent = {**way.sent, "stream_options": {"include_usage": True}}
        whole, streamed = both(name, openai_completions.COMPLETIONS, Completion, Completion, way._replace(sent=sent))
        cases += [
            replace(whole, sent=way.sent, nulls=frozenset(nulls)),
            replace(streamed, nulls=frozenset(nulls | {"choices.finish_reason"})),
        ]
    return cases


def responses() -> list[Case]:
    offered, create = openai_responses.offered(), openai_responses.CREATE
    told = {"instructions": "Be brief.", "metadata": {"a": "b"}, "user": "ada", "temperature": 0.5, "store": False}
    ways = {
        "text": TEXT,
        "cut at its length": Way({"max_output_tokens": 2}, CUT, '"reason":"max_output_tokens"'),
        "a call": Way(offered, ONE_CALL, '"type":"function_call","status":"completed"'),
        "several calls": Way({**offered, "parallel_tool_calls": True}, TWO_CALLS, '"id":"fc_001"'),
        "log-probabilities": Way(
            {**openai_responses.LOGPROBS, "top_logprobs": 2}, LIKELY, '"top_logprobs":[{"token":"Hi"'
        ),
        "a schema": Way(
            openai_responses.formatted(**openai_responses.SCHEMA), Script(pieces=("{}",)), '"type":"json_schema"'
        ),
        "reasoning": Way({}, THINKING, '"type":"reasoning_text","text":"hm"'),
        "in the background": Way({"background": True}, Script(), '"status":"queued"'),
        "everything that is answered": Way(told, Script(), '"metadata":{"a":"b"}'),
    }
    again = {"stream": True}
    return [
        *(case for name, way in ways.items() for case in both(name, create, Response, ResponseStreamEvent, way)),
        Case(name="cancelled", call=openai_kept.CANCEL, kind=Response, script=HELD, shows='"status":"cancelled"'),
        Case(name="again", call=openai_kept.RETRIEVE, kind=ResponseStreamEvent, sent=again, shows="response.completed"),
        Case(name="kept", call=openai_kept.RETRIEVE, kind=Response, shows='"status":"completed"'),
        Case(name="its input", call=openai_kept.INPUT_ITEMS, kind=ResponseItemList, shows="Heed this."),
    ]


def others() -> list[Case]:
    texts = {"input": ["One", "Two"], "encoding_format": "float"}
    vectors, models, model = openai_completions.EMBEDDINGS, openai_completions.MODELS, openai_completions.MODEL
    return [
        Case(name="vectors", call=vectors, kind=CreateEmbeddingResponse, sent=texts, shows='"index":1,'),
        Case(name="models", call=models, kind=AsyncPage[Model], shows=MATH),
        Case(name="a model", call=model, kind=Model, shows=MATH),
    ]


def ollamas() -> list[Case]:
    ways = {
        "text": TEXT,
        "cut at its length": Way({"options": {"num_predict": 2}}, CUT, '"done_reason":"length"'),
        "log-probabilities": Way({"logprobs": True, "top_logprobs": 2}, LIKELY, '"top_logprobs":[{"token":"Hi"'),
        "a schema": Way({"format": ollama_fields.SCHEMA}, Script(pieces=("{}",)), '"{}"'),
        "reasoning": Way({"think": True}, THINKING, '"thinking":"hm"'),
    }
    tools: Fields = {"tools": [ollama_fields.TOOL]}
    calls = {
        "a call": Way(tools, ONE_CALL, '"arguments":{"city":"Oslo"}'),
        "several calls": Way(tools, TWO_CALLS, '{"index":1,"name":"weather"'),
    }
    chat, generate, unload = ollama_fields.CHAT, ollama_fields.GENERATE, {"messages": [], "keep_alive": 0}
    said, made = ollama.ChatResponse, ollama.GenerateResponse
    return [
        *(case for name, way in (ways | calls).items() for case in both(name, chat, said, said, way)),
        *(case for name, way in ways.items() for case in both(name, generate, made, made, way)),
        Case(name="loading", call=generate, kind=made, sent={"prompt": ""}, shows='"done_reason":"load"'),
        Case(name="unloading", call=chat, kind=said, sent=unload, shows='"done_reason":"unload"'),
    ]


def ollamas_models() -> list[Case]:
    embed, shown, encoder = ollama_fields.EMBED, ollama.ShowResponse, {"model": ENCODER_TAG}
    progress, done = ollama_types.ProgressResponse, Way({}, Script(), '"status":"success"')
    return [
        Case(name="vectors", call=embed, kind=ollama.EmbedResponse, sent={"input": ["One", "Two"]}, shows="],["),
        Case(name="a vector", call=ollama_fields.EMBEDDINGS, kind=ollama.EmbeddingsResponse, shows='"embedding":[0'),
        *both("making", ollama_models.CREATE, progress, progress, done),
        *both("fetching", ollama_models.PULL, progress, progress, done),
        Case(name="models", call=ollama_models.LIST, kind=ollama.ListResponse, shows=MATH),
        Case(name="models in memory", call=ollama_models.PS, kind=ollama.ProcessResponse, shows=MATH),
        Case(name="a model", call=ollama_models.SHOW, kind=shown, shows=f"FROM {MATH}"),
        Case(
            name="the own encoder",
            call=ollama_models.SHOW,
            kind=shown,
            sent=encoder,
            shows='"capabilities":["embedding"]',
        ),
        Case(name="an encoder", call=ollama_models.SHOW, kind=shown, sent={"model": VECTORS}, shows='["embedding"]'),
        Case(name="auto", call=ollama_models.SHOW, kind=shown, sent={"model": "auto"}, shows=GENERAL),
    ]


CASES: Sequence[Case] = (*chats(), *completions(), *responses(), *others(), *ollamas(), *ollamas_models())
