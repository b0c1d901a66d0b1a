"""What a verification found, for people and for programs."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from specialists.builder.perplexity import Interval
from specialists.builder.proof import Drift
from specialists.builder.report import Bar, Figure, Report
from specialists.builder.verify import DomainPerplexity, LogitsProof, Verification

_MOST_FINDINGS = 20


def as_data(found: Verification, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Plain JSON values; what is infinite becomes None."""
    proof = found.proof
    data = {
        "is_well": found.is_well,
        "inputs": dict(inputs),
        "structure": {"is_sound": found.structure.is_sound, **asdict(found.structure)},
        "proof": None if proof is None else {"holds": proof.holds, **asdict(proof)},
        "perplexities": [asdict(each) for each in found.perplexities],
    }
    plain: dict[str, Any] = _finite(data)
    return plain


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rows(found: Verification) -> Iterator[tuple[str, str]]:
    """What was asked and what came out, a line for each."""
    structure = found.structure
    equal = f"{structure.bytes_compared:,} equal to the parent's"
    yield "bytes", equal if structure.is_sound else "NOT as they should be"
    if structure.bytes_zeroed:
        yield "", f"{structure.bytes_zeroed:,} zero, where dropped experts were"
    for finding in structure.findings[:_MOST_FINDINGS]:
        yield finding.where, finding.what
    if len(structure.findings) > _MOST_FINDINGS:
        yield "…", f"{len(structure.findings) - _MOST_FINDINGS} more findings"
    if found.proof is None:
        yield "logits", "not computed, as the bytes are wrong already"
        return
    yield from _proof_rows(found.proof)
    for each in found.perplexities:
        yield f"perplexity, {each.domain}", _perplexities(each)


def _proof_rows(proof: LogitsProof) -> Iterator[tuple[str, str]]:
    how = "the parent with the dropped experts' outputs zeroed" if proof.mode == "zero" else "the masked parent"
    equal = "equal to" if proof.holds else "NOT equal to"
    yield "logits", f"{equal} those of {how}: {_drift(proof.aligned)} (at most {proof.tolerance:g} allowed)"
    if proof.mode == "zero":
        return
    gates = proof.gates
    yield (
        "gates",
        f"{gates.wrong:,} wrong choices, {gates.swapped:,} between equals; logits and weights differ by "
        f"{gates.logit_difference:.1%} and {gates.weight_difference:.1%} of what rounding may do",
    )
    yield "only masked", f"{_drift(proof.free)}; rounding in the gates' softmax is why"


def _drift(drift: Drift) -> str:
    return (
        f"largest difference {drift.max_difference:.3g}, {drift.exact_tokens:,} of {drift.tokens:,} tokens exact, "
        f"{drift.same_choice_tokens:,} with the same likeliest token"
    )


def _perplexities(each: DomainPerplexity) -> str:
    before, after = _interval(each.parent), _interval(each.specialist)
    return f"{before} → {after}, × {_interval(each.ratio)} over {each.ratio.over}"


def _interval(interval: Interval) -> str:
    return f"{interval.value:.4g} ({interval.low:.4g} to {interval.high:.4g})"


def build_report(found: Verification, inputs: Mapping[str, str], name: str) -> Report:
    verdict = "proven" if found.is_well else "NOT proven"
    report = Report(f"Verification: {name}", subtitle=f"{verdict} ({found.structure.mode})", inputs=inputs)
    report.add_table("Findings", ("", "found"), list(rows(found)))
    if found.perplexities:
        report.add_figures([figure for each in found.perplexities for figure in _figures(each)], "Perplexity")
        bars = [
            Bar(name=each.domain, value=each.ratio.value, low=each.ratio.low, high=each.ratio.high)
            for each in found.perplexities
        ]
        report.add_bars("Perplexity, specialist over parent", bars, "ratio", "Above 1 the specialist does worse.")
    return report


def _figures(each: DomainPerplexity) -> list[Figure]:
    named = {"parent": each.parent, "specialist": each.specialist, "specialist over parent": each.ratio}
    return [
        Figure(
            name=f"{each.domain}: {name}",
            value=interval.value,
            low=interval.low,
            high=interval.high,
            over=f"{interval.over}, {each.tokens:,} tokens",
        )
        for name, interval in named.items()
    ]
