"""What every answer tells beside OpenAI's own fields: the `coe` object, and the headers that say the same in short."""

from collections.abc import Mapping
from typing import Any

from gateway.answer import Answer

RUNGS = (None, "resample", "paragraph", "restart", "specialist", "end")  # from the easiest rescue to none


def ascii_line(text: str) -> str:
    """`text` as a header value: printable ASCII, everything else escaped."""
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode("ascii") for c in text)


def answer_headers(answer: Answer) -> Mapping[str, str]:
    """The extras a client may read; those not known (yet) are left out."""
    headers = {
        "x-coe-specialist": ascii_line(answer.manifest.tag),
        "x-coe-domain": ascii_line(answer.decision.domain),
        "x-coe-sampling": ascii_line(answer.plan.report.as_header()),
    }
    if answer.decision.decision_id is not None:
        headers["x-coe-decision"] = answer.decision.decision_id
    if answer.decision.is_fallback:
        headers["x-gateway-route"] = "fallback"
    if answer.decision.confidence is not None:
        headers["x-coe-confidence"] = f"{answer.decision.confidence:.3f}"
    if answer.times.swap_seconds is not None:
        headers["x-coe-swap-ms"] = f"{answer.times.swap_seconds * 1000:.0f}"
    return headers


def coe_object(answer: Answer) -> dict[str, Any]:
    """The same extras, and why, for the body."""
    return {
        "specialist": answer.manifest.tag,
        "domain": answer.decision.domain,
        "confidence": answer.decision.confidence,
        "reason": answer.decision.reason,
        "decision_id": answer.decision.decision_id,
        "sampling": answer.plan.report.as_object(),
        "loop": loop_object(answer),
        "calculator": calculator_object(answer),
        "knowledge": knowledge_object(answer),
        "waited_ms": _ms(answer.times.waited_seconds),
        "swap_ms": _ms(answer.times.swap_seconds),
        "engine_ms": _ms(answer.times.engine_seconds),
    }


def loop_object(answer: Answer) -> dict[str, Any] | None:
    """What the loop guard did, over all choices; None where it was off.

    `onset` and `rung` are of the choice that was hardest to rescue.
    """
    reports = list(answer.loops.values())
    if not reports:
        return None
    worst = max(reports, key=lambda report: (RUNGS.index(report.rung), report.hits))
    said: dict[str, Any] = {
        "guard": answer.plan.report.loop_guard.value,
        "hits": sum(report.hits for report in reports),
        "rewinds": sum(report.rewinds for report in reports),
        "rung": worst.rung,
        "onset": worst.onset,
        "tokens_discarded": sum(report.tokens_discarded for report in reports),
        "tokens_resampled": sum(report.tokens_resampled for report in reports),
    }
    if worst.handed_to is not None:
        said["handed_to"] = worst.handed_to
    redrawn = sum(report.first_token_redrawn for report in reports)
    return said | {"first_tokens_redrawn": redrawn} if redrawn else said


def calculator_object(answer: Answer) -> dict[str, Any] | None:
    """Whether the calculator was on and what it was asked, in order; None for a specialist without one."""
    if answer.plan.report.calculator is None:
        return None
    calls = [
        {
            "choice": index,
            "expression": each.expression,
            "result": each.result.text,
            "exact": each.result.is_exact,
        }
        for index, calculations in sorted(answer.calculations.items())
        for each in calculations
    ]
    return {"state": answer.plan.report.calculator, "calls": calls}


def knowledge_object(answer: Answer) -> dict[str, Any] | None:
    """What of the specialist's documents was in the prompt; None for a specialist without any."""
    found = answer.looked_up
    if answer.manifest.knowledge is None or found is None:
        return None if answer.manifest.knowledge is None else {"state": "off", "sources": []}
    sources = [
        {
            "source": hit.passage.source,
            "position": hit.passage.position,
            "score": round(hit.score, 3),
            "similarity": None if hit.similarity is None else round(hit.similarity, 3),
        }
        for hit in found.hits
    ]
    return {"state": "on", "sources": sources, "warning": found.warning, "ms": _ms(found.seconds)}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
