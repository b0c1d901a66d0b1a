"""Compares the same prompts' answers with the loop guard off and on; pure arithmetic and text."""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.loop_judge import judge

LEAST_REDUCTION_LOOPED = 0.90
LEAST_REDUCTION_WASTED = 0.95
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer and what the guard said of it. `completion_tokens` are those that remained."""

    prompt: str
    text: str
    finish_reason: str
    completion_tokens: int
    hits: int = 0
    rung: str | None = None
    tokens_discarded: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def is_looped(self) -> bool:
        return judge(self.text).is_looped

    @property
    def wasted_tokens(self) -> float:
        """Tokens of the answer that only repeat, by the judge's share of the text."""
        return judge(self.text).wasted_share * self.completion_tokens


@dataclass(frozen=True, slots=True)
class Reduction:
    """1 − on ÷ off, with its 95 % interval over the prompts."""

    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.share:.1f} % (95 % interval {100 * self.low:.1f} to {100 * self.high:.1f} %)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Answers, tokens and tokens/s, off and on. `computed` tokens also count those the guard threw away."""

    answers: int
    looped_off: int
    looped_on: int
    looped: Reduction
    wasted_off: int
    wasted_on: int
    wasted: Reduction
    discarded: int
    wasted_computed: Reduction
    hits: int
    ended: int
    untouched: int
    untouched_identical: int
    worse: int
    tokens_per_second_off: float
    tokens_per_second_on: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def meets_aims(self) -> bool:
        is_enough = self.looped.share >= LEAST_REDUCTION_LOOPED and self.wasted.share >= LEAST_REDUCTION_WASTED
        return is_enough and self.worse == 0 and self.untouched == self.untouched_identical


def compare(off: Sequence[Answer], on: Sequence[Answer], *, off_seconds: float, on_seconds: float) -> Comparison:
    """`off` and `on` hold the answers to the same prompts, in the same order."""
    pairs = list(zip(off, on, strict=True))
    untouched = [pair for pair in pairs if not pair[1].hits]
    discarded = sum(answer.tokens_discarded for answer in on)
    return Comparison(
        answers=len(pairs),
        looped_off=sum(answer.is_looped for answer in off),
        looped_on=sum(answer.is_looped for answer in on),
        looped=_reduction(pairs, lambda answer: float(answer.is_looped)),
        wasted_off=round(sum(answer.wasted_tokens for answer in off)),
        wasted_on=round(sum(answer.wasted_tokens for answer in on)),
        wasted=_reduction(pairs, lambda answer: answer.wasted_tokens),
        discarded=discarded,
        wasted_computed=_reduction(pairs, lambda answer: answer.wasted_tokens + answer.tokens_discarded),
        hits=sum(answer.hits for answer in on),
        ended=sum(answer.rung == "end" for answer in on),
        untouched=len(untouched),
        untouched_identical=sum(before.text == after.text for before, after in untouched),
        worse=sum(is_worse(before, after) for before, after in pairs),
        tokens_per_second_off=sum(answer.completion_tokens for answer in off) / off_seconds,
        tokens_per_second_on=(sum(answer.completion_tokens for answer in on) + discarded) / on_seconds,
    )


def is_worse(off: Answer, on: Answer) -> bool:
    """Whether the guard spoilt an answer: looped or empty where it was not."""
    return (on.is_looped and not off.is_looped) or (not on.text.strip() and bool(off.text.strip()))


def _reduction(pairs: Sequence[tuple[Answer, Answer]], cost: Callable[[Answer], float]) -> Reduction:
    """Percentile bootstrap over prompts, with a fixed seed so that the same answers give the same interval."""
    costs = [(cost(off), cost(on)) for off, on in pairs]
    rng = random.Random(0)
    drawn = sorted(_share(rng.choices(costs, k=len(costs))) for _ in range(_RESAMPLES))
    return Reduction(_share(costs), drawn[int(0.025 * _RESAMPLES)], drawn[int(0.975 * _RESAMPLES) - 1])


def _share(costs: Sequence[tuple[float, float]]) -> float:
    off, on = (sum(each) for each in zip(*costs, strict=True))
    return 1 - on / off if off else 0.0


def to_text(found: Comparison) -> str:
    return "\n".join(
        (
            f"answers                      {found.answers}",
            f"looped, guard off            {found.looped_off}",
            f"looped, guard on             {found.looped_on}; fewer by {found.looped}",
            f"tokens in loops, guard off   {found.wasted_off}",
            f"tokens in loops, guard on    {found.wasted_on}; fewer by {found.wasted}",
            f"  with {found.discarded} taken back unseen: fewer by {found.wasted_computed}",
            f"hits                         {found.hits}; answers ended early {found.ended}",
            f"answers without a hit        {found.untouched}, of them identical {found.untouched_identical}",
            f"answers made worse           {found.worse}",
            f"computed, guard off          {found.tokens_per_second_off:.1f} tokens/s",
            f"computed, guard on           {found.tokens_per_second_on:.1f} tokens/s",
        )
    )
