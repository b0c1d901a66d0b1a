"""What the loop guard says after a token, and which of several findings counts."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

_LEAST_EXACT_PERIOD = 6  # tokens; shorter runs are part of what has edits


class Suspicion(Enum):
    """NONE: show everything. SUSPECT: hold back from `hold_from` on. LOOP: act."""

    NONE = "none"
    SUSPECT = "suspect"
    LOOP = "loop"


class LoopKind(Enum):
    """PERIODIC: the same tokens over and over. PARAPHRASE: nearly the same. BLOCK: a whole fence or paragraph again."""

    PERIODIC = "periodic"
    PARAPHRASE = "paraphrase"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the guard thinks after a token. All indices count the answer's tokens from 0.

    `onset` is the first token of the second copy: cutting there leaves one copy. `hold_from` is the first token that
    must not be shown while the verdict stands: that of the third copy, so that a client sees two at most and normal
    text waits as little as possible; onset <= hold_from < the number of tokens. What has been shown cannot be taken
    back: a rewind cuts at `onset` where nothing from there on was shown, and otherwise at `hold_from` or, should that
    have been shown too, behind the last token shown. As soon as a later verdict is NONE, everything may leave.
    `period` is the unit's length in tokens, None where copies differ.

    Where a prompt asked for N copies, `onset` and `hold_from` begin the first one beyond those.
    """

    suspicion: Suspicion
    onset: int | None = None
    kind: LoopKind | None = None
    period: int | None = None
    hold_from: int | None = None


NO_SUSPICION = Verdict(Suspicion.NONE)


def gravest(verdicts: Iterable[Verdict]) -> Verdict:
    """The first LOOP (nothing after it is asked for), else the SUSPECT that holds back most.

    Where copies with edits are a loop and a sentence or more runs exactly, the run knows best where it began.
    """
    suspects: list[Verdict] = []
    for verdict in verdicts:
        if verdict.suspicion is Suspicion.LOOP:
            exact = (run for run in suspects if (run.period or 0) >= _LEAST_EXACT_PERIOD)
            run = next(exact, verdict) if verdict.kind is LoopKind.PARAPHRASE else verdict
            return replace(run, suspicion=Suspicion.LOOP)
        if verdict.suspicion is Suspicion.SUSPECT:
            suspects.append(verdict)
    return min(suspects, key=lambda verdict: verdict.hold_from or 0, default=NO_SUSPICION)
