"""Embeddings by llama.cpp: against numpy, against one text at a time, and in a real engine process that misbehaves."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from specialists.engine.client import EngineClient
from specialists.engine.dry_run import run
from specialists.engine.embedding_host import answers_to, load_text_encoder
from specialists.engine.llama import DecodeFailed, LlamaLog
from specialists.engine.messages import Failed, TextEmbedded
from specialists.engine.order import load_order
from specialists.engine.protocol import EngineInfo, EngineSpec, Pooling
from specialists.engine.text_encoder import TextEncoder
from specialists.engine.text_queue import Text
from specialists.errors import ContextOverflow, RequestRejected, SpecialistUnavailable, WorkerLost
from tests.pico import IM_END, VOCABULARY_SIZE, write_pico_llama
from tests.pico_encoder import CLS, SEP, WIDTH, bert_weights, mean_vector, pieces_of, write_pico_bert
from tests.specialists.engine.conftest import text_request

pytestmark = pytest.mark.anyio

TEXTS = ("hello world ?", "a", "some longer text , here , with many more words than the others have", "the end .")


def spec(path: Path, *, pooling: Pooling = Pooling.MEAN, context_tokens: int = 128) -> EngineSpec:
    return EngineSpec(
        model_path=path, context_tokens=context_tokens, parallel=1, gpu_layers=0, threads=1, pooling=pooling
    )


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pico_bert(tmp_path_factory.mktemp("models") / "bert.gguf")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pico_llama(tmp_path_factory.mktemp("models") / "llama.gguf")


def encoder_of(spec: EngineSpec) -> TextEncoder:
    return load_text_encoder(load_order(spec), on_progress=lambda _share: None, log=LlamaLog(), clock=time.monotonic)[0]


def tokens(encoder: TextEncoder) -> list[list[int]]:
    return [encoder.tokens_of(text, may_truncate=False)[0] for text in TEXTS]


# ── vectors ──────────────────────────────────────────────────────────────────


def test_an_encoders_vectors_are_those_of_the_paper(bert: Path) -> None:
    """Word pieces and a forward pass written out by hand agree, several texts at once; each vector is a unit."""
    encoder = encoder_of(spec(bert))
    weights = bert_weights()

    assert tokens(encoder) == [pieces_of(text) for text in TEXTS]
    for text, vector in zip(TEXTS, encoder.vectors(tokens(encoder)), strict=True):
        assert vector.shape == (WIDTH,)
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
        assert vector @ mean_vector(pieces_of(text), weights) > 0.9999


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_texts_together_are_as_texts_alone(kind: str, pooling: Pooling, request: pytest.FixtureRequest) -> None:
    """Whether a model reads both ways or one: no text sees another, nor what was computed before."""
    encoder = encoder_of(spec(request.getfixturevalue(kind), pooling=pooling))
    together = encoder.vectors(tokens(encoder))

    for each, vector in zip(tokens(encoder), together, strict=True):
        assert encoder.vectors([each])[0] @ vector > 0.9999
    assert together[0] @ together[2] < 0.999


def test_poolings_differ(bert: Path) -> None:
    """The first token's vector is not the mean; the pooling that is asked for goes before the file's."""
    mean, first = (
        encoder_of(spec(bert, pooling=each)).vectors([pieces_of(TEXTS[0])])[0] for each in (Pooling.MEAN, Pooling.CLS)
    )

    assert mean @ first < 0.999


def test_a_long_text_keeps_its_closing_token(bert: Path) -> None:
    """As the model was trained; where there is none, the end is cut off. Who may not be cut is refused with both
    numbers."""
    encoder = encoder_of(spec(bert, context_tokens=16))
    cut, is_truncated = encoder.tokens_of("word " * 20, may_truncate=True)

    assert (len(cut), cut[0], cut[-1], is_truncated) == (16, CLS, SEP, True)
    assert cut[:-1] == pieces_of("word " * 20)[:15]
    with pytest.raises(ContextOverflow, match=r"16 tokens, but an input has 82") as refused:
        encoder.tokens_of("word " * 20, may_truncate=False)
    assert refused.value.param == "input"


def test_a_text_in_one_direction_is_cut_at_its_end(llama: Path) -> None:
    """Every byte is a token there, and nothing closes a text; one without tokens is refused."""
    encoder = encoder_of(spec(llama, pooling=Pooling.LAST, context_tokens=16))

    assert len(encoder.tokens_of("x" * 40, may_truncate=True)[0]) == 16
    assert IM_END not in encoder.tokens_of("<|im_end|>", may_truncate=True)[0]
    with pytest.raises(RequestRejected, match="no tokens"):
        encoder.tokens_of("", may_truncate=True)


def test_a_dry_run_counts_what_embeddings_take(bert: Path, llama: Path) -> None:
    """An encoder keeps nothing of a text; what reads one way has a cache and a row of logits for every token."""
    encoder, decoder = (run(load_order(spec(path)), LlamaLog()) for path in (bert, llama))

    assert [sum(buffer.cache_bytes for buffer in dry.buffers) > 0 for dry in (encoder, decoder)] == [False, True]
    assert encoder.output_bytes == 0
    assert decoder.output_bytes == 512 * VOCABULARY_SIZE * 4


class Scripted(TextEncoder):
    """Cannot compute texts that begin with token 0, alone or in company."""

    def __init__(self) -> None:
        """Without a context."""

    def vectors(self, texts: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        if any(text[0] == 0 for text in texts):
            raise DecodeFailed("as scripted")
        return [np.array([text[0]], dtype=np.float32) for text in texts]


def test_a_text_that_cannot_be_computed_fails_alone() -> None:
    """Those of other requests that were in its batch are computed without it."""
    texts = [Text("a", 0, [5], False), Text("b", 0, [0, 1], False), Text("a", 1, [6], True)]

    first, failed, last = answers_to(texts, Scripted())

    assert first == TextEmbedded("a", 0, np.float32(5).tobytes(), 1, False)
    assert isinstance(failed, Failed)
    assert (failed.id, failed.code) == ("b", "generation_failed")
    assert last == TextEmbedded("a", 1, np.float32(6).tobytes(), 1, True)
    assert answers_to([], Scripted()) == []


# ── the process ──────────────────────────────────────────────────────────────


@asynccontextmanager
async def running(spec: EngineSpec) -> AsyncIterator[tuple[EngineClient, EngineInfo]]:
    client = EngineClient(spec)
    try:
        yield client, await client.load(lambda _share: None)
    finally:
        await client.close()


async def test_a_process_answers_many_at_once_and_dies_clearly(bert: Path) -> None:
    """Each request gets its own vectors in its order; one that cannot be served fails alone, and one that is given up
    costs the others nothing. When the process dies, so do those who wait for it, and all who come later."""
    weights = bert_weights()
    async with running(spec(bert)) as (client, info):
        given_up = asyncio.create_task(client.embed(["word " * 12] * 500, may_truncate=False))
        await asyncio.sleep(0)
        given_up.cancel()
        many = [asyncio.create_task(client.embed(TEXTS[: n % 4 + 1], may_truncate=True)) for n in range(12)]
        with pytest.raises(ContextOverflow):
            await client.embed(["short", "word " * 100], may_truncate=False)
        for number, found in enumerate(await asyncio.gather(*many)):
            assert len(found) == number % 4 + 1
            for text, each in zip(TEXTS, found, strict=False):
                assert each.vector @ mean_vector(pieces_of(text), weights) > 0.9999
                assert (each.num_tokens, each.is_truncated) == (len(pieces_of(text)), False)
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert await client.embed([], may_truncate=True) == []
        os.kill(info.pid, signal.SIGSTOP)
        waiting = asyncio.create_task(client.embed(["a"], may_truncate=True))
        await asyncio.sleep(0)
        os.kill(info.pid, signal.SIGKILL)
        with pytest.raises(WorkerLost):
            await waiting
        await client.wait_lost()
        with pytest.raises(WorkerLost):
            await client.embed(["a"], may_truncate=True)


async def test_what_an_engine_is_not_for_is_refused(bert: Path) -> None:
    """Before it is sent: an engine hears nothing of the other kind's requests."""
    async with running(spec(bert)) as (client, _):
        with pytest.raises(ValueError, match="generates nothing"):
            await anext(aiter(client.generate(text_request("a", "x"))))
    generating = EngineClient(EngineSpec(model_path=bert, context_tokens=64))
    with pytest.raises(ValueError, match="no embeddings"):
        await generating.embed(["a"], may_truncate=True)


async def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    """With llama.cpp's reason, as for any engine."""
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    with pytest.raises(SpecialistUnavailable, match=r"broken\.gguf could not be loaded"):
        async with running(spec(tmp_path / "broken.gguf")):
            pass
