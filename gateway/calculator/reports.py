"""What the loop guard did in the parts of one answer, as one report."""

from collections.abc import Sequence

from specialists.engine.loop_rescue import Rung
from specialists.request import LoopReport

_RUNGS = (None, *Rung)


def merged(parts: Sequence[tuple[int, LoopReport]]) -> LoopReport | None:
    """Of each part: how many tokens were drawn before it, and its report. None where no guard watched."""
    if not parts:
        return None
    reports = [report for _, report in parts]
    onsets = [before + report.onset for before, report in parts if report.onset is not None]
    return LoopReport(
        hits=sum(report.hits for report in reports),
        rewinds=sum(report.rewinds for report in reports),
        rung=max((report.rung for report in reports), key=_RUNGS.index),
        onset=onsets[-1] if onsets else None,
        tokens_discarded=sum(report.tokens_discarded for report in reports),
        tokens_resampled=sum(report.tokens_resampled for report in reports),
        first_token_redrawn=any(report.first_token_redrawn for report in reports),
    )
