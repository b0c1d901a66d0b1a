"""The ladder as a pure decision: bounded, never taking back what was shown, and always coming to an end."""

from hypothesis import given
from hypothesis import strategies as st

from specialists.engine.loop_rescue import LONGEST_RESCUE_TOKENS, NOT_CLIMBED, Climbed, Hit, Rung, Step, climb
from specialists.request import LoopGuardParams

PARAMS = LoopGuardParams(resamples=2, paragraphs=1, attempts=2, rewinds=10, rescue_tokens=32)


@st.composite
def hits(draw: st.DrawFn) -> Hit:
    onset = draw(st.integers(0, 5000))
    return Hit(onset, draw(st.integers(0, onset)), draw(st.integers(0, 5000)))


any_params = st.builds(
    LoopGuardParams,
    resamples=st.integers(0, 4),
    paragraphs=st.integers(0, 2),
    attempts=st.integers(1, 3),
    rewinds=st.integers(0, 12),
    rescue_tokens=st.integers(1, 2048),
)


def climb_all(hits: list[Hit], params: LoopGuardParams = PARAMS) -> list[Step]:
    """One step for each hit, until the answer ends."""
    climbed = NOT_CLIMBED
    steps: list[Step] = []
    while len(steps) < len(hits) and not (steps and steps[-1].rung is Rung.END):
        step, climbed = climb(climbed, hits[len(steps)], params)
        steps.append(step)
    return steps


def rungs(hits: list[Hit], params: LoopGuardParams = PARAMS) -> list[Rung]:
    return [step.rung for step in climb_all(hits, params)]


@given(st.lists(hits(), min_size=1, max_size=13), any_params)
def test_what_was_shown_is_never_taken_back(hits: list[Hit], params: LoopGuardParams) -> None:
    """Every step keeps at least what has been shown, and never more than up to the onset otherwise."""
    for hit, step in zip(hits, climb_all(hits, params), strict=False):
        assert hit.num_shown <= step.keep <= max(hit.onset, hit.num_shown)


@given(st.lists(hits(), min_size=13, max_size=13), any_params)
def test_every_rung_has_its_bound(hits: list[Hit], params: LoopGuardParams) -> None:
    """However often an answer loops, it ends after so many rewinds, and after so few returns and restarts."""
    taken = rungs(hits, params)
    assert taken.index(Rung.END) <= params.rewinds
    assert taken.count(Rung.PARAGRAPH) <= params.paragraphs
    assert taken.count(Rung.RESTART) < params.attempts


@given(st.lists(hits(), min_size=1, max_size=13), any_params)
def test_changed_sampling_lasts_longer_each_time_up_to_a_limit(hits: list[Hit], params: LoopGuardParams) -> None:
    """Each rewind doubles the number of tokens that are drawn differently."""
    lengths = [step.rescue_tokens for step in climb_all(hits, params) if step.rung is not Rung.END]
    assert all(0 < length <= LONGEST_RESCUE_TOKENS for length in lengths)
    assert lengths == sorted(lengths)


def test_a_loop_that_comes_back_at_one_place_climbs_every_rung_in_order() -> None:
    """Draw anew twice, then from the paragraph's start, then from the prompt with all of it again, then end."""
    again = Hit(100, 60, 0)
    assert rungs([again] * 7) == [
        Rung.RESAMPLE,
        Rung.RESAMPLE,
        Rung.PARAGRAPH,
        Rung.RESTART,
        Rung.RESAMPLE,
        Rung.RESAMPLE,
        Rung.END,
    ]
    assert [step.keep for step in climb_all([again] * 7)] == [100, 100, 60, 0, 100, 100, 100]


def test_an_answer_that_is_being_read_is_neither_restarted_nor_taken_back_further_than_it_was_read() -> None:
    """With 80 tokens shown, the paragraph that began before them stays begun."""
    assert rungs([Hit(100, 60, 80)] * 4) == [Rung.RESAMPLE, Rung.RESAMPLE, Rung.PARAGRAPH, Rung.END]
    assert climb_all([Hit(100, 60, 80)] * 3)[-1].keep == 80
    assert rungs([Hit(100, 60, 100)] * 3) == [Rung.RESAMPLE, Rung.RESAMPLE, Rung.END]


def test_a_loop_at_another_place_starts_on_the_lowest_rung_again() -> None:
    """Two loops far apart do not count as one that cannot be left."""
    far_apart = [Hit(100 + 1000 * number, 50 + 1000 * number, 0) for number in range(6)]
    assert rungs(far_apart) == [Rung.RESAMPLE] * 6


def test_a_bound_of_nothing_leaves_only_the_end() -> None:
    """With no rewind allowed the first loop ends the answer at its onset."""
    step, climbed = climb(NOT_CLIMBED, Hit(30, 10, 0), LoopGuardParams(rewinds=0))
    assert (step, climbed) == (Step(rung=Rung.END, keep=30), Climbed())
