"""Near repetition: which parts of an answer were already said in it, word for word, and how often.

A shingle is `SHINGLE_TOKENS` tokens in a row. A token's depth is how many times the shingle that ends with it had
occurred before: 0 is new, 1 a second copy, 2 a third. Copies with small edits, at any distance and in any order, keep
most of their shingles, while text that has the same form but new content keeps few. Knows token ids only.
"""

from array import array
from dataclasses import dataclass

SHINGLE_TOKENS = 6
_TOKEN_BITS = 20  # vocabularies stay below 2**20
_KEY_MASK = (1 << (SHINGLE_TOKENS * _TOKEN_BITS)) - 1
_NONE = -1
_STEP = 16  # tokens by which the search for an onset goes back


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLimits:
    """When third copies become suspect: this many tokens in a row, or this share (0 to 1) of a window of tokens.

    They stay suspect while they make up `calm_share` of the newest `calm_window` tokens: an edit ends no loop.
    """

    streak: int
    window: int
    share: float
    calm_window: int
    calm_share: float


SUSPECT_COPIES = CopyLimits(streak=12, window=96, share=0.8, calm_window=24, calm_share=0.5)


class ShingleNovelty:
    """Depths of all tokens so far, with running sums, so that any window is judged by two look-ups."""

    def __init__(self, limits: CopyLimits, free_copies: int = 0) -> None:
        """`free_copies`: so many were asked for; only those beyond count, and from the third on."""
        self._limits = limits
        self._least_depth = max(2, free_copies)
        self._key = 1  # the mark before the first token keeps short shingles apart
        self._keys: list[int] = []
        self._latest: dict[int, int] = {}  # shingle → index of its newest end
        self._previous = array("i")  # index of the same shingle's end before this one
        self._depths = array("i")
        self._num_again = array("i", [0])  # second and later copies among the first i tokens
        self._num_copied = array("i", [0])  # … those that count
        self._streaks = array("i")
        self._suspect_since = array("i")

    def __len__(self) -> int:
        return len(self._keys)

    def push(self, token: int) -> None:
        """Take the next token."""
        key = self._key = (self._key << _TOKEN_BITS | token) & _KEY_MASK
        index = len(self._keys)
        previous = self._latest.get(key, _NONE)
        depth = self._depths[previous] + 1 if previous >= 0 else 0
        is_copy = depth >= self._least_depth
        self._latest[key] = index
        self._keys.append(key)
        self._previous.append(previous)
        self._depths.append(depth)
        self._num_again.append(self._num_again[index] + (depth > 0))
        self._num_copied.append(self._num_copied[index] + is_copy)
        self._streaks.append(self._streaks[index - 1] + 1 if is_copy and index else 0)
        self._suspect_since.append(self._since(index))

    @property
    def suspect_since(self) -> int:
        """Where the third copy that is now suspect began; negative when none is."""
        return self._suspect_since[-1] if self._suspect_since else _NONE

    @property
    def is_copy(self) -> bool:
        """Whether the newest token ends a shingle that counts as copied."""
        return bool(self._streaks and self._streaks[-1])

    def copied_share(self, window: int, end: int | None = None) -> float:
        """Share of copies that count among the `window` tokens before `end` (0 to 1); tokens not there yet are new.

        `end` None stands for the newest.
        """
        count = len(self._keys) if end is None else end
        return (self._num_copied[count] - self._num_copied[max(0, count - window)]) / window

    def again_share(self, start: int) -> float:
        """Share of second and later copies among the tokens from index `start` on (0 to 1)."""
        count = len(self._keys)
        return self._again(start, count) / max(1, count - start)

    def second_copy(self, third: int) -> int:
        """Where the second copy began, going back from `third`, the start of a later one, while half was repeated."""
        start = third
        while start >= 2 * _STEP and 2 * self._again(start - 2 * _STEP, start) >= 2 * _STEP:
            start -= _STEP
        while start < third and not self._depths[start]:
            start += 1
        while start > 0 and self._depths[start - 1]:
            start -= 1
        return max(0, start - SHINGLE_TOKENS + 1)

    def truncate(self, num_tokens: int) -> None:
        """Forget all but the first `num_tokens`."""
        for index in range(len(self._keys) - 1, num_tokens - 1, -1):
            previous = self._previous[index]
            if previous < 0:
                del self._latest[self._keys[index]]
            else:
                self._latest[self._keys[index]] = previous
        for one_each in (self._keys, self._previous, self._depths, self._streaks, self._suspect_since):
            del one_each[num_tokens:]
        del self._num_again[num_tokens + 1 :], self._num_copied[num_tokens + 1 :]
        self._key = self._keys[-1] if self._keys else 1

    def _again(self, start: int, end: int) -> int:
        return self._num_again[end] - self._num_again[start]

    def _since(self, index: int) -> int:
        limits, streak = self._limits, self._streaks[index]
        before = self._suspect_since[index - 1] if index else _NONE
        if before >= 0:
            return before if self.copied_share(limits.calm_window) >= limits.calm_share else _NONE
        if streak >= limits.streak:
            return max(0, index - streak + 2 - SHINGLE_TOKENS)
        if streak and self.copied_share(limits.window) >= limits.share:
            window = range(index - limits.window + 1, index + 1)
            return max(0, next(i for i in window if self._streaks[i]) + 1 - SHINGLE_TOKENS)
        return _NONE
