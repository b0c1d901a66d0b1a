"""What one specialist's answers are worth on another's domain: the table, and what may be read out of it.

`y` is everywhere the visitor's accuracy as a share of the parent's on the same domain; 1 is as good as the parent.
`sigma` is one standard deviation of it. The F-score is the share of a visitor's experts that the target's mask
holds too, experts common to all masks left out. A table is a JSON file (see `TransferTable`); the published one
lies beside this module, a measured one has the same shape.

What the published line cannot bear: its twenty pairs are, for each of ten targets, the visitors with the most and
the least overlap. Choosing the extremes of the predictor inflates r (.80; within the near pairs it is .22, within the
far ones .46), nothing was measured between F = .58 and .70, and six of the ten far visitors are one and the same
specialist (law). So predictions here always carry the interval for a single new pair, about ±.2.

Knows nothing of specialists, probabilities or costs: see `supervisor.transfer`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import Literal, Self

import msgspec

from supervisor.errors import SupervisorError

FORMAT = "coe-transfer/1"
PUBLISHED = Path(__file__).with_name("transfer.json")
FEWEST_TO_FIT = 5  # a line through fewer pairs has an interval too wide to be of use


class TransferTableError(SupervisorError):
    """A transfer table cannot be used; the message names the file, the field and the mend."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share of the parent's quality, with one standard deviation; `basis` says where it comes from."""

    y: float
    sigma: float
    basis: str

    def lower(self, num_sigmas: float) -> float:
        """The value less `num_sigmas` standard deviations, never below 0."""
        return max(0.0, self.y - num_sigmas * self.sigma)


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One visitor on one target (domains, or tags for a measured visitor); equal names mean home.

    `sigma` leaves the parent's own error out, as published. `accuracy` is the visitor's, a share of `n` questions.
    `arm` says whether the pair was chosen as a near or a far one; None where nobody chose.
    """

    visitor: str
    target: str
    y: float
    sigma: float
    n: int
    f_score: float | None = None
    agg_cos: float | None = None
    accuracy: float | None = None
    arm: Literal["near", "far"] | None = None

    @property
    def is_home(self) -> bool:
        return self.visitor == self.target


class TransferTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file's content. `parents` holds the parent's own accuracies, `kin` groups of domains near in meaning."""

    format: Literal["coe-transfer/1"]
    measured: bool
    pairs: tuple[Pair, ...]
    provenance: tuple[str, ...] = ()
    parents: dict[str, float] = {}
    kin: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def load(cls, path: Path = PUBLISHED) -> Self:
        """Raises TransferTableError when the file is missing, no such table, or holds impossible numbers."""
        try:
            table = msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise TransferTableError(f"{path.name}: cannot be read ({error.strerror}). Check the path.") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TransferTableError(f"{path.name}: {error}. Write it in the form {FORMAT}.") from error
        table.check(path.name)
        return table

    def check(self, name: str) -> None:
        """Raises TransferTableError for the first pair whose numbers cannot be."""
        for index, pair in enumerate(self.pairs):
            fault = _fault(pair)
            if fault:
                raise TransferTableError(f"{name}: pairs[{index}] ({pair.visitor} on {pair.target}): {fault}.")

    def are_kin(self, domain: str, other: str) -> bool:
        return any(domain in group and other in group for group in self.kin)


def _fault(pair: Pair) -> str | None:
    if not 0 <= pair.y <= 10:
        return f"y = {pair.y} must be a share of the parent's accuracy, from 0 to 10"
    if not 0 <= pair.sigma <= 10:
        return f"sigma = {pair.sigma} must be from 0 to 10"
    if pair.n < 1:
        return f"n = {pair.n} must be the number of questions, at least 1"
    if pair.f_score is not None and not 0 <= pair.f_score <= 1:
        return f"f_score = {pair.f_score} must be from 0 to 1"
    return None


def full_sigma(pair: Pair, parent: float | None) -> float:
    """`pair.sigma` with the parent's own binomial error added, taken over as many questions.

    For the published pairs this is 1.01 to 1.71 times the printed error. Unchanged where `parent` is unknown.
    """
    if parent is None or not 0 < parent < 1:
        return pair.sigma
    return math.hypot(pair.sigma, pair.y * math.sqrt((1 - parent) / (parent * pair.n)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferFit:
    """Ordinary least squares of y on the F-score: y = intercept + slope · F.

    `residual_sigma` is the standard deviation about the line, on n − 2 degrees of freedom; `r` is Pearson's.
    """

    num_pairs: int
    intercept: float
    slope: float
    r: float
    residual_sigma: float
    mean_f: float
    sum_squares_f: float

    @classmethod
    def through(cls, f_scores: Sequence[float], ys: Sequence[float]) -> Self:
        """At least three points, their F-scores not all equal."""
        mean_f, mean_y = fmean(f_scores), fmean(ys)
        sff = sum((f - mean_f) ** 2 for f in f_scores)
        syy = sum((y - mean_y) ** 2 for y in ys)
        sfy = sum((f - mean_f) * (y - mean_y) for f, y in zip(f_scores, ys, strict=True))
        return cls(
            num_pairs=len(ys),
            intercept=mean_y - sfy / sff * mean_f,
            slope=sfy / sff,
            r=sfy / math.sqrt(sff * syy) if syy > 0 else 0.0,
            residual_sigma=math.sqrt(max(0.0, syy - sfy**2 / sff) / (len(ys) - 2)),
            mean_f=mean_f,
            sum_squares_f=sff,
        )

    def predict(self, f_score: float) -> Estimate:
        """What to expect of one new pair, with the standard deviation of that single value. y stays in [0, 1]."""
        y = min(1.0, max(0.0, self.intercept + self.slope * f_score))
        return Estimate(y, self._sigma(f_score), "predicted")

    def interval(self, f_score: float, level: float = 0.95) -> tuple[float, float]:
        """The prediction interval of one new pair at `level`, by Student's t; not cut to [0, 1]."""
        centre = self.intercept + self.slope * f_score
        half = student_t(0.5 + level / 2, self.num_pairs - 2) * self._sigma(f_score)
        return centre - half, centre + half

    def r_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Fisher's interval of r, from more than three pairs. See the module on why r flatters."""
        half = NormalDist().inv_cdf(0.5 + level / 2) / math.sqrt(self.num_pairs - 3)
        centre = math.atanh(max(-0.999999, min(0.999999, self.r)))  # points exactly on a line leave no finite centre
        return math.tanh(centre - half), math.tanh(centre + half)

    def _sigma(self, f_score: float) -> float:
        spread = 1 + 1 / self.num_pairs + (f_score - self.mean_f) ** 2 / self.sum_squares_f
        return self.residual_sigma * math.sqrt(spread)


def student_t(probability: float, degrees: int) -> float:
    """Student's t quantile from the normal one (Abramowitz and Stegun 26.7.5), good to .001 from 8 degrees on."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / float(degrees) ** power for power, term in enumerate(terms))


def fit(pairs: Sequence[Pair]) -> TransferFit | None:
    """The line through all visiting pairs with a known F-score; None when they are too few or all alike."""
    usable = [(pair.f_score, pair.y) for pair in pairs if not pair.is_home and pair.f_score is not None]
    f_scores, ys = [f for f, _ in usable], [y for _, y in usable]
    if len(usable) < FEWEST_TO_FIT or len(set(f_scores)) < 2:
        return None
    return TransferFit.through(f_scores, ys)


def of_new_pair(pairs: Sequence[Pair], basis: str) -> Estimate | None:
    """What to expect of one more pair like `pairs`: their mean and spread; None from fewer than two."""
    ys = [pair.y for pair in pairs if not pair.is_home]
    if len(ys) < 2:
        return None
    return Estimate(fmean(ys), stdev(ys) * math.sqrt(1 + 1 / len(ys)), basis)
