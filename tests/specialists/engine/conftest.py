"""A pico model in this process, and an engine over it that tests step by hand."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from specialists.engine.chat_template import ChatTemplate
from specialists.engine.engine import Engine
from specialists.engine.kv_cache import KVCache
from specialists.engine.llama import Batch, Context, ContextParams, LlamaLog, Model
from specialists.engine.messages import Event, Failed, FromEngine
from specialists.engine.preparation import Preparation
from specialists.request import (
    ChatPrompt,
    Finished,
    GenerationRequest,
    LoopGuardParams,
    Message,
    Prompt,
    SamplingParams,
    Started,
    TextPrompt,
    TokenLogprob,
    Tokens,
)
from tests.fakes import FakeClock
from tests.pico import CHAT_TEMPLATE, write_pico_gemma, write_pico_llama

GREEDY = SamplingParams(temperature=0.0, top_k=1)
UNGUARDED = LoopGuardParams()


@pytest.fixture(scope="session")
def pico_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pico_gemma(tmp_path_factory.mktemp("pico") / "pico.gguf")


@pytest.fixture(scope="session")
def model(pico_path: Path) -> Iterator[Model]:
    model = Model.load(pico_path, gpu_layers=0, log=LlamaLog())
    yield model
    model.close()


@pytest.fixture(scope="session")
def dense_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A model with full attention in every layer, whose Sequences each have their own part of the cache."""
    path = write_pico_llama(tmp_path_factory.mktemp("pico") / "dense.gguf")
    model = Model.load(path, gpu_layers=0, log=LlamaLog())
    yield model
    model.close()


NewContext = Callable[..., Context]


@pytest.fixture
def new_context(model: Model) -> Iterator[NewContext]:
    contexts: list[Context] = []

    def make(*, num_cells: int = 1024, max_sequences: int = 4, batch_tokens: int = 64, max_outputs: int = 0) -> Context:
        params = ContextParams(
            num_cells=num_cells,
            max_sequences=max_sequences,
            batch_tokens=batch_tokens,
            max_outputs=max_outputs,
            threads=1,
        )
        contexts.append(model.new_context(params))
        return contexts[-1]

    yield make
    for context in contexts:
        context.close()


def compute(context: Context, sequence_id: int, tokens: list[int], start: int = 0) -> NDArray[np.float32]:
    """Decode `tokens[start:]` at their positions; the logits (vocabulary size,) after the last one."""
    batch = Batch(context.params.batch_tokens)
    index = 0
    for chunk in range(start, len(tokens), context.params.batch_tokens):
        batch.clear()
        part = tokens[chunk : chunk + context.params.batch_tokens]
        index = batch.add(part, position=chunk, sequence_id=sequence_id, logits="last")
        context.decode(batch)
    return context.logits(index).copy()


@dataclass
class Result:
    """What one request produced."""

    started: Started | None = None
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finished: Finished | None = None
    failed: Failed | None = None

    @property
    def is_over(self) -> bool:
        return self.finished is not None or self.failed is not None


class EngineBench:
    """An engine with its preparation, and everything it said, by request."""

    def __init__(self, model: Model, context: Context) -> None:
        self.context = context
        self.clock = FakeClock()
        self.cache = KVCache(context, window_tokens=model.window_tokens, is_recurrent=model.is_recurrent)
        self.engine = Engine(context, model.vocabulary, self.cache, emit=self._collect, clock=self.clock)
        template = ChatTemplate(CHAT_TEMPLATE, model.vocabulary)
        self.preparation = Preparation(model.vocabulary, template, clock=self.clock)
        self.results: dict[str, Result] = {}

    def _collect(self, message: FromEngine) -> None:
        if isinstance(message, Failed):
            self.results[message.id].failed = message
        elif isinstance(message, Event):
            result = self.results[message.id]
            match message.event:
                case Started():
                    result.started = message.event
                case Tokens(text, logprobs):
                    result.text += text
                    result.logprobs += logprobs
                case Finished():
                    result.finished = message.event

    def submit(self, request: GenerationRequest) -> Result:
        self.clock.advance(0.001)
        result = self.results[request.id] = Result()
        self.engine.add(self.preparation.prepare(request))
        return result

    def run(self, *requests: GenerationRequest, max_steps: int = 5000) -> list[Result]:
        """Submit requests and step until all of them are over."""
        results = [self.submit(request) for request in requests]
        self.step_until(lambda: all(result.is_over for result in results), max_steps=max_steps)
        return results

    def step_until(self, is_done: Callable[[], bool], *, max_steps: int = 5000) -> None:
        for _ in range(max_steps):
            if is_done():
                return
            self.engine.step()
        raise AssertionError(f"not done after {max_steps} steps")


NewBench = Callable[..., EngineBench]


@pytest.fixture
def new_bench(model: Model, new_context: NewContext) -> NewBench:
    def make(**sizes: int) -> EngineBench:
        return EngineBench(model, new_context(**sizes))

    return make


def text_request(
    id: str,
    prompt: str | Prompt,
    *,
    max_tokens: int = 16,
    context_tokens: int = 512,
    sampling: SamplingParams = GREEDY,
    stop: tuple[str, ...] = (),
    logprobs: int | None = None,
    json_schema: str | None = None,
    echo_logprobs: bool = False,
    loop_guard: LoopGuardParams = UNGUARDED,
    is_streamed: bool = True,
) -> GenerationRequest:
    return GenerationRequest(
        id=id,
        prompt=TextPrompt(prompt) if isinstance(prompt, str) else prompt,
        sampling=sampling,
        max_tokens=max_tokens,
        context_tokens=context_tokens,
        stop=stop,
        logprobs=logprobs,
        json_schema=json_schema,
        echo_logprobs=echo_logprobs,
        loop_guard=loop_guard,
        is_streamed=is_streamed,
    )


def chat(*turns: tuple[str, str], prefill: str = "<think></think>\n") -> ChatPrompt:
    return ChatPrompt(tuple(Message(role, content) for role, content in turns), prefill)
