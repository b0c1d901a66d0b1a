"""What counts as said before, by shingles."""

from hypothesis import given
from hypothesis import strategies as st

from specialists.engine.loop_novelty import SHINGLE_TOKENS, CopyLimits, ShingleNovelty

LIMITS = CopyLimits(streak=4, window=20, share=0.8, calm_window=8, calm_share=0.5)
UNIT = list(range(100, 130))


def pushed(tokens: list[int], *, free_copies: int = 0) -> ShingleNovelty:
    novelty = ShingleNovelty(LIMITS, free_copies)
    for token in tokens:
        novelty.push(token)
    return novelty


def test_a_second_copy_is_said_again_and_a_third_is_a_copy_that_counts() -> None:
    """The second copy raises nothing; the third is suspect from its first token."""
    twice = pushed([*UNIT, 1, 2, 3, *UNIT])
    thrice = pushed([*UNIT, 1, 2, 3, *UNIT, 4, 5, *UNIT])

    assert (twice.copied_share(20), twice.suspect_since) == (0.0, -1)
    assert thrice.copied_share(20) == 1.0
    assert thrice.suspect_since == 2 * len(UNIT) + 5


def test_a_new_token_renews_as_many_shingles_as_it_is_part_of() -> None:
    """One edit in a copy takes eight of its tokens out of the count."""
    edited = [*UNIT[:10], 7, *UNIT[11:]]
    novelty = pushed([*UNIT, *UNIT, *UNIT, *edited])

    copied = len(UNIT) - SHINGLE_TOKENS
    assert novelty.copied_share(len(UNIT)) == copied / len(UNIT)


def test_the_second_copy_is_found_behind_many_others() -> None:
    """However late a loop is suspected, its onset is where the repetition began, not one copy back."""
    novelty = pushed([*range(50), *UNIT, *UNIT, *UNIT, *UNIT, *UNIT])

    assert novelty.second_copy(50 + 4 * len(UNIT)) == 50 + len(UNIT)


def test_copies_that_were_asked_for_are_free() -> None:
    """With five free copies the fifth raises nothing and the sixth does."""
    assert pushed(UNIT * 5, free_copies=5).suspect_since < 0
    assert pushed(UNIT * 6, free_copies=5).suspect_since == 5 * len(UNIT)


@given(st.lists(st.integers(0, 1), max_size=80), st.lists(st.integers(0, 1), max_size=40), st.integers(0, 80))
def test_truncating_leaves_no_trace(tokens: list[int], others: list[int], kept: int) -> None:
    """What was cut away is new again, and what it repeated is once more only what it was before."""
    cut, fresh = pushed(tokens), pushed(tokens[:kept])
    cut.truncate(kept)
    for token in others:
        cut.push(token)
        fresh.push(token)
        assert cut.suspect_since == fresh.suspect_since
        assert cut.copied_share(20) == fresh.copied_share(20)
        assert cut.again_share(0) == fresh.again_share(0)
        assert cut.second_copy(len(cut) - 1) == fresh.second_copy(len(fresh) - 1)
