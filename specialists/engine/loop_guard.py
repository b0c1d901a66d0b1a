"""The loop guard: notices, token by token, that an answer has begun to repeat itself.

It watches one answer and gives a Verdict after each token. It decides nothing about what happens then (holding back,
rewinding, resampling, ending), knows neither the cache nor the sampler, and of the prompt only how many repetitions
it asked for (`loop_request`).

The witnesses: exact runs of the tokens and of the content tokens (`loop_periods`), copies with edits or at any
distance (`loop_novelty`) and the sentences in them (`loop_sentences`), a few words in any order, and whole fences and
paragraphs that come again (`loop_blocks`). How much is too much
depends on the form of what is repeated (`syntactic_context`, `loop_settings`).
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from specialists.engine.loop_blocks import BlockLog
from specialists.engine.loop_layout import Block, Layout
from specialists.engine.loop_novelty import ShingleNovelty
from specialists.engine.loop_periods import PeriodicRuns
from specialists.engine.loop_sentences import repeated_share
from specialists.engine.loop_settings import GuardSettings, NearLimit, RunLimit, SpokenLimit
from specialists.engine.loop_verdict import NO_SUSPICION, LoopKind, Suspicion, Verdict, gravest
from specialists.engine.syntactic_context import STRUCTURED, Context, context_of, has_words

__all__ = ["NO_SUSPICION", "GuardSettings", "LoopGuard", "LoopKind", "Suspicion", "Verdict"]

_JUDGE_EVERY = 8  # content tokens between two looks at a window's form
_COUNT_EVERY = 32  # … and between two counts of how many tokens are different
_SPOKEN = frozenset({Context.PROSE, Context.LIST})
_SURROUNDINGS = 16  # tokens that tell a short unit's form …
_SURROUNDINGS_OF_COPIES = 96  # … and those that tell the form of copies with edits


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
        self._narrow_end = -1  # how many content tokens there were when the newest were found to be but a few words
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
        is_calm = self._novelty.suspect_since < 0 and self._narrow_end < 0
        if is_calm and block is None and not is_third_copy and not self._content.is_third_copy:
            return NO_SUSPICION
        return gravest(self._witnesses(block))

    def truncate(self, num_tokens: int) -> None:
        """Forget all but the first `num_tokens`: exactly the state as if no more had been pushed."""
        del self._tokens[num_tokens:], self._texts[num_tokens:]
        settled = self._layout.truncate(num_tokens, self._texts)
        self._exact.truncate(self._tokens)
        self._content.truncate([self._tokens[place] for place in self._layout.content[:settled]])
        self._novelty.truncate(settled)
        self._forget_judgements()
        self._narrow_end = self._narrow(settled - settled % _COUNT_EVERY)
        self._push_content()
        self._blocks.truncate(num_tokens)

    def paragraph_start(self, before: int) -> int:
        """Index of the answer token with which the paragraph that holds token `before` starts."""
        return self._layout.paragraph_start(before)

    def _push_content(self) -> None:
        content = self._layout.content
        for count in range(len(self._novelty), len(content)):
            token = self._tokens[content[count]]
            self._content.push(token)
            self._novelty.push(token)
            if not (count + 1) % _COUNT_EVERY:
                self._narrow_end = self._narrow(count + 1)

    def _witnesses(self, block: Block | None) -> Iterator[Verdict]:
        yield self._judge_block(block)
        yield self._judge_run(self._exact, range(len(self._tokens)))
        yield self._judge_run(self._content, self._layout.content)
        yield self._judge_copies()
        yield self._judge_narrow()

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
        is_loop = self._is_near_loop()
        is_new = not is_loop and not self._novelty.is_copy
        if is_new and self._form(self._last_look, _SURROUNDINGS_OF_COPIES) in STRUCTURED:
            return NO_SUSPICION  # rows and objects with something new in each: what is held back leaves with it
        content = self._layout.content
        return Verdict(
            Suspicion.LOOP if is_loop else Suspicion.SUSPECT,
            onset=content[self._second_copies[third]],
            kind=LoopKind.PARAPHRASE,
            hold_from=content[third],
        )

    def _is_near_loop(self) -> bool:
        form = self._copied_form(self._settings.near)
        if form is not None and self._copied_form(self._settings.near_limit(form)) is not None:
            return True
        return self._is_said_again(self._settings.spoken)

    def _is_said_again(self, limit: SpokenLimit) -> bool:
        """Whether the window up to the last look is prose or a list, and copies of sentences that were said before."""
        end = self._last_look
        if end not in self._said_again:
            self._said_again[end] = (
                self._novelty.copied_share(limit.window, end) >= limit.share
                and self._form(end, limit.surroundings) in _SPOKEN
                and self._sentences_again(end, limit) >= limit.sentences
            )
        return self._said_again[end]

    @property
    def _last_look(self) -> int:
        """How many content tokens there were when windows were looked at last."""
        return len(self._novelty) - len(self._novelty) % _JUDGE_EVERY

    def _sentences_again(self, end: int, limit: SpokenLimit) -> float:
        content = self._layout.content
        first, start, after = (
            content[max(0, end - limit.within)],
            content[max(0, end - limit.window)],
            content[end - 1] + 1,
        )
        return repeated_share("".join(self._texts[first:after]), sum(map(len, self._texts[start:after])))

    def _copied_form(self, limit: NearLimit) -> Context | None:
        """The form of the newest window of content tokens, None unless it is copies and has words."""
        end = self._last_look
        return self._form(end, limit.window) if self._novelty.copied_share(limit.window, end) >= limit.share else None

    def _form(self, end: int, window: int) -> Context | None:
        """The form of the content tokens before `end`, None if they have no words."""
        start = max(0, end - window)
        if (start, end) not in self._window_forms:
            content = self._layout.content
            text = "".join(self._texts[content[start] : content[end - 1] + 1])
            self._window_forms[start, end] = self._context(text, content[start]) if has_words(text) else None
        return self._window_forms[start, end]

    def _narrow(self, end: int) -> int:
        """`end` if the content tokens before it say but a few words in any order, otherwise negative."""
        limit, content = self._settings.narrow, self._layout.content
        if end < limit.window or self._free_copies:
            return -1
        newest = {self._tokens[place] for place in content[end - limit.window : end]}
        is_narrow = len(newest) <= limit.kinds and self._form(end, limit.window) in _SPOKEN
        return end if is_narrow else -1

    def _judge_narrow(self) -> Verdict:
        """Nothing raises suspicion before: what was shown stays, and a rewind goes back to the last token shown."""
        if self._narrow_end < 0:
            return NO_SUSPICION
        start = max(1, self._layout.content[self._narrow_end - self._settings.narrow.window])
        return Verdict(Suspicion.LOOP, onset=start, kind=LoopKind.PARAPHRASE, hold_from=start)

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
        self._said_again: dict[int, bool] = {}
