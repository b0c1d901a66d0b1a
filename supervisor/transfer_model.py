"""What any specialist is worth on any domain: measured, published, predicted from the masks' overlap, or a prior.

Where the numbers come from is `supervisor.transfer_fit`; what they are weighed against is `supervisor.transfer`.
Knows no probabilities, no costs and no memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msgspec import Struct

from supervisor.domains import GENERAL
from supervisor.transfer_fit import Estimate, TransferTable, fit, full_sigma, of_new_pair

HOME = Estimate(1.0, 0.05, "home")
"""A specialist on its own domain where nothing was measured: as good as the parent, as published for math (.996)."""

GENERALIST = Estimate(0.75, 0.10, "prior for a generalist")
"""A generalist on a domain, and a specialist on general talk: between the published visitors' mean (.64) and that of
the near ones (.87). Nobody measured either, so both directions get one number and the classifier's odds decide."""

UNKNOWN = Estimate(0.5, 0.3, "unknown")
"""Where the tables hold too few pairs to say anything."""

TRANSFER_OFF = Estimate(0.0, 0.0, "transfer switched off")

TABLES_KEPT = 8


class Candidate(Struct, frozen=True, kw_only=True):
    """One specialist as the choice sees it; `swap_seconds` is what bringing it into memory would take now.

    `overlaps` holds (tag of another specialist, F-score of the two masks) where known.
    """

    tag: str
    domains: tuple[str, ...] = ()
    is_resident: bool = False
    swap_seconds: float = 0.0
    is_available: bool = True
    overlaps: tuple[tuple[str, float], ...] = ()


def is_home(candidate: Candidate, domain: str, default: str) -> bool:
    """Whether `domain` is the candidate's own; general talk is the college's `default` specialist's as well."""
    return domain in candidate.domains or (domain == GENERAL and candidate.tag == default)


def is_generalist(candidate: Candidate, default: str) -> bool:
    return candidate.tag == default or GENERAL in candidate.domains


class TransferModel:
    """Estimates for every pair of specialist and domain.

    A measured pair is taken before a published one, and a line fitted to measured pairs before the published line.
    Holds no state but the tables of the last few colleges it was asked for.
    """

    def __init__(self, published: TransferTable, measured: TransferTable | None = None) -> None:
        tables = [published] if measured is None else [measured, published]
        self._known = {key: value for table in reversed(tables) for key, value in _known(table)}
        self._f_scores = {key: f for table in reversed(tables) for key, f in _f_scores(table)}
        self._kin = tuple(frozenset(group) for table in tables for group in table.kin)
        self._fit = next(filter(None, (fit(table.pairs) for table in tables)), None)
        near = [pair for pair in published.pairs if pair.arm == "near"]
        self._near = of_new_pair(near, "prior of near pairs") or UNKNOWN
        self._any = of_new_pair(published.pairs, "prior of all pairs") or UNKNOWN
        self._tables: dict[object, QualityTable] = {}

    def estimate(self, visitor: Candidate, domain: str, college: Sequence[Candidate], default: str) -> Estimate:
        """What `visitor`'s answers are worth on `domain`, as a share of the parent's.

        1. At home: the value known of it, else HOME.
        2. A known pair, measured before published; the best of the visitor's domains.
        3. General talk, or a generalist away from it: GENERALIST.
        4. A known overlap of masks: the fitted line.
        5. Domains of one kin: the mean of the published near pairs.
        6. Otherwise the mean of all published pairs, with their whole spread.
        """
        if is_home(visitor, domain, default):  # 1
            return self._known.get((visitor.tag, domain)) or self._known.get((domain, domain)) or HOME
        names = (visitor.tag, *visitor.domains)
        known = [self._known[name, domain] for name in names if (name, domain) in self._known]
        if known:  # 2
            return max(known, key=lambda estimate: estimate.y)
        if domain == GENERAL or is_generalist(visitor, default):  # 3
            return GENERALIST
        f_score = self._overlap(visitor, domain, college)
        if f_score is not None and self._fit is not None:  # 4
            return self._fit.predict(f_score)
        if any(domain in group and not group.isdisjoint(visitor.domains) for group in self._kin):  # 5
            return self._near
        return self._any  # 6

    def table(self, college: Sequence[Candidate], default: str, *, num_sigmas: float, is_on: bool) -> "QualityTable":
        """All estimates of one college, computed once as long as its specialists stay the same."""
        specialists = tuple((each.tag, each.domains, each.overlaps) for each in college)
        key = (specialists, default, num_sigmas, is_on)
        found = self._tables.get(key)
        if found is None:
            found = QualityTable(self, tuple(college), default, num_sigmas=num_sigmas, is_on=is_on)
            kept = self._tables if len(self._tables) < TABLES_KEPT else {}
            self._tables = {**kept, key: found}
        return found

    def _overlap(self, visitor: Candidate, domain: str, college: Sequence[Candidate]) -> float | None:
        """The largest F-score with a specialist at home in `domain`; failing that, one known for the domains."""
        at_home = {each.tag for each in college if domain in each.domains}
        own = [f for tag, f in visitor.overlaps if tag in at_home and 0 <= f <= 1]
        if own:
            return max(own)
        return max(
            (f for name in visitor.domains if (f := self._f_scores.get((name, domain))) is not None), default=None
        )


@dataclass(frozen=True, slots=True)
class Column:
    """All specialists on one domain, in the college's order: mean, lower bound credited to a visitor, estimate."""

    means: tuple[float, ...]
    lowers: tuple[float, ...]
    estimates: tuple[Estimate, ...]


class QualityTable:
    """Estimates of one college by specialist and domain.

    Lower bounds are `num_sigmas` standard deviations down; a home has none. With transfer off (`is_on` False) only
    homes and generalists are worth anything. Domains are filled in as they are first asked for.
    """

    def __init__(
        self, model: TransferModel, college: tuple[Candidate, ...], default: str, *, num_sigmas: float, is_on: bool
    ) -> None:
        self._model = model
        self._college = college
        self._default = default
        self._num_sigmas = num_sigmas
        self._is_on = is_on
        self._columns: dict[str, Column] = {}

    def column(self, domain: str) -> Column:
        found = self._columns.get(domain)
        if found is None:
            found = self._columns[domain] = self._fill(domain)
        return found

    def _fill(self, domain: str) -> Column:
        estimates = tuple(self._estimate(each, domain) for each in self._college)
        at_home = [is_home(each, domain, self._default) for each in self._college]
        return Column(
            means=tuple(each.y for each in estimates),
            lowers=tuple(
                each.y if home else each.lower(self._num_sigmas) for each, home in zip(estimates, at_home, strict=True)
            ),
            estimates=estimates,
        )

    def _estimate(self, candidate: Candidate, domain: str) -> Estimate:
        home = is_home(candidate, domain, self._default)
        if not self._is_on and not home and not is_generalist(candidate, self._default):
            return TRANSFER_OFF
        return self._model.estimate(candidate, domain, self._college, self._default)


def _known(table: TransferTable) -> Iterator[tuple[tuple[str, str], Estimate]]:
    basis = "measured" if table.measured else "published"
    for pair in table.pairs:
        sigma = full_sigma(pair, table.parents.get(pair.target))
        yield (pair.visitor, pair.target), Estimate(pair.y, sigma, basis)


def _f_scores(table: TransferTable) -> Iterator[tuple[tuple[str, str], float]]:
    """Both ways round: the overlap of two masks of equal size is symmetric."""
    for pair in table.pairs:
        if pair.f_score is not None and not pair.is_home:
            yield (pair.visitor, pair.target), pair.f_score
            yield (pair.target, pair.visitor), pair.f_score
