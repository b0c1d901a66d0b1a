"""Which specialist should answer, given how likely each domain is: expected quality less the price of swapping.

    score = Σ_d P(d) · Y(specialist → d)  −  swap cost  −  cost of leaving the conversation's specialist

Y is a share of the parent's quality (`supervisor.transfer_model`). The specialist at home in the likeliest domain has
the benefit of the doubt: its means count, of all others only the lower confidence bounds. Decided from plain data:
what is in memory, how long a swap would take and what is available are arguments. Knows neither the pool nor the
classifier, and keeps no state.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

from supervisor.domains import GENERAL
from supervisor.transfer_fit import Estimate
from supervisor.transfer_model import Candidate, QualityTable, TransferModel, is_home

Probabilities = Iterable[tuple[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What waiting and uncertainty are worth, in shares of the parent's quality.

    A second of swapping costs `seconds_weight`, but never more than `max_swap_cost` in all: whoever waits that long
    would rather wait on than get a bad answer. Changing the specialist of a conversation costs `reread_seconds` for
    reading it again, and `return_share` of the swap once more for coming back, never more than `max_switch_cost`.
    A visitor is credited with its means less `visiting_sigmas` standard deviations. Scores within `tie_margin` of the
    best are equal to it.
    """

    seconds_weight: float = 0.015
    max_swap_cost: float = 0.30
    visiting_sigmas: float = 1.0
    tie_margin: float = 0.005
    reread_seconds: float = 2.0
    return_share: float = 0.5
    max_switch_cost: float = 0.10

    def seconds(self, candidate: Candidate) -> float:
        """The swap's seconds; where the pool cannot say (negative, not a number), as many as the dearest swap takes."""
        if candidate.is_resident:
            return 0.0
        if 0 <= candidate.swap_seconds < math.inf:
            return candidate.swap_seconds
        return self.max_swap_cost / self.seconds_weight if self.seconds_weight > 0 else 0.0

    def swap_cost(self, seconds: float) -> float:
        return min(self.max_swap_cost, self.seconds_weight * seconds)

    def switch_cost(self, swap_seconds: float) -> float:
        seconds = self.reread_seconds + self.return_share * swap_seconds
        return min(self.max_switch_cost, self.seconds_weight * seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Considerations:
    """What the operator lets count. `overrides` maps a domain to the tag that always answers it."""

    use_transfer: bool = True
    use_swap_cost: bool = True
    use_stickiness: bool = True
    overrides: Mapping[str, str] = field(default_factory=dict)


class Terms(Struct, frozen=True, kw_only=True):
    """One candidate's sum: `score = quality − swap_cost − switch_cost`, shares of the parent's quality.

    `y`, `sigma` and `basis` are its estimate on the likeliest domain alone, before any lower bound is taken.
    """

    tag: str
    score: float
    quality: float
    swap_seconds: float
    swap_cost: float
    switch_cost: float
    is_home: bool
    is_resident: bool
    y: float
    sigma: float
    basis: str


Kind = Literal["home", "visitor", "generalist", "override", "default", "kept"]


class Choice(Struct, frozen=True, kw_only=True):
    """Who answers, in which capacity, and every available candidate's sum, best first; `sentence` is for people.

    `kind` "kept" is for who answered before and goes on without being weighed again; `choose` never says it.
    """

    tag: str
    domain: str
    kind: Kind
    sentence: str
    terms: tuple[Terms, ...]


def choose(
    probabilities: Probabilities,
    candidates: Sequence[Candidate],
    transfer: TransferModel,
    costs: Costs | None = None,
    considerations: Considerations | None = None,
    *,
    default: str,
    abstained: bool = False,
    current: str | None = None,
) -> Choice:
    """The specialist that should answer; `default` is the generalist's tag, `current` who answered so far.

    1. Nobody is available: the default's tag, for the caller to refuse in the default's name.
    2. The operator has sent this domain to an available specialist: that one.
    3. The classifier abstained: the generalist, if available.
    4. The best score. Among equal ones the home specialist wins, then the current one, then the one with fewest
       domains, then whoever is in memory.

    Unusable probabilities (negative, not finite, none at all) count as abstaining; so does an unusable swap time as
    the dearest swap.
    """
    costs, considerations = costs or Costs(), considerations or Considerations()
    weights = normalised(probabilities)
    abstained = abstained or not weights
    domain = GENERAL if abstained else max(weights, key=lambda weight: weight[1])[0]
    weighing = _Weighing(
        weights=weights or [(GENERAL, 1.0)],
        domain=domain,
        candidates=candidates,
        table=transfer.table(candidates, default, num_sigmas=costs.visiting_sigmas, is_on=considerations.use_transfer),
        costs=costs,
        considerations=considerations,
        default=default,
        current=current,
    )
    terms = weighing.ranked_terms()
    if not terms:  # 1
        said = f"No specialist is available, so the default '{default}' is named."
        return Choice(tag=default, domain=domain, kind="default", sentence=said, terms=())
    tags = {each.tag for each in terms}
    override = considerations.overrides.get(domain)
    if override in tags:  # 2
        said = f"The operator sends {domain} to '{override}'."
        return Choice(tag=override, domain=domain, kind="override", sentence=said, terms=terms)
    if abstained and default in tags:  # 3
        said = f"Too unsure to name a domain, so the generalist '{default}' answers."
        return Choice(tag=default, domain=domain, kind="generalist", sentence=said, terms=terms)
    best = terms[0]  # 4
    kind: Kind = "home" if best.is_home else "generalist" if best.tag == default else "visitor"
    return Choice(tag=best.tag, domain=domain, kind=kind, sentence=_sentence(best, terms, domain), terms=terms)


def normalised(probabilities: Probabilities) -> list[tuple[str, float]]:
    """The usable part of `probabilities`, summing to 1; empty when nothing is usable."""
    usable = [(domain, p) for domain, p in probabilities if 0 < p < math.inf]
    total = sum(p for _, p in usable)
    return [(domain, p / total) for domain, p in usable] if 0 < total < math.inf else []


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weighing:
    """One choice being made: all that the candidates' sums depend on. `weights` sum to 1."""

    weights: Sequence[tuple[str, float]]
    domain: str
    candidates: Sequence[Candidate]
    table: QualityTable
    costs: Costs
    considerations: Considerations
    default: str
    current: str | None

    def ranked_terms(self) -> tuple[Terms, ...]:
        """The sums of all available candidates, the winner first, the others by score."""
        is_staying = self._is_staying()
        estimates = self.table.column(self.domain).estimates
        terms = [
            self._terms(candidate, quality, estimate, is_staying)
            for candidate, quality, estimate in zip(self.candidates, self._qualities(), estimates, strict=True)
            if candidate.is_available
        ]
        return self._ranked(terms)

    def _qualities(self) -> list[float]:
        """Σ P(d) · Y(specialist → d) of every candidate: means for whoever is at home, lower bounds for the others."""
        columns = [(weight, self.table.column(name)) for name, weight in self.weights]
        qualities = [0.0] * len(self.candidates)
        for weight, column in columns:
            qualities = [sum_ + weight * y for sum_, y in zip(qualities, column.lowers, strict=True)]
        for index, candidate in enumerate(self.candidates):
            if is_home(candidate, self.domain, self.default):
                qualities[index] = sum(weight * column.means[index] for weight, column in columns)
        return qualities

    def _is_staying(self) -> bool:
        """Whether the conversation has a specialist that could go on."""
        return self.considerations.use_stickiness and any(
            each.tag == self.current and each.is_available for each in self.candidates
        )

    def _terms(self, candidate: Candidate, quality: float, estimate: Estimate, is_staying: bool) -> Terms:
        seconds = self.costs.seconds(candidate) if self.considerations.use_swap_cost else 0.0
        swap_cost = self.costs.swap_cost(seconds)
        switch_cost = self.costs.switch_cost(seconds) if is_staying and candidate.tag != self.current else 0.0
        return Terms(
            tag=candidate.tag,
            score=quality - swap_cost - switch_cost,
            quality=quality,
            swap_seconds=seconds,
            swap_cost=swap_cost,
            switch_cost=switch_cost,
            is_home=is_home(candidate, self.domain, self.default),
            is_resident=candidate.is_resident,
            y=estimate.y,
            sigma=estimate.sigma,
            basis=estimate.basis,
        )

    def _ranked(self, terms: list[Terms]) -> tuple[Terms, ...]:
        if not terms:
            return ()
        terms.sort(key=lambda each: -each.score)
        tied = [each for each in terms if each.score >= terms[0].score - self.costs.tie_margin]
        winner = tied[0] if len(tied) == 1 else max(tied, key=self._precedence)
        return (winner, *(each for each in terms if each is not winner))

    def _precedence(self, terms: Terms) -> tuple[bool, bool, int, bool, float]:
        """Who goes first among equals; see `choose`."""
        num_domains = next(len(each.domains) for each in self.candidates if each.tag == terms.tag)
        return terms.is_home, terms.tag == self.current, -num_domains, terms.is_resident, terms.score


def _sentence(best: Terms, terms: tuple[Terms, ...], domain: str) -> str:
    """The winner's sum, and that of the home specialist it was preferred to, or else of the runner-up."""
    capacity = "at home in" if best.is_home else "visiting"
    worth = f"worth {best.y:.2f} ± {best.sigma:.2f} of the parent's there ({best.basis})"
    other = next((each for each in terms[1:] if each.is_home), terms[1] if len(terms) > 1 else None)
    if other is None:
        return f"'{best.tag}' answers, {capacity} {domain}, {worth}: {_sum(best)}. Nobody else is available."
    if best.is_home:
        return f"'{best.tag}' answers, {capacity} {domain}, {worth}: {_sum(best)}; next '{other.tag}': {_sum(other)}."
    rival = "At home there" if other.is_home else "Nobody available is at home there; next"
    return f"'{best.tag}' answers, {capacity} {domain}, {worth}: {_sum(best)}. {rival} '{other.tag}': {_sum(other)}."


def _sum(terms: Terms) -> str:
    parts = [f"quality {terms.quality:.2f}"]
    if terms.swap_cost:
        parts.append(f"{terms.swap_cost:.2f} for a swap of {terms.swap_seconds:.1f} s")
    if terms.switch_cost:
        parts.append(f"{terms.switch_cost:.2f} for changing specialist")
    return parts[0] + " expected" if len(parts) == 1 else f"{' less '.join(parts)} = {terms.score:.2f}"
