"""What a classifier is worth on labelled examples: accuracy, calibration, coverage, what mistakes cost, robustness.

Every figure comes with what a reader needs to doubt it: the number of examples, and an interval for the accuracy.
"""

import json
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from supervisor.augmentation import ALTERATIONS
from supervisor.calibration import NUM_BINS, expected_calibration_error
from supervisor.classifier import Classification
from supervisor.domains import GENERAL
from supervisor.examples import Example

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
_NORMAL_95 = 1.96


class ClassifiesText(Protocol):
    def classify_text(self, text: str) -> Classification: ...


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of the reliability diagram: `num` examples whose confidence lies in the bin."""

    confidence: float
    accuracy: float
    num: int


@dataclass(frozen=True, slots=True)
class Report:
    """All rates are shares between 0 and 1. An answer is right if it is any acceptable domain.

    `top_accuracy` ignores abstention: the likeliest domain counts. `wrong_specialist`: answered by a specialist that
    is not acceptable. `lost_work`: sent to general although that is not acceptable. `general_kept`: of the examples
    that only general may answer, those it got. `coverage` is (share answered, accuracy, least confidence).
    """

    num: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    top_accuracy: float
    top2_accuracy: float
    macro_f1: float
    calibration_error: float
    wrong_specialist: float
    lost_work: float
    abstained: float
    general_kept: float | None
    conformal_coverage: float
    conformal_size: float
    reliability: tuple[Bin, ...]
    coverage: tuple[tuple[float, float, float], ...]
    by_domain: dict[str, tuple[int, float]]
    confusion: dict[str, dict[str, int]]
    model_version: str
    flips: dict[str, float]
    milliseconds_p50: float
    milliseconds_p95: float

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


def evaluate(
    classifier: ClassifiesText,
    examples: Sequence[Example],
    *,
    num_flip_examples: int = 0,
    seed: int = 17,
    clock: Callable[[], float] = time.perf_counter,
) -> Report:
    """Classifies every example once; `num_flip_examples` of them again under each alteration."""
    answers, seconds = [], []
    for example in examples:
        start = clock()
        answers.append(classifier.classify_text(example.text))
        seconds.append(clock() - start)
    flips = flip_rates(classifier, [example.text for example in examples], num_flip_examples, seed=seed)
    return _report(examples, answers, flips, seconds)


def _report(
    examples: Sequence[Example], answers: Sequence[Classification], flips: dict[str, float], seconds: Sequence[float]
) -> Report:
    pairs = list(zip(examples, answers, strict=True))
    num = len(pairs)
    hits = [answer.domain in example.domains for example, answer in pairs]
    top = np.array([answer.probabilities[0][0] in example.domains for example, answer in pairs])
    sure = np.array([answer.probabilities[0][1] for answer in answers])
    low, high = wilson_interval(sum(hits), num)
    only_general = [answer.domain == GENERAL for example, answer in pairs if example.domains == (GENERAL,)]
    return Report(
        num=num,
        accuracy=sum(hits) / num,
        accuracy_low=low,
        accuracy_high=high,
        top_accuracy=float(top.mean()),
        top2_accuracy=_share(any(name in e.domains for name, _ in a.probabilities[:2]) for e, a in pairs),
        macro_f1=macro_f1([(e.domain, a.domain) for e, a in pairs if len(e.domains) == 1]),
        calibration_error=expected_calibration_error(sure, top),
        wrong_specialist=_share(a.domain != GENERAL and a.domain not in e.domains for e, a in pairs),
        lost_work=_share(a.domain == GENERAL and GENERAL not in e.domains for e, a in pairs),
        abstained=_share(answer.abstained for answer in answers),
        general_kept=_share(only_general) if only_general else None,
        conformal_coverage=_share(any(name in e.domains for name in a.conformal_set) for e, a in pairs),
        conformal_size=sum(len(answer.conformal_set) for answer in answers) / num,
        reliability=_reliability(sure, top),
        coverage=_coverage(sure, top),
        by_domain=_by_domain(examples, hits),
        confusion=_confusion(pairs),
        model_version=answers[0].model_version,
        flips=flips,
        milliseconds_p50=float(np.percentile(seconds, 50) * 1000),
        milliseconds_p95=float(np.percentile(seconds, 95) * 1000),
    )


def flip_rates(classifier: ClassifiesText, texts: Sequence[str], num: int, *, seed: int = 17) -> dict[str, float]:
    """Share of `num` texts whose domain changes under each alteration; {} when `num` is 0."""
    chosen = random.Random(seed).sample(list(texts), min(num, len(texts)))  # noqa: S311 - repeatable, not secret
    if not chosen:
        return {}
    before = [classifier.classify_text(text).domain for text in chosen]
    rates = {}
    for name, alteration in ALTERATIONS.items():
        rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
        after = [classifier.classify_text(alteration(text, rng)).domain for text in chosen]
        rates[name] = _share(old != new for old, new in zip(before, after, strict=True))
    return rates


def macro_f1(pairs: Sequence[tuple[str, str]]) -> float:
    """Mean F1 over the right domains that occur; `pairs` are (right, given)."""
    right, given = Counter(pair[0] for pair in pairs), Counter(pair[1] for pair in pairs)
    both = Counter(pair[0] for pair in pairs if pair[0] == pair[1])
    scores = [2 * both[domain] / (right[domain] + given[domain]) for domain in right]
    return sum(scores) / len(scores) if scores else 0.0


def wilson_interval(hits: int, num: int) -> tuple[float, float]:
    """95 % interval of a share."""
    share, z2 = hits / num, _NORMAL_95**2
    middle = (share + z2 / (2 * num)) / (1 + z2 / num)
    half = _NORMAL_95 / (1 + z2 / num) * math.sqrt(share * (1 - share) / num + z2 / (4 * num * num))
    return middle - half, middle + half


def _share(flags: Any) -> float:
    listed = [bool(flag) for flag in flags]
    return sum(listed) / len(listed)


def _reliability(sure: Any, hits: Any) -> tuple[Bin, ...]:
    bins = np.minimum((sure * NUM_BINS).astype(int), NUM_BINS - 1)
    return tuple(
        Bin(float(sure[bins == one].mean()), float(hits[bins == one].mean()), int((bins == one).sum()))
        for one in range(NUM_BINS)
        if (bins == one).any()
    )


def _coverage(sure: Any, hits: Any) -> tuple[tuple[float, float, float], ...]:
    order = np.argsort(-sure, kind="stable")
    kept = [(share, max(1, int(len(order) * share))) for share in COVERAGES]
    return tuple((share, float(hits[order[:n]].mean()), float(sure[order[n - 1]])) for share, n in kept)


def _by_domain(examples: Sequence[Example], hits: Sequence[bool]) -> dict[str, tuple[int, float]]:
    groups: defaultdict[str, list[bool]] = defaultdict(list)
    for example, hit in zip(examples, hits, strict=True):
        groups[example.domain].append(hit)
    return {domain: (len(group), sum(group) / len(group)) for domain, group in sorted(groups.items())}


def _confusion(pairs: Sequence[tuple[Example, Classification]]) -> dict[str, dict[str, int]]:
    """right → given → count; an acceptable answer counts as the first acceptable domain."""
    table: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for example, answer in pairs:
        table[example.domain][example.domain if answer.domain in example.domains else answer.domain] += 1
    return {right: dict(sorted(row.items())) for right, row in sorted(table.items())}
