"""Caches in fewer bits: what they cost in accuracy and memory, and that parking them loses nothing more."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from specialists.engine.client import EngineClient
from specialists.engine.dry_run import run
from specialists.engine.kv_cache import KVCache
from specialists.engine.llama import Context, ContextParams, LlamaLog, Model
from specialists.engine.order import load_order
from specialists.engine.protocol import CacheType, EngineSpec
from specialists.errors import SpecialistUnavailable
from specialists.gguf_file import read_header
from specialists.pool.footprint import estimate_footprint
from specialists.request import Finished, TokenPrompt
from tests.pico import PicoShape, write_pico_gemma, write_pico_llama
from tests.specialists.engine.conftest import compute, text_request
from tests.specialists.engine.frames import tokens

SHAPE = PicoShape(sliding=(True, False, True, False), experts=8, head_width=32)
PARAMS = ContextParams(num_cells=1024, max_sequences=2, batch_tokens=64, threads=1)
PROMPT, MORE = tokens(110), tokens(20, seed=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = write_pico_gemma(tmp_path_factory.mktemp("types") / "pico.gguf", SHAPE)
    model = Model.load(path, gpu_layers=0, log=LlamaLog())
    yield model
    model.close()


def context_of(model: Model, cache_type: CacheType) -> Context:
    return model.new_context(replace(PARAMS, cache_type=cache_type))


def log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def divergence(model: Model, cache_type: CacheType) -> float:
    """Kullback-Leibler, in nats, of the next token's distribution from that with f16."""
    said = []
    for each in (CacheType.F16, cache_type):
        context = context_of(model, each)
        said.append(log_probabilities(compute(context, 0, PROMPT)))
        context.close()
    return float((np.exp(said[0]) * (said[0] - said[1])).sum())


def test_the_next_token_is_drawn_from_nearly_the_same_distribution(model: Model) -> None:
    """Eight bits cost next to nothing, four a little more; neither is f16 by another name."""
    eight, four = divergence(model, CacheType.Q8_0), divergence(model, CacheType.Q4_0)

    assert 0 < eight < 1e-3
    assert eight < four < 0.1


@pytest.mark.parametrize("cache_type", list(CacheType))
def test_a_parked_conversation_comes_back_exactly(model: Model, cache_type: CacheType) -> None:
    """Saved, dropped, and loaded again after somebody else's turn, it goes on to the last bit as if it had stayed."""
    context = context_of(model, cache_type)
    cache = KVCache(context, window_tokens=model.window_tokens, is_recurrent=False)
    compute(context, 0, PROMPT)
    stayed = compute(context, 0, PROMPT + MORE, start=len(PROMPT))
    cache.drop(0)
    compute(context, 0, PROMPT)
    state = cache.save(0)
    cache.drop(0)
    compute(context, 1, tokens(200, seed=2))
    cache.drop(1)

    assert cache.load(0, state)
    returned = compute(context, 0, PROMPT + MORE, start=len(PROMPT))

    np.testing.assert_array_equal(returned, stayed)
    context.close()


@pytest.mark.parametrize("cache_type", list(CacheType))
def test_plan_and_formula_count_the_bits(tmp_path: Path, cache_type: CacheType) -> None:
    """llama.cpp's own figure for the cache, and the formula's, to the byte."""
    path = write_pico_gemma(tmp_path / "pico.gguf", SHAPE)
    spec = EngineSpec(model_path=path, context_tokens=1000, parallel=2, gpu_layers=0, cache_type=cache_type)

    planned = sum(each.cache_bytes for each in run(load_order(spec), LlamaLog()).buffers)

    assert planned == estimate_footprint(read_header(path), spec).kv_cache_bytes


def test_a_model_that_cannot_have_it_says_which_key_to_change(tmp_path: Path) -> None:
    """Blocks are of 32 values; heads of 16 cannot be cut into them."""
    path = write_pico_llama(tmp_path / "narrow.gguf")
    model = Model.load(path, gpu_layers=0, log=LlamaLog())

    with pytest.raises(SpecialistUnavailable, match=r'cache_type = "q8_0" cannot .* set cache_type = "f16"'):
        context_of(model, CacheType.Q8_0)
    model.close()


@pytest.mark.anyio
async def test_an_engine_process_is_loaded_with_it_or_says_why_not(tmp_path: Path) -> None:
    """What college.toml asks for reaches llama.cpp, and its refusal reaches whoever asked."""
    wide = write_pico_gemma(tmp_path / "wide.gguf", SHAPE)
    narrow = write_pico_llama(tmp_path / "narrow.gguf")
    asked = EngineSpec(
        model_path=wide, context_tokens=256, parallel=1, gpu_layers=0, threads=1, cache_type=CacheType.Q4_0
    )
    engine, refused = EngineClient(asked), EngineClient(replace(asked, model_path=narrow))
    try:
        await engine.load(lambda _share: None)
        events = [event async for event in engine.generate(text_request("a", TokenPrompt(tuple(PROMPT))))]
        with pytest.raises(SpecialistUnavailable, match=r'cache_type = "q4_0" cannot'):
            await refused.load(lambda _share: None)
    finally:
        await engine.close()
        await refused.close()

    assert isinstance(events[-1], Finished)
