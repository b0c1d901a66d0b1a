"""Scheduling: generation first, prompts within their budget, nothing lost."""

from dataclasses import dataclass, field
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from specialists.engine.batch_scheduler import SCORED_TOKENS, PrefillBudget, schedule
from specialists.engine.chat_template import TokenizedPrompt
from specialists.engine.sequence import Sequence


@dataclass(eq=False)
class Pending:
    """Only what the scheduler looks at."""

    num_pending: int
    is_prefilling: bool
    arrived: float
    is_paused: bool = False
    scores_prompt: bool = False
    num_computed: int = 0
    prompt: TokenizedPrompt = field(default_factory=lambda: TokenizedPrompt(()))


def pending(**fields: object) -> Sequence:
    return cast(Sequence, Pending(**fields))  # type: ignore[arg-type]


running = st.lists(
    st.tuples(st.integers(1, 900), st.booleans(), st.booleans()).map(
        lambda drawn: pending(
            num_pending=drawn[0] if drawn[1] else 1, is_prefilling=drawn[1], arrived=float(drawn[0]), is_paused=drawn[2]
        )
    ),
    max_size=12,
)


def slow_budget() -> PrefillBudget:
    """A budget that has seen 500 prompt tokens per second: 50 tokens in 0.1 s."""
    budget = PrefillBudget(batch_tokens=256)
    budget.observe(500, 1.0)
    return budget


@given(running)
def test_generation_always_advances_and_prompts_stay_in_budget(sequences: list[Sequence]) -> None:
    """Every generating Sequence is in the batch; prompts get at most the budget; the batch never overflows."""
    chunks = schedule(sequences, batch_tokens=256, budget=slow_budget(), stop_at_boundaries=False)
    chosen = {chunk.sequence for chunk in chunks}
    generating = [sequence for sequence in sequences if not sequence.is_prefilling and not sequence.is_paused]
    assert chosen.issuperset(generating)
    assert not any(sequence.is_paused for sequence in chosen)
    assert sum(chunk.num_tokens for chunk in chunks) <= 256
    prefill = sum(chunk.num_tokens for chunk in chunks if chunk.sequence.is_prefilling)
    assert prefill <= (50 if generating else 256)


@given(running)
def test_somebody_always_advances(sequences: list[Sequence]) -> None:
    """As long as anyone is ready, the step is not empty."""
    ready = [sequence for sequence in sequences if not sequence.is_paused]
    chunks = schedule(sequences, batch_tokens=256, budget=slow_budget(), stop_at_boundaries=False)
    assert bool(chunks) == bool(ready)


def test_prompts_are_served_in_order_of_arrival() -> None:
    """The oldest prompt takes the budget first."""
    young = pending(num_pending=300, is_prefilling=True, arrived=2.0)
    old = pending(num_pending=200, is_prefilling=True, arrived=1.0)
    chunks = schedule([young, old], batch_tokens=256, budget=slow_budget(), stop_at_boundaries=False)
    assert [(chunk.sequence, chunk.num_tokens) for chunk in chunks] == [(old, 200), (young, 56)]


def test_a_chunk_ends_where_a_checkpoint_is_due() -> None:
    """With boundaries in force no chunk crosses one."""
    prompt = TokenizedPrompt(tuple(range(200)), boundaries=(40, 150))
    sequence = pending(num_pending=160, is_prefilling=True, arrived=0.0, num_computed=40, prompt=prompt)
    [chunk] = schedule([sequence], batch_tokens=256, budget=slow_budget(), stop_at_boundaries=True)
    assert chunk.num_tokens == 110


def test_the_budget_follows_the_measured_speed() -> None:
    """A machine that turns out slower gets smaller prompt chunks, never below the least."""
    budget = PrefillBudget(batch_tokens=512)
    assert budget.tokens(somebody_generates=True) == 512
    for _ in range(50):
        budget.observe(100, 1.0)
    assert budget.tokens(somebody_generates=True) == 32
    assert budget.tokens(somebody_generates=False) == 512


@given(st.lists(st.tuples(st.integers(1, 900), st.booleans()), max_size=12))
def test_no_more_prompt_tokens_are_scored_than_have_a_row(prompts: list[tuple[int, bool]]) -> None:
    """Scored prompts share `SCORED_TOKENS` rows of logits in a step, and somebody always advances."""
    sequences = [
        pending(num_pending=count, is_prefilling=True, arrived=float(number), scores_prompt=scores)
        for number, (count, scores) in enumerate(prompts)
    ]
    chunks = schedule(sequences, batch_tokens=256, budget=slow_budget(), stop_at_boundaries=False)
    scored = [chunk.num_tokens for chunk in chunks if chunk.sequence.scores_prompt]

    assert sum(scored) <= SCORED_TOKENS
    assert all(chunk.num_tokens > 0 for chunk in chunks)
    assert bool(chunks) is bool(prompts)
