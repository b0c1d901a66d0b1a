"""Two models on the same questions: where they agree, and whether the difference between them means anything.

Published tables print two accuracies; whether the second model is worse lies in the questions that only one of them
got right, and few of those prove little. How answers are judged right is not known here.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from specialists.builder.errors import BuilderError
from specialists.builder.significance import LEVEL, Interval, mcnemar, student_quantile, wilson


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Counts of questions; `only_first` means that the first model was right and the second wrong."""

    both_right: int
    both_wrong: int
    only_first: int
    only_second: int

    def __post_init__(self) -> None:
        if min(self.both_right, self.both_wrong, self.only_first, self.only_second) < 0 or not self.num:
            raise BuilderError("agreement: counts must not be negative, and there must be questions.")

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> Self:
        """From verdicts on the same questions in the same order. Raises BuilderError when there are not as many."""
        if len(first) != len(second):
            raise BuilderError(
                f"agreement: {len(first)} and {len(second)} verdicts; both models need the same questions."
            )
        cells = Counter(zip(map(bool, first), map(bool, second), strict=True))
        return cls(
            both_right=cells[True, True],
            both_wrong=cells[False, False],
            only_first=cells[True, False],
            only_second=cells[False, True],
        )

    @property
    def num(self) -> int:
        return self.both_right + self.both_wrong + self.only_first + self.only_second

    @property
    def first_right(self) -> int:
        return self.both_right + self.only_first

    @property
    def second_right(self) -> int:
        return self.both_right + self.only_second

    @property
    def first_interval(self) -> Interval:
        return wilson(self.first_right, self.num)

    @property
    def second_interval(self) -> Interval:
        return wilson(self.second_right, self.num)

    @property
    def difference(self) -> float:
        """Second less first, as a share of the questions."""
        return (self.only_second - self.only_first) / self.num

    @property
    def difference_interval(self) -> Interval:
        """95 %, from the paired variance with Student's t."""
        discordant = (self.only_first + self.only_second) / self.num
        sigma = ((discordant - self.difference**2) / max(1, self.num - 1)) ** 0.5
        half = student_quantile(LEVEL, max(1, self.num - 1)) * sigma
        return Interval(self.difference - half, self.difference + half)

    @property
    def p(self) -> float:
        """Exact McNemar test of no difference, two-sided."""
        return mcnemar(self.only_first, self.only_second)
