"""Classifiers and candidates written by hand, for the tests of what is built on a classifier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from supervisor.conversation import Turn
from supervisor.transfer_model import Candidate

DOMAINS = ("general", "math", "physics", "law", "history")
DEFAULT = "coe-general"


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeClassification:
    probabilities: tuple[tuple[str, float], ...]
    domain: str
    confidence: float
    abstained: bool = False
    reason: str = "a word of the message decided"
    conformal_set: tuple[str, ...] = ()
    evidence: Mapping[str, object] = field(default_factory=dict)
    model_version: str = "fake-1"


def saying(domain: str, probability: float = 0.9, *, abstained: bool = False, cue: str = "") -> FakeClassification:
    """`domain` with `probability`, the rest spread evenly over the others."""
    rest = (1 - probability) / (len(DOMAINS) - 1)
    weights = {each: probability if each == domain else rest for each in DOMAINS}
    return FakeClassification(
        probabilities=tuple(sorted(weights.items(), key=lambda pair: -pair[1])),
        domain="general" if abstained else domain,
        confidence=probability,
        abstained=abstained,
        conformal_set=(domain,),
        evidence={"cues": [cue]},
    )


@dataclass(slots=True)
class KeywordClassifier:
    """Says the domain whose name the last turn contains, with `sure`; abstains where there is none. Records reads."""

    sure: float = 0.9
    read: list[tuple[str, ...]] = field(default_factory=list)

    def classify(self, conversation: Sequence[Turn], /) -> FakeClassification:
        self.read.append(tuple(turn.text for turn in conversation))
        last = conversation[-1].text
        found = next((domain for domain in DOMAINS if domain in last), None)
        return saying("math", 0.25, abstained=True) if found is None else saying(found, self.sure, cue=last)


class BrokenClassifier:
    """Raises whatever it is given."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def classify(self, conversation: Sequence[Turn], /) -> FakeClassification:
        raise self.error


def college(*, swap_seconds: float = 8.0, resident: Sequence[str] = ("general",)) -> list[Candidate]:
    return [
        Candidate(tag=f"coe-{d}", domains=(d,), is_resident=d in resident, swap_seconds=swap_seconds) for d in DOMAINS
    ]


def asked(*texts: str) -> list[Turn]:
    """User turns with an answer after each but the last."""
    turns: list[Turn] = []
    for text in texts:
        turns += [Turn("user", text), Turn("assistant", "An answer.")]
    return turns[:-1]
