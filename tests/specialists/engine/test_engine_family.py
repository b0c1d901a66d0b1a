"""An engine that is several specialists in turn: whose requests are computed, and what becomes of the others'."""

import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from specialists.engine.chat_template import ChatTemplate
from specialists.engine.engine import Engine
from specialists.engine.frame_loading import LoadedFrame
from specialists.engine.llama import ContextParams
from specialists.engine.parking import ParkingLot
from specialists.engine.preparation import Preparation
from specialists.errors import RequestRejected
from specialists.family import Family
from specialists.request import SamplingParams, TokenPrompt
from tests.pico import CHAT_TEMPLATE
from tests.specialists.engine.conftest import EngineBench, Result, text_request
from tests.specialists.engine.frames import NUM_KEPT, WIDE, family_of, frame_of, loaded, tokens

LONG = tokens(110)
OTHER = tokens(90, seed=1)
MORE = tokens(5, seed=2)
# A pico model that answers greedily repeats itself; at this temperature its answer tells its weights.
SAMPLING = SamplingParams(temperature=10.0, top_k=64, top_p=1.0, seed=11)


class FamilyBench(EngineBench):
    """An engine over a frame; `become` does what its host does about a Morph."""

    def __init__(self, found: LoadedFrame, family: Family, *, max_sequences: int, parking_bytes: int) -> None:
        params = ContextParams(num_cells=512 * max_sequences, max_sequences=max_sequences, batch_tokens=64, threads=1)
        context = found.model.new_context(params)
        super().__init__(found.model, context)
        self.lot = ParkingLot(max_bytes=parking_bytes)
        self._found = found
        self._family = family
        self._num_asked = 0
        self.engine = Engine(
            context,
            found.model.vocabulary,
            self.cache,
            emit=self._collect,
            clock=self.clock,
            serving=frame_of(found).serving,
            lot=self.lot,
        )
        template = ChatTemplate(CHAT_TEMPLATE, found.model.vocabulary)
        self.preparation = Preparation(
            found.model.vocabulary, template, clock=self.clock, members=frozenset(family.members)
        )

    def become(self, name: str) -> None:
        frame = frame_of(self._found)
        frame.morph(name, self._family.members[name], clock=time.monotonic)
        self.engine.serve(frame.serving)

    def ask(self, specialist: str, prompt: list[int], *, max_tokens: int = 12) -> Result:
        self._num_asked += 1
        plain = text_request(
            str(self._num_asked), TokenPrompt(tuple(prompt)), max_tokens=max_tokens, sampling=SAMPLING, logprobs=0
        )
        return self.submit(replace(plain, specialist=specialist))

    def answer(self, specialist: str, prompt: list[int], *, max_tokens: int = 12) -> Result:
        """Become the specialist and answer."""
        self.become(specialist)
        result = self.ask(specialist, prompt, max_tokens=max_tokens)
        self.step_until(lambda: result.is_over)
        return result


def drawn(result: Result) -> list[int]:
    return [each.token for each in result.logprobs]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family_of(tmp_path_factory.mktemp("family") / "parent.gguf", WIDE, num_kept=NUM_KEPT)


@pytest.fixture(scope="module")
def found(family: Family) -> Iterator[LoadedFrame]:
    with loaded(family, "math") as found:
        yield found


def new_bench(
    found: LoadedFrame, family: Family, *, max_sequences: int = 4, parking_bytes: int = 1 << 24
) -> FamilyBench:
    bench = FamilyBench(found, family, max_sequences=max_sequences, parking_bytes=parking_bytes)
    bench.become("math")
    return bench


@pytest.fixture
def bench(found: LoadedFrame, family: Family) -> Iterator[FamilyBench]:
    bench = new_bench(found, family)
    yield bench
    bench.context.close()


def alone(found: LoadedFrame, family: Family, specialist: str, prompt: list[int], *, max_tokens: int = 12) -> Result:
    """What a specialist answers in an engine where it is the only one."""
    bench = new_bench(found, family)
    result = bench.answer(specialist, prompt, max_tokens=max_tokens)
    bench.context.close()
    return result


def assert_alike(result: Result, expected: Result) -> None:
    """One distribution for every token, up to the rounding of other batches, until that rounding drew another."""
    assert len(result.logprobs) == len(expected.logprobs)
    for got, want in zip(result.logprobs, expected.logprobs, strict=True):
        if got.token != want.token and got is not result.logprobs[0]:
            return
        assert got.token == want.token
        assert got.logprob == pytest.approx(want.logprob, abs=0.2)


def cached(result: Result) -> int:
    assert result.started is not None
    return result.started.cached_tokens


def test_requests_wait_for_their_specialist(bench: FamilyBench, found: LoadedFrame, family: Family) -> None:
    """Those of the specialist that is served are answered meanwhile; each gets what it would have got alone."""
    law, math = bench.ask("law", LONG), bench.ask("math", LONG)
    bench.step_until(lambda: math.is_over)

    assert law.started is None
    assert bench.engine.step() is False
    bench.become("law")
    bench.step_until(lambda: law.is_over)
    assert_alike(math, alone(found, family, "math", LONG))
    assert_alike(law, alone(found, family, "law", LONG))
    assert drawn(math) != drawn(law)


def test_an_answer_that_is_interrupted_goes_on_where_it_was(
    bench: FamilyBench, found: LoadedFrame, family: Family
) -> None:
    """A morph in mid-answer costs neither a token nor a prefill: the answer is that of an undisturbed one."""
    math = bench.ask("math", LONG, max_tokens=30)
    bench.step_until(lambda: len(drawn(math)) > 5)
    half = drawn(math)
    law = bench.answer("law", OTHER)

    assert (drawn(math), math.is_over, law.is_over) == (half, False, True)
    bench.become("math")
    bench.step_until(lambda: math.is_over)
    assert_alike(math, alone(found, family, "math", LONG, max_tokens=30))
    assert math.finished is not None
    assert math.finished.usage.cached_tokens == 0


def test_a_conversation_comes_back_with_its_cache(bench: FamilyBench, found: LoadedFrame, family: Family) -> None:
    """The next turn after a morph to and fro computes its own tokens alone, and answers as if nothing had been."""
    history = LONG + drawn(bench.answer("math", LONG))
    bench.answer("law", OTHER)
    again = bench.answer("math", history + MORE)

    assert cached(again) == len(history) - 1  # the last token drawn was never computed
    assert_alike(again, alone(found, family, "math", history + MORE))


def test_no_prefix_crosses_from_one_specialist_to_another(
    bench: FamilyBench, found: LoadedFrame, family: Family
) -> None:
    """The same prompt for another specialist is computed from its first token."""
    bench.answer("math", LONG)
    law = bench.answer("law", LONG)

    assert cached(law) == 0
    assert_alike(law, alone(found, family, "law", LONG))
    assert cached(bench.answer("math", LONG)) == len(LONG) - 1


def test_nobody_waits_to_share_a_prefix_with_a_suspended_prompt(bench: FamilyBench) -> None:
    """A prompt of another specialist that is half computed is no reason to wait for it."""
    math = bench.ask("math", tokens(300))
    bench.engine.step()
    bench.become("law")
    law = bench.ask("law", tokens(300))
    bench.step_until(lambda: law.is_over)

    assert (math.is_over, law.failed) == (False, None)


@pytest.mark.parametrize("parking_bytes", [1 << 24, 0], ids=["parked", "computed again"])
def test_under_pressure_conversations_are_parked_and_return(
    found: LoadedFrame, family: Family, parking_bytes: int
) -> None:
    """With slots for two, four conversations of two specialists take turns; with a lot, none is computed again."""
    bench = new_bench(found, family, max_sequences=2, parking_bytes=parking_bytes)
    conversations = {(name, seed): tokens(100, seed=seed) for seed, name in enumerate(["math", "law"] * 2)}
    for turn in range(3):
        for (name, seed), history in conversations.items():
            result = bench.answer(name, history)
            if parking_bytes and turn:
                assert cached(result) == len(history) - len(MORE) - 1
            elif turn:
                assert cached(result) == 0
            if turn == 2:
                assert_alike(result, alone(found, family, name, history))
            conversations[name, seed] = history + drawn(result) + MORE
    assert len(bench.lot) == (2 if parking_bytes else 0)
    bench.context.close()


def test_suspended_answers_give_their_slots_up_and_finish_later(found: LoadedFrame, family: Family) -> None:
    """All slots taken by interrupted answers of one specialist: another's requests run, and then all of them end."""
    bench = new_bench(found, family, max_sequences=2)
    prompts = [tokens(100, seed=seed) for seed in range(4)]
    math = [bench.ask("math", prompt, max_tokens=30) for prompt in prompts[:2]]
    bench.step_until(lambda: all(drawn(result) for result in math))
    bench.become("law")
    law = [bench.ask("law", prompt) for prompt in prompts[2:]]
    bench.step_until(lambda: all(result.is_over for result in law))
    assert not any(result.is_over for result in math)

    bench.become("math")
    bench.step_until(lambda: all(result.is_over for result in math))
    for result, prompt in zip(math, prompts, strict=False):
        assert_alike(result, alone(found, family, "math", prompt, max_tokens=30))
    assert bench.engine.num_running == bench.engine.num_waiting == 0
    bench.context.close()


def test_a_request_for_a_stranger_is_refused(bench: FamilyBench) -> None:
    """An engine says at once that it can never be that specialist, rather than let it wait for ever."""
    with pytest.raises(RequestRejected, match="cannot be 'physics'"):
        bench.ask("physics", LONG)


def test_nothing_is_computed_while_nobody_is_served(bench: FamilyBench) -> None:
    """After a morph that broke off the frame is nobody: requests wait until it is somebody again."""
    result = bench.ask("math", LONG)
    bench.engine.serve(None)
    assert bench.engine.step() is False
    bench.become("math")
    bench.step_until(lambda: result.is_over)
    assert result.failed is None
