"""Taking a loop back, on a real pico model: what follows is what an answer that never looped would have got."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from specialists.engine.engine import REWIND_POINT_TOKENS
from specialists.engine.loop_guard import Suspicion, Verdict
from specialists.engine.loop_watch import LoopWatch
from specialists.engine.sequence import Sequence
from specialists.request import (
    ChatPrompt,
    FinishReason,
    GenerationRequest,
    LoopGuardMode,
    LoopGuardParams,
    LoopReport,
    Message,
    Prompt,
    SamplingParams,
)
from tests.pico import IM_END
from tests.specialists.engine.conftest import GREEDY, EngineBench, NewBench, NewContext, Result, compute, text_request
from tests.specialists.engine.scripted import ScriptedGuard, ScriptedSampler, loop_at
from tests.specialists.engine.test_kv_cache import REORDERED

RESCUE = LoopGuardParams(mode=LoopGuardMode.RESCUE, rescue_tokens=8)
DRAWN = SamplingParams(temperature=0.6, top_k=40, seed=5)
NUM_TOP = 200
LONG = "The quick brown fox jumps over the lazy dog. " * 6


def letters(count: int, seed: int = 0) -> list[int]:
    """A made-up answer: `count` lower-case letters."""
    return [int(token) for token in np.random.default_rng(seed).integers(ord("a"), ord("z") + 1, count)]


@dataclass
class Guarded:
    """A request whose first draws and verdicts are scripted."""

    sequence: Sequence
    result: Result

    @property
    def watch(self) -> LoopWatch:
        assert self.sequence.watch is not None
        return self.sequence.watch

    @property
    def report(self) -> LoopReport:
        assert self.result.finished is not None
        assert self.result.finished.loop is not None
        return self.result.finished.loop


def submit(
    bench: EngineBench,
    request: GenerationRequest,
    answer: list[int],
    script: dict[int, Verdict] | None = None,
    *,
    paragraph: int = 0,
) -> Guarded:
    """Queue a request whose answer begins with `answer`, and whose guard follows `script` (see `loop_at`)."""
    sequence = bench.preparation.prepare(request)
    assert sequence.watch is not None
    sequence.sampler.close()
    sequence.sampler = ScriptedSampler(answer)
    sequence.watch.guard = ScriptedGuard(script or {}, paragraph)
    result = bench.results[request.id] = Result()
    bench.engine.add(sequence)
    return Guarded(sequence, result)


def script_of(guarded: Guarded) -> dict[int, Verdict]:
    assert isinstance(guarded.watch.guard, ScriptedGuard)
    return guarded.watch.guard.script


def run(bench: EngineBench, guarded: Guarded, *, until: int | None = None) -> Guarded:
    """Step until the answer is over; once it has been taken back it ends at `until` tokens."""
    bench.step_until(lambda: guarded.result.is_over or guarded.watch.num_rewinds > 0)
    if until is not None:
        guarded.sequence.max_tokens = until
    bench.step_until(lambda: guarded.result.is_over)
    return guarded


def assert_logprobs_are_fresh(guarded: Guarded, new_context: NewContext, since: int) -> None:
    """From answer token `since` on, the distribution is the one that computing all before it afresh gives.

    Of most tokens, that is: the drawn one alone is so likely that it would hide a difference.
    """
    prompt = list(guarded.sequence.prompt.tokens)
    drawn = [entry.token for entry in guarded.result.logprobs]
    assert drawn == guarded.sequence.answer
    context = new_context(max_sequences=1, num_cells=2048)
    for place in range(since, len(drawn)):
        context.remove(0, 0)
        logits = compute(context, 0, prompt + drawn[:place]).astype(np.float64)
        expected = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        top = guarded.result.logprobs[place].top
        assert len(top) == NUM_TOP
        found = np.array([logprob for _, _, logprob in top])
        np.testing.assert_allclose(found, expected[[token for token, _, _ in top]], atol=REORDERED)


@pytest.mark.parametrize(("length", "onset"), [(80, 60), (300, 290), (700, 100), (700, 3)])
def test_after_a_rewind_logits_are_those_of_an_answer_that_never_looped(
    new_bench: NewBench, new_context: NewContext, length: int, onset: int
) -> None:
    """Within the slack of the window cache and beyond it, while two other Sequences are under way and unmoved."""
    bench = new_bench(num_cells=4096, max_sequences=3)
    others = [bench.submit(text_request(str(i), LONG[i:], max_tokens=length, context_tokens=2048)) for i in (1, 2)]
    request = text_request(
        "looping", LONG, max_tokens=1000, context_tokens=2048, sampling=DRAWN, logprobs=NUM_TOP, loop_guard=RESCUE
    )
    guarded = run(bench, submit(bench, request, letters(length), loop_at(length, onset=onset)), until=onset + 4)
    bench.step_until(lambda: all(other.is_over for other in others))
    assert guarded.report.tokens_discarded == length - onset
    assert guarded.sequence.answer[:onset] == letters(length)[:onset]
    assert_logprobs_are_fresh(guarded, new_context, onset)
    for i, other in enumerate(others, start=1):
        [alone] = new_bench(num_cells=4096, max_sequences=1).run(
            text_request("alone", LONG[i:], max_tokens=length, context_tokens=2048)
        )
        assert other.text == alone.text


def guarded_request(id: str = "looping", prompt: str | Prompt = LONG, **options: Any) -> GenerationRequest:
    wanted: dict[str, Any] = {"max_tokens": 200, "sampling": DRAWN, "loop_guard": RESCUE}
    return text_request(id, prompt, **(wanted | options))


def test_a_long_answer_is_computed_again_only_from_its_last_rewind_point(new_bench: NewBench) -> None:
    """Beyond the slack, a window remembered on the way saves computing everything before it."""
    bench = new_bench(num_cells=4096, max_sequences=1)
    length = REWIND_POINT_TOKENS + 300
    request = guarded_request(prompt="Hi", max_tokens=2000, context_tokens=4096)
    guarded = submit(bench, request, letters(length), loop_at(length, onset=length - 260))
    bench.step_until(lambda: guarded.watch.num_rewinds > 0)
    assert guarded.sequence.num_computed == len("Hi") + REWIND_POINT_TOKENS
    assert len(guarded.sequence.tokens) == len("Hi") + length - 260


@pytest.mark.parametrize("hits", [1, 2])
def test_the_onset_token_is_not_drawn_again_there(new_bench: NewBench, hits: int) -> None:
    """Not even by a greedy request, whose likeliest token it is, nor the second time in the same place."""
    [greedy] = new_bench().run(text_request("greedy", LONG, max_tokens=12, logprobs=1))
    drawn = [entry.token for entry in greedy.logprobs]
    bench = new_bench()
    guarded = submit(bench, guarded_request(sampling=GREEDY), drawn, loop_at(11, onset=10))
    bench.step_until(lambda: guarded.watch.num_rewinds == 1)
    if hits == 2:
        script_of(guarded).update(loop_at(12, onset=10))
        bench.step_until(lambda: guarded.watch.num_rewinds == 2)
    banned = guarded.watch.banned
    assert len(banned) == hits
    assert drawn[10] in banned
    bench.step_until(lambda: guarded.sequence.num_generated > 10)
    assert guarded.sequence.answer[10] not in banned


def test_only_suspicious_text_is_held_and_it_leaves_when_the_suspicion_goes(new_bench: NewBench) -> None:
    """Nothing is shown while suspicion stands, everything before and after it is, and the text is complete."""
    bench = new_bench()
    answer = letters(30)
    held = {count: Verdict(Suspicion.SUSPECT) for count in range(11, 16)}
    guarded = submit(bench, guarded_request(max_tokens=30), answer, held)
    lengths = {}
    while not guarded.result.is_over:
        bench.engine.step()
        lengths[guarded.sequence.num_generated] = len(guarded.result.text)
    assert [lengths[count] for count in (10, 11, 15, 16, 17, 30)] == [10, 10, 10, 16, 17, 30]
    assert guarded.result.text == bytes(answer).decode()


def test_a_rewind_changes_nothing_that_was_shown(new_bench: NewBench) -> None:
    """The client sees the answer up to the hold, then how it went on; what was taken back it never saw."""
    bench = new_bench()
    answer = letters(60)
    guarded = submit(bench, guarded_request(max_tokens=60), answer, loop_at(40, onset=20, held_from=30))
    run(bench, guarded)
    final = guarded.sequence.answer
    assert final[:30] == answer[:30]
    assert guarded.result.text.encode()[:30] == bytes(answer[:30])
    assert guarded.report == LoopReport(
        hits=1, rewinds=1, rung="resample", onset=20, tokens_discarded=10, tokens_resampled=8
    )


def test_a_hold_keeps_a_stop_string_and_split_characters_whole(new_bench: NewBench) -> None:
    """Text held for two reasons at once comes back whole after a rewind into the middle of it."""
    bench = new_bench()
    answer = list("aé€ EN EX".encode())
    guarded = submit(bench, guarded_request(max_tokens=4, stop=("END",)), [*answer, *letters(9)])
    guarded.sequence.max_tokens = len(answer) + 1
    start = len("aé€ EN".encode())
    script_of(guarded).update(loop_at(len(answer), onset=start, held_from=4))
    run(bench, guarded, until=start + 1)
    assert bytes(guarded.sequence.answer[:start]) == "aé€ EN".encode()
    assert guarded.result.text[:6] == "aé€ EN"


def test_a_stop_string_ends_an_answer_that_is_held(new_bench: NewBench) -> None:
    """Holding text back does not hide a stop string in it, and what came before it is shown."""
    bench = new_bench()
    guarded = submit(bench, guarded_request(stop=("!",)), [*letters(20), ord("!")], loop_at(30, onset=5))
    run(bench, guarded)
    assert guarded.result.text.encode() == bytes(letters(20))
    assert guarded.result.finished is not None
    assert guarded.result.finished.reason is FinishReason.STOP


def test_at_the_top_of_the_ladder_the_answer_ends_where_it_began_to_repeat(new_bench: NewBench) -> None:
    """With a stop that any client understands, the first copy kept, and a report of what was done."""
    bench = new_bench()
    params = LoopGuardParams(mode=LoopGuardMode.RESCUE, rewinds=0)
    guarded = run(bench, submit(bench, guarded_request(loop_guard=params), letters(50), loop_at(50, onset=25)))
    assert guarded.result.text.encode() == bytes(letters(25))
    assert guarded.result.finished is not None
    assert guarded.result.finished.reason is FinishReason.STOP
    assert guarded.result.finished.usage.completion_tokens == 25
    assert guarded.report == LoopReport(hits=1, rung="end", onset=25, tokens_discarded=25)


def test_an_answer_that_nobody_has_read_is_begun_again(new_bench: NewBench) -> None:
    """Unless it is streamed nothing is shown before the end, so that even its first token may be taken back."""
    bench = new_bench()
    params = LoopGuardParams(mode=LoopGuardMode.RESCUE, resamples=0, paragraphs=0)
    request = guarded_request(max_tokens=60, loop_guard=params, is_streamed=False)
    guarded = submit(bench, request, letters(50), loop_at(50, onset=25))
    bench.step_until(lambda: guarded.watch.num_rewinds > 0)
    assert guarded.sequence.num_generated == 0
    assert guarded.result.text == ""
    run(bench, guarded)
    assert guarded.report.rung == "restart"
    assert guarded.report.tokens_discarded == 50


def test_a_paragraph_that_nobody_has_read_is_written_again(new_bench: NewBench) -> None:
    """When drawing anew at the onset is used up, the paragraph it stands in goes too."""
    bench = new_bench()
    params = LoopGuardParams(mode=LoopGuardMode.RESCUE, resamples=0)
    request = guarded_request(max_tokens=60, loop_guard=params, is_streamed=False)
    guarded = submit(bench, request, letters(50), loop_at(50, onset=25), paragraph=18)
    bench.step_until(lambda: guarded.watch.num_rewinds > 0)
    assert guarded.sequence.answer == letters(18)
    assert run(bench, guarded).report.rung == "paragraph"


def test_the_bound_on_tokens_is_about_those_that_remain(new_bench: NewBench) -> None:
    """What was taken back does not shorten the answer."""
    bench = new_bench()
    guarded = run(bench, submit(bench, guarded_request(max_tokens=60), letters(55), loop_at(55, onset=5)))
    assert guarded.result.finished is not None
    assert guarded.result.finished.reason is FinishReason.LENGTH
    assert guarded.result.finished.usage.completion_tokens == 60
    assert guarded.report.tokens_discarded == 50


def test_a_rescue_is_the_same_every_time(new_bench: NewBench) -> None:
    """A request with a seed gives one answer, also when it had to be rescued, and drawing returns to normal."""
    texts = set()
    for _ in range(2):
        bench = new_bench()
        guarded = run(bench, submit(bench, guarded_request(max_tokens=80), letters(40), loop_at(40, onset=20)))
        assert not guarded.watch.is_rescuing
        texts.add(guarded.result.text)
    assert len(texts) == 1


def test_a_rescued_sequence_may_be_preempted(new_bench: NewBench) -> None:
    """Losing all cells between the rewind and the next draw changes nothing."""

    def rescued(*, is_preempted: bool) -> str:
        bench = new_bench()
        guarded = submit(bench, guarded_request(max_tokens=60), letters(40), loop_at(40, onset=20))
        bench.step_until(lambda: guarded.watch.num_rewinds > 0)
        if is_preempted:
            bench.engine._preempt(guarded.sequence)
        return run(bench, guarded).result.text

    assert rescued(is_preempted=True) == rescued(is_preempted=False)


def test_a_loop_in_a_schema_is_left_where_the_schema_allows_and_the_answer_still_matches(new_bench: NewBench) -> None:
    """Forced tokens leave no way out, so the rewind goes to the next place that has one."""
    bench = new_bench()
    schema = '{"type":"object","properties":{"word":{"type":"string","maxLength":40}},"required":["word"]}'
    request = guarded_request(json_schema=schema)
    begin = len('{"word": "')
    guarded = submit(bench, request, letters(30), loop_at(begin + 30, onset=2))
    bench.step_until(lambda: guarded.watch.num_rewinds > 0)
    assert bytes(guarded.sequence.answer) == b'{"word": "'
    run(bench, guarded)
    answer = json.loads(guarded.result.text)
    assert len(answer["word"]) <= 40


def test_a_loop_that_cannot_be_left_inside_a_schema_is_not_passed_off_as_whole(new_bench: NewBench) -> None:
    """Half an object ends with `length`, the reason clients know for it."""
    bench = new_bench()
    params = LoopGuardParams(mode=LoopGuardMode.RESCUE, rewinds=0)
    schema = '{"type":"object","properties":{"word":{"type":"string"}},"required":["word"]}'
    request = guarded_request(json_schema=schema, loop_guard=params)
    guarded = run(bench, submit(bench, request, letters(30), loop_at(30, onset=15)))
    assert guarded.result.finished is not None
    assert guarded.result.finished.reason is FinishReason.LENGTH
    assert len(guarded.result.text) == 15


def test_detection_alone_counts_and_touches_nothing(new_bench: NewBench) -> None:
    """The answer is the one the request would get without a guard; a loop that goes on is one hit."""
    bench = new_bench()
    answer = letters(60)
    verdict = Verdict(Suspicion.LOOP, onset=10, hold_from=20)
    params = LoopGuardParams(mode=LoopGuardMode.DETECT)
    script = dict.fromkeys((*range(30, 40), *range(50, 55)), verdict)
    guarded = run(bench, submit(bench, guarded_request(max_tokens=60, loop_guard=params), answer, script))
    assert guarded.result.text.encode() == bytes(answer)
    assert guarded.report == LoopReport(hits=2, onset=10)


def conversation() -> ChatPrompt:
    return ChatPrompt((Message("user", "Hello"),), "<think></think>\n")


def test_an_answer_that_would_be_empty_is_begun_once_more(new_bench: NewBench) -> None:
    """End of turn as the first token is drawn again among all others, and told."""
    bench = new_bench()
    guarded = run(bench, submit(bench, guarded_request(prompt=conversation(), max_tokens=5), [IM_END]))
    assert guarded.sequence.answer[0] != IM_END
    assert guarded.report.first_token_redrawn


def test_an_end_after_the_first_token_is_an_end(new_bench: NewBench) -> None:
    """A short answer is no empty one, and neither is a raw text or an answer that needed no more."""
    bench = new_bench()
    short = run(bench, submit(bench, guarded_request("short", conversation()), [ord("a"), IM_END]))
    raw = run(bench, submit(bench, guarded_request("raw", "Hello"), [IM_END]))
    begun = ChatPrompt((Message("user", "Hello"),), "<think></think>\n", continuation="All said.")
    continued = run(bench, submit(bench, guarded_request("continued", begun), [IM_END]))
    for guarded, text in ((short, "a"), (raw, ""), (continued, "")):
        assert guarded.result.text == text
        assert not guarded.report.first_token_redrawn
