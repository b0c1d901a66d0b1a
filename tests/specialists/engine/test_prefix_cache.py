"""Where a new request starts: a decision over slots, checked without a model."""

from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from specialists.engine.kv_cache import Checkpoint, KVCache
from specialists.engine.prefix_cache import MAX_MOVED_TOKENS, Slot, common_prefix_len, plan_reuse


class Rules:
    """Cache rules as a test wants them: `reach` is how far back a slot can be cut."""

    def __init__(self, *, reach: int = 10_000, shares: bool = True, neighbours: bool = False) -> None:
        self.reach = reach
        self.shares = shares
        self.computes_neighbours_together = neighbours
        self.lengths: dict[int, int] = {}

    def can_keep(self, sequence_id: int, keep: int) -> bool:
        return self.lengths.get(sequence_id, keep) - keep <= self.reach

    def can_share(self) -> bool:
        return self.shares


def rules(**settings: object) -> KVCache:
    return cast(KVCache, Rules(**settings))  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_prefix_is_what_counting_says(left: list[int], right: list[int]) -> None:
    """The vectorised comparison equals the obvious loop."""
    count = 0
    while count < min(len(left), len(right)) and left[count] == right[count]:
        count += 1
    assert common_prefix_len(left, right) == count


def test_a_follow_up_continues_in_its_own_slot() -> None:
    """A prompt that extends an idle slot's tokens runs there, and recomputes only what is new."""
    own = Slot(0, tokens=[1, 2, 3, 4], last_used=1)
    other = Slot(1, tokens=[9, 9], last_used=2)
    reuse = plan_reuse([1, 2, 3, 4, 5], [own, other], rules())
    assert reuse is not None
    assert (reuse.target, reuse.source, reuse.keep) == (own, own, 4)


def test_a_shared_beginning_leaves_the_other_conversation_alone() -> None:
    """A new conversation takes the system prompt's cells along without cutting the older conversation short."""
    older = Slot(0, tokens=[1, 2, *range(10, 30)], last_used=5)
    stale = Slot(1, tokens=[8], last_used=1)
    reuse = plan_reuse([1, 2, 3], [older, stale], rules())
    assert reuse is not None
    assert (reuse.target, reuse.source, reuse.keep) == (stale, older, 2)


def test_a_busy_slot_can_be_shared_but_never_taken() -> None:
    """A running Sequence's prefix is copied; with every slot busy there is no plan."""
    busy = Slot(0, tokens=[1, 2, 3], is_busy=True)
    idle = Slot(1)
    reuse = plan_reuse([1, 2, 3, 4], [busy, idle], rules())
    assert reuse is not None
    assert (reuse.target, reuse.source, reuse.keep) == (idle, busy, 3)
    assert plan_reuse([1, 2], [busy], rules()) is None


def test_where_nothing_may_be_shared_an_idle_slot_is_used_in_place() -> None:
    """Recurrent models reuse only their own slot."""
    busy = Slot(0, tokens=[1, 2, 3], is_busy=True)
    idle = Slot(1, tokens=[7])
    reuse = plan_reuse([1, 2, 3, 4], [busy, idle], rules(shares=False))
    assert reuse is not None
    assert (reuse.target, reuse.keep) == (idle, 0)


def test_a_checkpoint_serves_where_the_window_has_moved_on() -> None:
    """Beyond the slack the furthest checkpoint within the common prefix is used."""
    strict = Rules(reach=0)
    strict.lengths[0] = 10
    slot = Slot(0, tokens=list(range(10)), checkpoints=[Checkpoint(3, b""), Checkpoint(6, b""), Checkpoint(9, b"")])
    reuse = plan_reuse([0, 1, 2, 3, 4, 5, 6, 7, 99], [slot], cast(KVCache, strict))
    assert reuse is not None
    assert reuse.checkpoint is not None
    assert (reuse.keep, reuse.checkpoint.num_tokens) == (6, 6)


def test_the_last_prompt_token_is_always_computed_again() -> None:
    """An identical prompt keeps all but one token: somebody must produce the logits."""
    slot = Slot(0, tokens=[1, 2, 3])
    reuse = plan_reuse([1, 2, 3], [slot], rules())
    assert reuse is not None
    assert reuse.keep == 2


def test_an_empty_slot_is_taken_before_anybodys_cells() -> None:
    """With nothing to reuse, the least valuable slot goes first."""
    used, empty = Slot(0, tokens=[5], last_used=1), Slot(1, last_used=9)
    reuse = plan_reuse([1, 2], [used, empty], rules())
    assert reuse is not None
    assert reuse.target is empty


def test_the_slot_given_up_keeps_the_beginning_it_has_in_common() -> None:
    """When the oldest conversation has to go and begins like the new one, nothing is copied."""
    newest, oldest = Slot(0, tokens=[1, 2, 8, 9, 9, 9], last_used=5), Slot(1, tokens=[1, 2, 7, 7, 7, 7], last_used=1)
    reuse = plan_reuse([1, 2, 3], [newest, oldest], rules())
    assert reuse is not None
    assert (reuse.target, reuse.source, reuse.keep, reuse.refuge) == (oldest, oldest, 2, None)


def test_running_sequences_sit_side_by_side_where_that_matters() -> None:
    """A new Sequence takes the seat beside those that run; what was there moves to the slot given up."""
    oldest, recent = Slot(0, tokens=[7], last_used=1), Slot(2, tokens=[8], last_used=9)
    busy = [Slot(3, is_busy=True), Slot(4, is_busy=True)]
    slots = [oldest, Slot(1, tokens=[6], last_used=3), recent, *busy]

    together = plan_reuse([5, 5], slots, rules(neighbours=True))
    anywhere = plan_reuse([5, 5], slots, rules())

    assert together is not None
    assert (together.target, together.refuge) == (recent, oldest)
    assert anywhere is not None
    assert (anywhere.target, anywhere.refuge) == (oldest, None)


def test_a_long_conversation_is_not_moved_for_a_seat() -> None:
    """Copying many tokens would cost more than computing side by side spares."""
    long = Slot(2, tokens=[8] * (MAX_MOVED_TOKENS + 1), last_used=9)
    oldest = Slot(0, tokens=[7], last_used=1)
    reuse = plan_reuse([5, 5], [oldest, long, Slot(3, is_busy=True)], rules(neighbours=True))
    assert reuse is not None
    assert (reuse.target, reuse.refuge) == (oldest, None)


slot_contents = st.lists(
    st.tuples(st.lists(st.integers(0, 2), max_size=6), st.booleans(), st.integers(0, 9)), min_size=1, max_size=6
)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=6), slot_contents, st.booleans())
def test_no_plan_touches_whom_it_must_not(
    tokens: list[int], contents: list[tuple[list[int], bool, int]], neighbours: bool
) -> None:
    """Targets and refuges are idle and apart, what is kept is a true common prefix, and only one slot is given up."""
    slots = [Slot(id, list(held), is_busy=busy, last_used=used) for id, (held, busy, used) in enumerate(contents)]
    reuse = plan_reuse(tokens, slots, rules(neighbours=neighbours))
    assert (reuse is None) == all(slot.is_busy for slot in slots)
    if reuse is None:
        return
    assert not reuse.target.is_busy
    assert reuse.refuge is None or (not reuse.refuge.is_busy and reuse.refuge not in (reuse.target, reuse.source))
    assert reuse.keep < len(tokens)
    if reuse.source is not None:
        assert reuse.source.tokens[: reuse.keep] == tokens[: reuse.keep]
