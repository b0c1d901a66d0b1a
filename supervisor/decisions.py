"""What a decision is, and a bounded log of the last ones.

The log holds no text of any message unless it was told that it may: neither the question itself nor what a classifier
quotes from it as evidence. Knows nothing of how decisions are made.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Literal, Protocol

import msgspec
from msgspec import Struct

from supervisor.conversation import Turn
from supervisor.transfer import Choice

TEXT_CHARS = 500  # of a question in the log, where text is allowed
MOST_TERMS = 5  # candidates' sums kept with a decision: the winner and the next


class Classification(Protocol):
    """What a classifier says of a query. `domain` is its verdict, "general" when it abstained."""

    @property
    def probabilities(self) -> tuple[tuple[str, float], ...]:
        """(domain, probability), most likely first, summing to 1."""
        ...

    @property
    def domain(self) -> str: ...

    @property
    def confidence(self) -> float: ...

    @property
    def abstained(self) -> bool: ...

    @property
    def reason(self) -> str: ...

    @property
    def conformal_set(self) -> Sequence[str]: ...

    @property
    def evidence(self) -> object: ...

    @property
    def model_version(self) -> str: ...


class Classifier(Protocol):
    """Synchronous and safe to call from several threads."""

    def classify(self, conversation: Sequence[Turn], /) -> Classification: ...


Outcome = Literal["classified", "follow_up", "abstained", "no_classifier", "no_text"]


class Decision(Struct, frozen=True, kw_only=True):
    """Which specialist answers a turn, how sure that is, and why; plain data.

    `domains` are the probabilities the choice was made with: the conversation's belief, most likely first.
    `confidence` is the probability of `domain`, None where nothing was classified. `reason` is for people
    and quotes nobody; `classifier_reason` and `evidence` may quote the message. `seconds` is the time the decision
    took, `classifier_seconds` the classifier's part of it.
    """

    decision_id: str
    tag: str
    domain: str
    confidence: float | None
    abstained: bool
    outcome: Outcome
    reason: str
    domains: tuple[tuple[str, float], ...]
    choice: Choice
    conformal_set: tuple[str, ...] = ()
    is_drift: bool = False
    model_version: str | None = None
    conversation: str | None = None
    classifier_reason: str | None = None
    evidence: object = None
    seconds: float = 0.0
    classifier_seconds: float = 0.0

    def without_text(self) -> "Decision":
        """The same decision less all that may quote the message."""
        return msgspec.structs.replace(self, classifier_reason=None, evidence=None)


class _Entry(Struct, frozen=True):
    unix_time: float
    decision: Decision
    text: str | None


class DecisionLog:
    """The last `capacity` decisions; the one owner of this state, safe to use from several threads."""

    def __init__(self, *, unix_time: Callable[[], float], capacity: int = 1000, allow_text: bool = False) -> None:
        if capacity < 1:
            raise ValueError(f"capacity = {capacity} must be at least 1")
        self._unix_time = unix_time
        self._allow_text = allow_text
        self._lock = Lock()
        self._entries: deque[_Entry] = deque(maxlen=capacity)
        self._outcomes: Counter[str] = Counter()

    def record(self, decision: Decision, text: str = "") -> None:
        """`text` is the question; it is dropped here unless text is allowed."""
        kept = decision if self._allow_text else decision.without_text()
        if len(kept.choice.terms) > MOST_TERMS:
            choice = msgspec.structs.replace(kept.choice, terms=kept.choice.terms[:MOST_TERMS])
            kept = msgspec.structs.replace(kept, choice=choice)
        entry = _Entry(self._unix_time(), kept, text[:TEXT_CHARS] if self._allow_text else None)
        with self._lock:
            self._entries.append(entry)
            self._outcomes[decision.outcome] += 1

    def entries(self, limit: int = 100) -> list[dict[str, Any]]:
        """The last decisions as plain data, newest first."""
        with self._lock:
            newest = [entry for _, entry in zip(range(limit), reversed(self._entries), strict=False)]
        return [_plain(entry) for entry in newest]

    def get(self, decision_id: str) -> Decision | None:
        """A decision that is still in the log."""
        with self._lock:
            return next((e.decision for e in reversed(self._entries) if e.decision.decision_id == decision_id), None)

    def outcomes(self) -> dict[str, int]:
        """How many decisions there were of each outcome since the start, also those no longer in the log."""
        with self._lock:
            return dict(self._outcomes)

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)


def _plain(entry: _Entry) -> dict[str, Any]:
    plain: dict[str, Any] = {"unix_time": entry.unix_time}
    plain |= msgspec.to_builtins(entry.decision, enc_hook=str, str_keys=True)
    return plain if entry.text is None else plain | {"text": entry.text}
