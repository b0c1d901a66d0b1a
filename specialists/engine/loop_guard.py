"""The loop guard: notices, token by token, that an answer has begun to repeat itself.

It watches one answer and gives a Verdict after each token. It decides nothing about what happens then (holding back,
rewinding, resampling, ending), knows neither the cache nor the sampler, and of the prompt only how many repetitions
it asked for (`loop_request`).

Four witnesses: exact runs of the tokens and of the content tokens (`loop_periods`), copies with edits or at any
distance (`loop_novelty`), and whole fences and paragraphs that come again (`loop_blocks`). How much is too much
depends on the form of what is repeated (`syntactic_context`, `loop_settings`).
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from specialists.engine.loop_blocks import BlockLog
from specialists.engine.loop_layout import Block, Layout
from specialists.engine.loop_novelty import ShingleNovelty
from specialists.engine.loop_periods import PeriodicRuns
from specialists.engine.loop_settings import GuardSettings, NearLimit, RunLimit
from specialists.engine.loop_verdict import NO_SUSPICION, LoopKind, Suspicion, Verdict, gravest
from specialists.engine.syntactic_context import STRUCTURED, Context, context_of, has_words

__all__ = ["NO_SUSPICION", "GuardSettings", "LoopGuard", "LoopKind", "Suspicion", "Verdict"]

_JUDGE_EVERY = 16  # content tokens between two looks at a window's form
_SURROUNDINGS = 16  # tokens that tell a short unit's form


class LoopGuard:
    """Watches one answer. `push` costs a few microseconds whatever the answer's length."""

    def __init__(
        self,
        settings: GuardSettings | None = None,
        *,
        is_constrained: bool = False,
        requested_repeats: int | None = None,
    ) -> None:
        """`is_constrained`: a JSON schema shapes the answer. `requested_repeats`: see `loop_request`."""
        self._settings = settings or GuardSettings()
        self._is_constrained = is_constrained
        self._free_copies = int((requested_repeats or 0) * self._settings.request_slack)
        self._tokens: list[int] = []
        self._texts: list[str] = []
        self._layout = Layout(is_constrained=is_constrained)
        self._exact = PeriodicRuns(self._settings.longest_period)
        self._content = PeriodicRuns(self._settings.longest_period)
        self._novelty = ShingleNovelty(self._settings.suspect, self._free_copies)
        self._blocks = BlockLog()
        self._forget_judgements()

    @property
    def num_tokens(self) -> int:
        """Answer tokens pushed and not truncated away."""
        return len(self._tokens)

    def push(self, token: int, text: str) -> Verdict:
        """The answer's next token, and the text it contributed ("" while a code point is incomplete)."""
        self._tokens.append(token)
        self._texts.append(text)
        block = self._layout.push(text)
        is_third_copy = self._exact.push(token)
        self._push_content()
        if block is None and not is_third_copy and not self._content.is_third_copy and self._novelty.suspect_since < 0:
            return NO_SUSPICION
        return gravest(self._witnesses(block))

    def truncate(self, num_tokens: int) -> None:
        """Forget all but the first `num_tokens`: exactly the state as if no more had been pushed."""
        del self._tokens[num_tokens:], self._texts[num_tokens:]
        settled = self._layout.truncate(num_tokens, self._texts)
        self._exact.truncate(self._tokens)
        self._content.truncate([self._tokens[place] for place in self._layout.content[:settled]])
        self._novelty.truncate(settled)
        self._push_content()
        self._blocks.truncate(num_tokens)
        self._forget_judgements()

    def paragraph_start(self, before: int) -> int:
        """Index of the answer token with which the paragraph that holds token `before` starts."""
        return self._layout.paragraph_start(before)

    def _push_content(self) -> None:
        content = self._layout.content
        for count in range(len(self._novelty), len(content)):
            token = self._tokens[content[count]]
            self._content.push(token)
            self._novelty.push(token)

    def _witnesses(self, block: Block | None) -> Iterator[Verdict]:
        yield self._judge_block(block)
        yield self._judge_run(self._exact, range(len(self._tokens)))
        yield self._judge_run(self._content, self._layout.content)
        yield self._judge_copies()

    def _judge_run(self, runs: PeriodicRuns, places: Sequence[int]) -> Verdict:
        """`places`: the answer's token of each token that `runs` has seen."""
        run, free = runs.run, self._free_copies
        held = run.start + (max(2, free) - 1) * run.period
        if not runs.is_third_copy or held >= runs.num_tokens:
            return NO_SUSPICION
        first, second = places[run.start - run.period], places[run.start]
        is_loop = run.length >= self._settings.prose.tokens and self._run_limit(first, second).is_reached(
            length=run.length, period=run.period, free_copies=free
        )
        return Verdict(
            Suspicion.LOOP if is_loop else Suspicion.SUSPECT,
            onset=places[run.start + (max(1, free) - 1) * run.period],
            kind=LoopKind.PERIODIC,
            period=second - first,
            hold_from=places[held],
        )

    def _run_limit(self, first: int, second: int) -> RunLimit:
        """The limit for a unit whose first two copies begin at these tokens, by the form of both."""
        if (first, second) not in self._run_limits:
            text = "".join(self._texts[first : second + max(second - first, _SURROUNDINGS)])
            self._run_limits[first, second] = self._settings.run_limit(text, self._context(text, first))
        return self._run_limits[first, second]

    def _judge_copies(self) -> Verdict:
        third = self._novelty.suspect_since
        if third < 0:
            return NO_SUSPICION
        if third not in self._second_copies:
            self._second_copies[third] = self._novelty.second_copy(third)
        content = self._layout.content
        return Verdict(
            Suspicion.LOOP if self._is_near_loop() else Suspicion.SUSPECT,
            onset=content[self._second_copies[third]],
            kind=LoopKind.PARAPHRASE,
            hold_from=content[third],
        )

    def _is_near_loop(self) -> bool:
        form = self._copied_form(self._settings.near)
        if form is Context.VERSE or form in STRUCTURED:  # refrains, rows and calls come again with little new
            form = self._copied_form(self._settings.patterned_near)
        return form is not None

    def _copied_form(self, limit: NearLimit) -> Context | None:
        """The form of the newest window of content tokens, None unless it is copies and has words."""
        if self._novelty.copied_share(limit.window) < limit.share:
            return None
        end = len(self._novelty) - len(self._novelty) % _JUDGE_EVERY
        start = max(0, end - limit.window)
        if (start, end) not in self._window_forms:
            content = self._layout.content
            text = "".join(self._texts[content[start] : content[end - 1] + 1])
            self._window_forms[start, end] = self._context(text, content[start]) if has_words(text) else None
        return self._window_forms[start, end]

    def _judge_block(self, block: Block | None) -> Verdict:
        if block is None:
            return NO_SUSPICION
        text = "".join(self._texts[block.start : block.end]).strip()
        limit = self._settings.fence if block.is_fence else self._settings.paragraph
        if len(text) < limit.chars:
            return NO_SUSPICION
        starts = self._blocks.add(text, is_fence=block.is_fence, start=block.start, completed_by=len(self._tokens) - 1)
        kept = max(1, self._free_copies)
        if len(starts) <= max(2, kept) or not self._is_said(block, text):
            return NO_SUSPICION
        since_second = bisect_left(self._layout.content, starts[1])
        if not limit.is_reached(copies=len(starts), share=self._novelty.again_share(since_second)):
            return NO_SUSPICION
        return Verdict(Suspicion.LOOP, onset=starts[kept], kind=LoopKind.BLOCK, hold_from=starts[max(2, kept)])

    def _is_said(self, block: Block, text: str) -> bool:
        """A fence counts as it is, a paragraph as language: code is full of twins, and songs have refrains."""
        if block.is_fence:
            return True
        context = self._context(text, block.start)
        return has_words(text) and context is not Context.VERSE and context not in STRUCTURED

    def _context(self, text: str, start: int) -> Context:
        return Context.JSON if self._is_constrained else context_of(text, is_fenced=self._layout.is_fenced(start))

    def _forget_judgements(self) -> None:
        self._run_limits: dict[tuple[int, int], RunLimit] = {}
        self._second_copies: dict[int, int] = {}
        self._window_forms: dict[tuple[int, int], Context | None] = {}
