"""What a profile says in a page: how much text, how evenly the experts share it, and whether more would change it."""

from dataclasses import dataclass

from specialists.builder.histogram import DomainProfile, Profile
from specialists.builder.report import Figure, Report, Series
from specialists.builder.stability import StabilityPoint, StabilityRule, has_settled, measure


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSummary:
    """One domain at the end of a run. `settled` is None unless the run was to go on until the profile is stable."""

    domain: str
    tokens: int
    records: int
    skipped: int  # conversations that the chat template refused
    state: StabilityPoint
    settled: bool | None


def summarise(profile: Profile, rule: StabilityRule, *, until_stable: bool) -> list[DomainSummary]:
    """One summary for each domain. Raises ProfileError when a domain has too few records for its replicates."""
    return [
        DomainSummary(
            domain=name,
            tokens=int(domain.num_tokens.max()),
            records=domain.num_records,
            skipped=domain.num_skipped,
            state=measure(domain, rule, domain.curve[-1] if domain.curve else None),
            settled=has_settled(domain.curve, rule) if until_stable else None,
        )
        for name, domain in profile.domains.items()
    ]


def build_report(profile: Profile, summaries: list[DomainSummary], rule: StabilityRule, parent_name: str) -> Report:
    corpora = {f"corpus {name}": domain.corpus for name, domain in profile.domains.items()}
    report = Report(
        f"Profile: {', '.join(profile.domains)}",
        subtitle=f"{parent_name}: {profile.shape.layers} MoE layers of {profile.num_experts} experts, "
        f"{profile.shape.ranks} of them for each token",
        inputs={"parent": profile.parent, **corpora},
    )
    report.add_figures([figure for each in summaries for figure in _figures(each, rule, profile.shape.replicates)])
    if any(domain.curve for domain in profile.domains.values()):
        _add_curves(report, profile, rule)
    for name, domain in profile.domains.items():
        _add_heatmap(report, profile, name, domain)
    return report


def _figures(summary: DomainSummary, rule: StabilityRule, num_replicates: int) -> list[Figure]:
    state = summary.state
    over = f"{num_replicates} resamples of {summary.records:,} records, {summary.tokens:,} tokens"
    return [
        Figure(
            name=f"{summary.domain}: entropy of the experts' shares, mean over layers",
            value=state.entropy,
            low=state.entropy_low,
            high=state.entropy_high,
            unit="nats",
            over=over,
        ),
        Figure(
            name=f"{summary.domain}: Jaccard index of two resamples' masks of {rule.keep} experts",
            value=state.jaccard,
            low=state.jaccard_low,
            high=state.jaccard_high,
            over=f"all pairs of {over}",
        ),
    ]


def _add_curves(report: Report, profile: Profile, rule: StabilityRule) -> None:
    def series(name: str) -> list[Series]:
        return [
            Series(
                name=domain,
                xs=[point["tokens"] for point in each.curve],
                ys=[point[name] for point in each.curve],
                lows=[point[f"{name}_low"] for point in each.curve],
                highs=[point[f"{name}_high"] for point in each.curve],
            )
            for domain, each in profile.domains.items()
            if each.curve
        ]

    note = f"Stops once it is at least {rule.jaccard:g} in two increments running and the entropy has settled too."
    report.add_lines("Stability of the mask", series("jaccard"), "tokens", "expected Jaccard index", note)
    note = f"Settled when no layer moves by more than {rule.entropy_nats:g} nats in an increment."
    report.add_lines("Entropy of the experts' shares", series("entropy"), "tokens", "nats, mean over layers", note)


def _add_heatmap(report: Report, profile: Profile, name: str, domain: DomainProfile) -> None:
    tokens = domain.num_tokens[:, None].clip(min=1)
    values = domain.contribution_sum / tokens if profile.has_contributions else domain.weight_sum.sum(axis=2) / tokens
    what = "contribution ‖w·f‖ a token" if profile.has_contributions else "gate weight a token"
    report.add_heatmap(
        f"{name}: {what}",
        values.tolist(),
        rows=[f"layer {block}" for block in profile.layers],
        across="expert",
    )


def default_keep(num_experts: int) -> int:
    """K of the masks whose stability is told when nobody says which."""
    return min(64, max(1, num_experts // 2))
