"""The engine over a real pico model, stepped by hand: batching changes nothing, and nobody pays for another."""

import math

import numpy as np
import pytest

from specialists.engine.batch_scheduler import SCORED_TOKENS
from specialists.engine.llama import Batch, Context, DecodeFailed
from specialists.errors import ContextOverflow, RequestRejected
from specialists.request import FinishReason, SamplingParams, TokenPrompt
from tests.specialists.engine.conftest import NewBench, NewContext, Result, chat, compute, text_request

LONG = "The quick brown fox jumps over the lazy dog. " * 6


def alone(new_bench: NewBench, prompt: str, max_tokens: int = 16) -> str:
    [result] = new_bench(max_sequences=1).run(text_request("alone", prompt, max_tokens=max_tokens))
    return result.text


def test_batched_answers_equal_those_given_alone(new_bench: NewBench) -> None:
    """Greedy answers of Sequences that share every batch are those each would get by itself."""
    prompts = [f"{LONG[i : i + 40 + 30 * i]} number {i}" for i in range(6)]
    bench = new_bench(max_sequences=3)
    results = bench.run(*(text_request(str(i), prompt) for i, prompt in enumerate(prompts)))
    assert [result.text for result in results] == [alone(new_bench, prompt) for prompt in prompts]


def test_a_second_request_reuses_the_first_ones_prefix(new_bench: NewBench) -> None:
    """Cached tokens are counted, and the answer is the one a fresh engine gives."""
    bench = new_bench()
    bench.run(text_request("first", LONG + "one"))
    [second] = bench.run(text_request("second", LONG + "two"))
    assert second.started is not None
    assert second.started.cached_tokens >= len(LONG)
    assert second.text == alone(new_bench, LONG + "two")


def test_a_follow_up_turn_starts_where_the_conversation_stood(new_bench: NewBench) -> None:
    """The history is not computed again although the closed think block and the answer's tail differ."""
    bench = new_bench(num_cells=4096)
    question = ("user", "What is a window? " * 10)
    [first] = bench.run(text_request("1", chat(question), max_tokens=200, context_tokens=2048))
    [second] = bench.run(
        text_request("2", chat(question, ("assistant", "One."), ("user", "More?")), context_tokens=2048)
    )
    assert first.finished is not None
    assert second.started is not None
    history = first.finished.usage.prompt_tokens - len("<think></think>\n")
    assert second.started.cached_tokens >= history - 1


def test_siblings_wait_for_a_prefix_that_is_just_being_computed(new_bench: NewBench) -> None:
    """Of n choices of one prompt, one computes it and the others share it."""
    bench = new_bench(batch_tokens=64)
    results = bench.run(*(text_request(str(i), LONG) for i in range(4)))
    cached = sorted(result.finished.usage.cached_tokens for result in results if result.finished)
    assert cached[0] == 0
    assert cached[1] >= len(LONG) - 64
    assert len({result.text for result in results}) == 1


def test_a_long_prompt_does_not_stop_those_who_generate(new_bench: NewBench) -> None:
    """Every step that computes a prompt also advances the answers under way."""
    bench = new_bench(batch_tokens=64, num_cells=4096)
    talker = bench.submit(text_request("talker", "Hi", max_tokens=200))
    bench.step_until(lambda: bench.engine.num_running == 1 and talker.started is not None)
    reader = bench.submit(text_request("reader", LONG * 4, context_tokens=2048))
    before = len(talker.text)
    bench.step_until(lambda: reader.started is not None and reader.text != "")
    assert len(talker.text.encode()) - before >= math.ceil(len(LONG * 4) / 64) - 1


def test_an_overflowing_cache_preempts_instead_of_failing(new_bench: NewBench) -> None:
    """Three conversations that do not fit together still all get the answers they get alone."""
    prompts = [LONG[:100] + str(i) for i in range(3)]
    bench = new_bench(num_cells=256, max_sequences=3)
    results = bench.run(*(text_request(str(i), prompt, max_tokens=100) for i, prompt in enumerate(prompts)))
    assert all(result.failed is None for result in results)
    assert [result.text for result in results] == [alone(new_bench, prompt, 100) for prompt in prompts]


def test_an_abort_frees_the_slot_at_once(new_bench: NewBench) -> None:
    """A waiting request takes over the slot of an aborted one in the very next step."""
    bench = new_bench(max_sequences=1)
    bench.submit(text_request("hog", LONG, max_tokens=400))
    bench.step_until(lambda: bench.engine.num_running == 1)
    waiter = bench.submit(text_request("waiter", "Hello"))
    bench.engine.abort("hog")
    bench.engine.step()
    assert waiter.started is not None


def test_an_abort_reaches_a_request_that_still_waits(new_bench: NewBench) -> None:
    """An aborted waiter is never started."""
    bench = new_bench(max_sequences=1)
    [hog, waiter] = [bench.submit(text_request(id, LONG)) for id in ("hog", "waiter")]
    bench.engine.step()
    bench.engine.abort("waiter")
    bench.step_until(lambda: hog.is_over)
    assert not bench.engine.step()
    assert waiter.started is None


def test_a_paused_request_stands_still_and_goes_on_unchanged(new_bench: NewBench) -> None:
    """Pausing changes when an answer comes, not what it is."""
    bench = new_bench()
    slow = bench.submit(text_request("slow", "Hello", max_tokens=30))
    bench.step_until(lambda: slow.text != "")
    bench.engine.set_paused("slow", True)
    before = slow.text
    assert not bench.engine.step()
    assert slow.text == before
    bench.engine.set_paused("slow", False)
    bench.step_until(lambda: slow.is_over)
    assert slow.text == alone(new_bench, "Hello", 30)


def test_the_context_edge_ends_an_answer_with_length_and_exact_usage(new_bench: NewBench) -> None:
    """A prompt that fits while prompt + max_tokens does not is answered up to the edge (F29)."""
    [result] = new_bench().run(text_request("edge", "x" * 100, max_tokens=1000, context_tokens=120))
    assert result.finished is not None
    assert result.finished.reason is FinishReason.LENGTH
    assert result.finished.usage.prompt_tokens + result.finished.usage.completion_tokens == 120


def test_a_prompt_longer_than_the_context_is_refused_alone(new_bench: NewBench) -> None:
    """An overflow is that request's own error (F28)."""
    bench = new_bench()
    with pytest.raises(ContextOverflow, match="maximum context length is 64 tokens"):
        bench.preparation.prepare(text_request("long", "x" * 64, context_tokens=64))


def test_a_hopeless_prompt_is_refused_without_tokenising_it(new_bench: NewBench) -> None:
    """Ten million characters are refused by their bytes alone."""
    with pytest.raises(ContextOverflow):
        new_bench().preparation.prepare(text_request("huge", "x" * 10_000_000, context_tokens=512))


def test_unknown_token_ids_are_refused(new_bench: NewBench) -> None:
    """A token id outside the vocabulary never reaches llama.cpp, which would abort the process."""
    with pytest.raises(RequestRejected, match="Token id 99999"):
        new_bench().preparation.prepare(text_request("bad", TokenPrompt((1, 99999))))


def test_a_stop_string_ends_the_answer_before_itself(new_bench: NewBench) -> None:
    """No byte of the stop string is shown, and what precedes it is all there."""
    full = alone(new_bench, "Hello there", 60)
    stop = full[10:13]
    [result] = new_bench().run(text_request("stop", "Hello there", max_tokens=60, stop=(stop,)))
    assert result.text == full[: full.index(stop)]
    assert result.finished is not None
    assert result.finished.reason is FinishReason.STOP


def test_the_same_seed_gives_the_same_answer(new_bench: NewBench) -> None:
    """Sampling is reproducible by its seed, whatever else runs beside it."""
    drawn = SamplingParams(temperature=1.0, top_k=40, seed=11)
    [first] = new_bench().run(text_request("a", "Hello", sampling=drawn))
    [second, _other] = new_bench().run(
        text_request("b", "Hello", sampling=drawn), text_request("c", LONG, sampling=drawn)
    )
    assert first.text == second.text


def test_logprobs_are_the_models_own(new_bench: NewBench, new_context: NewContext) -> None:
    """Reported log-probabilities equal a log-softmax over a plain decode's logits."""
    bench = new_bench()
    [result] = bench.run(text_request("lp", "Hello", max_tokens=4, logprobs=3))
    tokens = list(b"Hello")
    tokens = bench.preparation.prepare(text_request("x", "Hello")).tokens
    for entry in result.logprobs:
        logits = compute(new_context(max_sequences=1), 0, tokens).astype(np.float64)
        expected = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        assert entry.logprob == pytest.approx(expected[entry.token], abs=1e-3)
        assert [token for token, _, _ in entry.top] == list(np.argsort(-expected)[:3])
        tokens.append(entry.token)
    assert len(result.logprobs) == 4


def test_prompt_logprobs_are_those_of_computing_the_prompt_token_by_token(
    new_bench: NewBench, new_context: NewContext
) -> None:
    """`echo_logprobs` scores every prompt token but the first, across batch borders."""
    bench = new_bench(batch_tokens=32)
    [result] = bench.run(text_request("echo", LONG[:70], max_tokens=1, logprobs=0, echo_logprobs=True))
    assert result.started is not None
    scored = result.started.prompt_logprobs
    tokens = bench.preparation.prepare(text_request("x", LONG[:70])).tokens
    assert len(scored) == len(tokens)
    assert (scored[0].token, scored[0].logprob) == (tokens[0], None)
    for position in (1, 31, 32, 33, 69):
        logits = compute(new_context(max_sequences=1), 0, tokens[:position]).astype(np.float64)
        expected = logits[tokens[position]] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        assert scored[position].logprob == pytest.approx(expected, abs=1e-3)


def test_few_rows_of_logits_are_enough_for_prompts_that_are_scored(new_bench: NewBench) -> None:
    """With no more rows than a step may want, long scored prompts beside a generation give what they give with all.

    llama.cpp would end the process at the first row too many.
    """
    requests = [
        text_request("first", LONG[:150], max_tokens=1, logprobs=0, echo_logprobs=True),
        text_request("second", LONG[20:170], max_tokens=1, logprobs=0, echo_logprobs=True),
        text_request("plain", "moon", max_tokens=12),
    ]
    many = new_bench(batch_tokens=256, max_sequences=3).run(*requests)
    few = new_bench(batch_tokens=256, max_sequences=3, max_outputs=3 + SCORED_TOKENS).run(*requests)

    def scores(result: Result) -> list[float]:
        assert result.started is not None
        return [each.logprob or 0.0 for each in result.started.prompt_logprobs]

    assert [len(scores(result)) for result in few] == [150, 150, 0]
    for expected, found in zip(many, few, strict=True):
        assert scores(found) == pytest.approx(scores(expected), abs=1e-3)
    assert [result.text for result in few] == [result.text for result in many]


def test_a_schema_is_enforced_token_by_token(new_bench: NewBench) -> None:
    """A model with random weights still answers with JSON that matches the schema."""
    schema = (
        '{"type":"object","properties":{"n":{"enum":["🦙🎉","a\\"b"]}},"required":["n"],"additionalProperties":false}'
    )
    [result] = new_bench().run(text_request("json", "Hello", max_tokens=200, json_schema=schema))
    assert result.text in ('{"n": "🦙🎉"}', '{"n": "a\\"b"}')
    assert result.finished is not None
    assert result.finished.reason is FinishReason.STOP


class PoisonedContext(Context):
    """A context whose decode fails for good whenever a batch holds a given token."""

    poison = 0

    def decode(self, batch: Batch) -> None:
        if self.poison in batch.native.token[: len(batch)]:
            raise DecodeFailed("poisoned")
        super().decode(batch)


def test_a_request_that_breaks_the_decode_fails_alone(new_bench: NewBench) -> None:
    """After a fatal decode the others start over and get the answers they get alone."""
    bench = new_bench(max_sequences=3)
    bench.context.__class__ = PoisonedContext
    PoisonedContext.poison = ord("~")
    [poisoned, *healthy] = bench.run(
        text_request("bad", "please ~ break"), text_request("a", "Hello"), text_request("b", LONG)
    )
    assert poisoned.failed is not None
    assert poisoned.failed.code == "generation_failed"
    assert [result.text for result in healthy] == [alone(new_bench, "Hello"), alone(new_bench, LONG)]


def test_recovery_from_a_broken_decode_does_not_wait_for_a_shared_prefix(new_bench: NewBench) -> None:
    """One suspect at a time is computed, also when the next would rather share its prefix; it used to run slotless."""
    bench = new_bench(max_sequences=3)
    healthy = [bench.submit(text_request(id, LONG + id)) for id in "ab"]
    bench.step_until(lambda: all(result.text for result in healthy))
    bench.context.__class__ = PoisonedContext
    PoisonedContext.poison = ord("~")
    [poisoned] = bench.run(text_request("bad", "~"))
    bench.step_until(lambda: all(result.is_over for result in healthy))
    assert poisoned.failed is not None
    assert [result.text for result in healthy] == [alone(new_bench, LONG + "a"), alone(new_bench, LONG + "b")]


def test_a_preempted_prompt_is_scored_once(new_bench: NewBench) -> None:
    """Prompt log-probabilities begin anew when the prompt does; they used to be told twice."""
    bench = new_bench(num_cells=256, max_sequences=2, batch_tokens=32)
    hog = bench.submit(text_request("hog", LONG[:100], max_tokens=140))
    bench.step_until(lambda: len(hog.text) > 10)
    [result] = bench.run(text_request("echo", LONG[:200], max_tokens=1, logprobs=0, echo_logprobs=True))
    assert result.started is not None
    assert len(result.started.prompt_logprobs) == 200
