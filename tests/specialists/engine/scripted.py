"""A guard and a sampler that follow a script, so that a rewind can be had at a chosen token of a real answer."""

from collections.abc import Sequence

from specialists.engine.llama import Context, SamplerChain
from specialists.engine.loop_guard import LoopGuard, Suspicion, Verdict


class ScriptedGuard(LoopGuard):
    """Suspects and finds loops where it is told to: `script` maps a number of tokens to a verdict, used once each."""

    def __init__(self, script: dict[int, Verdict], paragraph: int = 0) -> None:
        self.script = dict(script)
        self.paragraph = paragraph
        self.seen: list[tuple[int, str]] = []

    @property
    def num_tokens(self) -> int:
        return len(self.seen)

    def push(self, token: int, text: str) -> Verdict:
        self.seen.append((token, text))
        return self.script.pop(len(self.seen), Verdict(Suspicion.NONE))

    def truncate(self, num_tokens: int) -> None:
        del self.seen[num_tokens:]

    def paragraph_start(self, before: int) -> int:
        return min(self.paragraph, before)


class ScriptedSampler(SamplerChain):
    """Draws the tokens it was given, whatever the logits say."""

    def __init__(self, tokens: Sequence[int]) -> None:
        super().__init__()
        self._tokens = list(tokens)

    def sample(self, context: Context, index: int) -> int:
        return self._tokens.pop(0)


def loop_at(length: int, *, onset: int, held_from: int | None = None) -> dict[int, Verdict]:
    """Suspicion from token `held_from` (default: `onset`) on, and a loop when the answer has `length` tokens."""
    start = onset if held_from is None else held_from
    held = {count: Verdict(Suspicion.SUSPECT) for count in range(start + 1, length)}
    return held | {length: Verdict(Suspicion.LOOP, onset=onset, hold_from=start)}
