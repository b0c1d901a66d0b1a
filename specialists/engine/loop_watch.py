"""One answer under the loop guard: what was seen, what was done about it, and what must not be shown yet.

Holds the state with which the detector (`loop_guard`) and the ladder (`loop_rescue`) are asked. It holds text back
and decides on the next step; taking tokens back is for `rewind`.
"""

from dataclasses import dataclass, field

from specialists.engine.loop_guard import LoopGuard, Suspicion
from specialists.engine.loop_rescue import NOT_CLIMBED, Climbed, Hit, Rung, Step, climb
from specialists.engine.text import TextStream
from specialists.request import LoopGuardMode, LoopGuardParams, LoopReport

PROBATION_TOKENS = 24  # after a rewind, so many tokens must go well before they are shown


@dataclass(slots=True)
class LoopWatch:
    """Tokens are counted in the answer, from 0.

    `is_whole`: nothing is shown before the answer is complete. `num_shown` tokens can no longer be taken back. Tokens
    that are `banned` are not drawn next. `calm_from` is the length at which sampling is as usual again, None while
    it is. `may_redraw_first`: an answer that is empty is begun once more.
    """

    guard: LoopGuard
    params: LoopGuardParams
    is_whole: bool = False
    may_redraw_first: bool = False
    num_shown: int = 0
    banned: frozenset[int] = frozenset()
    calm_from: int | None = None
    first_token_redrawn: bool = False
    _is_alarmed: bool = False
    _is_looping: bool = False
    _probation_until: int = 0
    _climbed: Climbed = NOT_CLIMBED
    _hits: int = 0
    _onset: int | None = None
    _highest: Rung | None = None
    _num_discarded: int = 0
    _place: int = -1
    _banned_there: frozenset[int] = frozenset()
    _resampled: list[tuple[int, int]] = field(default_factory=list)  # spans of the answer

    @property
    def num_rewinds(self) -> int:
        return self._climbed.rewinds

    @property
    def is_rescuing(self) -> bool:
        """Whether the next token is not drawn as the request says."""
        return self.calm_from is not None

    def sees_loop(self, token: int, text: str, stream: TextStream) -> Hit | None:
        """Take the answer's next token before its `text` is added to `stream`; a Hit if something should be done."""
        verdict = self.guard.push(token, text)
        if verdict.suspicion is Suspicion.NONE:
            self._is_looping = False
            if self._is_alarmed and self.guard.num_tokens > self._probation_until:
                self._calm_down(stream)
            return None
        was_looping, self._is_looping = self._is_looping, verdict.suspicion is Suspicion.LOOP
        if self._is_looping and not was_looping:
            self._hits += 1
            self._onset = verdict.onset
        if self.params.mode is LoopGuardMode.RESCUE:
            self._alarm(stream)
            if self._is_looping and verdict.onset is not None:
                onset = min(verdict.onset, self.guard.num_tokens - 1)
                return Hit(onset, self.guard.paragraph_start(onset), self.num_shown)
        return None

    def _alarm(self, stream: TextStream) -> None:
        self._is_alarmed = True
        if not stream.is_holding:
            self.num_shown = self.guard.num_tokens - 1
            stream.hold()

    def _calm_down(self, stream: TextStream) -> None:
        self._is_alarmed = False
        if not self.is_whole:
            stream.release()

    def next_step(self, hit: Hit) -> Step:
        """How to get out of a loop; each call climbs further up the ladder."""
        step, self._climbed = climb(self._climbed, hit, self.params)
        return step

    def step_back(self, step: Step, token_there: int) -> None:
        """Account for a step; `token_there` is the first that is taken back."""
        self._num_discarded += self.guard.num_tokens - step.keep
        self.guard.truncate(step.keep)
        self._is_looping = False
        self._highest = max(step.rung, self._highest or step.rung, key=list(Rung).index)
        self._resampled = [(start, min(end, step.keep)) for start, end in self._resampled if start < step.keep]
        if step.rung is not Rung.END:
            self.calm_from = step.keep + step.rescue_tokens
            self._probation_until = step.keep + PROBATION_TOKENS
            self._resampled.append((step.keep, self.calm_from))
        is_same_place = step.keep == self._place
        self._banned_there = (self._banned_there if is_same_place else frozenset()) | {token_there}
        self.banned = self._banned_there if step.rung is Rung.RESAMPLE else frozenset()
        self._place = step.keep

    def report(self, num_tokens: int) -> LoopReport:
        """For an answer that ends with `num_tokens`."""
        resampled = sum(min(end, num_tokens) - start for start, end in self._resampled if start < num_tokens)
        return LoopReport(
            hits=self._hits,
            rewinds=self.num_rewinds,
            rung=self._highest,
            onset=self._onset,
            tokens_discarded=self._num_discarded,
            tokens_resampled=resampled,
            first_token_redrawn=self.first_token_redrawn,
        )
