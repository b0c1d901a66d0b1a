"""Each cache operation against a fresh prefill's logits, on a model with sliding-window layers."""

import numpy as np
import pytest
from numpy.typing import NDArray

from specialists.engine.kv_cache import CacheRuleBroken, KVCache
from specialists.engine.llama import Context, ContextParams, Model
from tests.specialists.engine.conftest import NewContext, compute

EXACT = 1e-5
REORDERED = 0.03  # f16 sums over cells in another order differ by 0.005; a wrong window is off by up to 10


def random_tokens(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, 256, count)]


def fresh_logits(new_context: NewContext, tokens: list[int], split: int) -> NDArray[np.float32]:
    """Logits after a fresh prefill, batched in the same two parts: sums in another order differ by 1e-3."""
    context = new_context(max_sequences=1)
    compute(context, 0, tokens[:split])
    return compute(context, 0, tokens, start=split)


def cache_of(context: Context, model: Model) -> KVCache:
    return KVCache(context, window_tokens=model.window_tokens, is_recurrent=False)


def test_the_pico_model_has_a_window(model: Model) -> None:
    """The rules under test exist only for sliding windows."""
    assert model.window_tokens == 64


def test_a_rollback_within_the_slack_is_exact(model: Model, new_context: NewContext) -> None:
    """Cutting back as far as `can_keep` allows gives the logits of a fresh prefill."""
    tokens, other = random_tokens(300), random_tokens(300, seed=1)
    context = new_context(max_sequences=1)
    cache = cache_of(context, model)
    compute(context, 0, tokens)
    keep = min(k for k in range(1, 300) if cache.can_keep(0, k))
    cache.truncate(0, keep)
    continued = compute(context, 0, tokens[:keep] + other[:20], start=keep)
    fresh = fresh_logits(new_context, tokens[:keep] + other[:20], keep)
    np.testing.assert_allclose(continued, fresh, atol=REORDERED)


def test_a_rollback_beyond_the_slack_is_refused_and_would_be_wrong(model: Model, new_context: NewContext) -> None:
    """What `can_keep` refuses is indeed inexact, although llama.cpp itself reports success."""
    tokens = random_tokens(600)
    context = new_context(max_sequences=1)
    cache = cache_of(context, model)
    compute(context, 0, tokens)
    assert not cache.can_keep(0, 100)
    with pytest.raises(CacheRuleBroken):
        cache.truncate(0, 100)
    assert context.remove(0, 100), "llama.cpp says yes"
    continued = compute(context, 0, tokens[:101], start=100)
    fresh = fresh_logits(new_context, tokens[:101], 100)
    assert np.abs(continued - fresh).max() > 30 * REORDERED


def test_a_checkpoint_goes_back_any_distance(model: Model, new_context: NewContext) -> None:
    """Restoring a checkpoint gives exactly the logits of an uninterrupted run."""
    tokens, other = random_tokens(600), random_tokens(40, seed=2)
    context = new_context(max_sequences=1)
    cache = cache_of(context, model)
    compute(context, 0, tokens[:100])
    checkpoint = cache.checkpoint(0)
    compute(context, 0, tokens, start=100)
    assert cache.restore(0, checkpoint)
    continued = compute(context, 0, tokens[:100] + other, start=100)
    fresh = fresh_logits(new_context, tokens[:100] + other, 100)
    np.testing.assert_allclose(continued, fresh, atol=EXACT)


@pytest.mark.parametrize("with_checkpoint", [False, True])
def test_sharing_a_prefix_is_exact_for_both_and_never_jams(
    model: Model, new_context: NewContext, with_checkpoint: bool
) -> None:
    """A source that goes on and three sharers all continue as if alone, for longer than the window cache holds."""
    prefix = random_tokens(150)
    context = new_context(num_cells=4096, max_sequences=4)
    cache = cache_of(context, model)
    compute(context, 0, prefix)
    checkpoint = cache.checkpoint(0) if with_checkpoint else None
    for target in (1, 2, 3):
        assert cache.share(0, target, len(prefix), checkpoint)
    for sequence_id in range(4):
        mine = prefix + random_tokens(400, seed=10 + sequence_id)
        continued = compute(context, sequence_id, mine, start=len(prefix))
        fresh = fresh_logits(new_context, mine, len(prefix))
        np.testing.assert_allclose(continued, fresh, atol=REORDERED)


def test_a_source_that_has_moved_on_cannot_be_shared_without_a_checkpoint(
    model: Model, new_context: NewContext
) -> None:
    """Once the source's window has left the prefix behind, only a checkpoint of the prefix makes a share exact."""
    tokens = random_tokens(600)
    context = new_context(max_sequences=2)
    cache = cache_of(context, model)
    compute(context, 0, tokens[:100])
    checkpoint = cache.checkpoint(0)
    compute(context, 0, tokens, start=100)
    with pytest.raises(CacheRuleBroken):
        cache.share(0, 1, 100)
    assert cache.share(0, 1, 100, checkpoint)
    mine = tokens[:100] + random_tokens(30, seed=3)
    continued = compute(context, 1, mine, start=100)
    np.testing.assert_allclose(continued, fresh_logits(new_context, mine, 100), atol=REORDERED)


def test_a_checkpoint_of_another_length_is_refused(model: Model, new_context: NewContext) -> None:
    """A window taken at one length says nothing about another."""
    context = new_context(max_sequences=2)
    cache = cache_of(context, model)
    compute(context, 0, random_tokens(50))
    with pytest.raises(CacheRuleBroken):
        cache.share(0, 1, 40, cache.checkpoint(0))


def test_separate_parts_share_by_copy_and_stay_exact(dense_model: Model) -> None:
    """Without a pool, sharers and source all continue as if alone, also from the middle of the source."""
    assert dense_model.window_tokens == 0
    params = ContextParams(num_cells=2048, max_sequences=4, unified=False, batch_tokens=64, threads=1)
    context = dense_model.new_context(params)
    cache = cache_of(context, dense_model)
    source = random_tokens(200)
    compute(context, 0, source)
    for target, keep in ((1, 200), (2, 150), (3, 1)):
        assert cache.share(0, target, keep)
        assert cache.num_tokens(target) == keep
    for sequence_id, keep in ((1, 200), (2, 150), (3, 1), (0, 200)):
        mine = source[:keep] + random_tokens(100, seed=sequence_id)
        continued = compute(context, sequence_id, mine, start=keep)
        other = dense_model.new_context(params)
        compute(other, 0, mine[:keep])
        np.testing.assert_allclose(continued, compute(other, 0, mine, start=keep), atol=REORDERED)
        other.close()
    context.close()


def test_dropping_frees_every_cell(model: Model, new_context: NewContext) -> None:
    """After `drop` a Sequence of the whole cache's size fits again."""
    context = new_context(num_cells=256, max_sequences=2)
    cache = cache_of(context, model)
    compute(context, 0, random_tokens(250))
    cache.drop(0)
    assert cache.num_tokens(0) == 0
    compute(context, 1, random_tokens(250))
    assert cache.num_tokens(1) == 250
