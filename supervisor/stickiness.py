"""What earlier turns say about a conversation's domain, and whether a new turn belongs to it.

A conversation is a belief over domains. Each turn's classification is evidence: the belief is first flattened (older
turns count less), then multiplied by the evidence (Bayes, in log-odds). Evidence that contradicts it outright starts
the belief afresh. A follow-up that names no topic of its own ("why?", "and in python?") changes nothing. Both bounds
below together make a topic that really moves win within two turns: see `updated`.

Pure functions on `Conversation`, and one small store of them. Knows no classifier, no specialists and no text longer
than it takes to recognise a turn.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from threading import Lock

from supervisor.conversation import Turn
from supervisor.follow_up import is_follow_up
from supervisor.hygiene import strip_harness

Belief = tuple[tuple[str, float], ...]
"""Probabilities by domain, most likely first, summing to 1."""

MOST_DOMAINS = 128  # in one belief; a classifier that invents domains does not make it grow
LONG_CHARS = 16_384  # a longer turn is recognised by its length, beginning and end, so that the cost stays flat


@dataclass(frozen=True, slots=True, kw_only=True)
class StickinessParams:
    """`memory` is the share of the old log-odds that the next turn starts from; `max_log_odds` bounds what it holds
    (natural logarithm, likeliest against any other). `min_probability` is the least a domain can be given, so that
    no single turn is final. Evidence starts a belief afresh when it is at least `drift_confidence` sure of a domain
    and differs from the belief by at least `drift_distance` (total variation, 0 to 1). A turn that the classifier
    abstains on stays with a belief of at least `keep_confidence`.
    """

    memory: float = 0.5
    max_log_odds: float = 4.0
    min_probability: float = 1e-3
    drift_confidence: float = 0.6
    drift_distance: float = 0.6
    keep_confidence: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationKey:
    """How a client's conversation is recognised; `id` is a short digest and may serve for session affinity.

    `is_exact` tells an id that names this one conversation from one that may be shared by several (a user's name,
    or the same opening words).
    """

    id: str
    is_exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What is remembered: the belief, who answered last for which domain, and which user turns were seen."""

    belief: Belief
    tag: str
    domain: str
    abstained: bool
    num_turns: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Update:
    """A belief after a turn; `is_drift` when the turn started it afresh."""

    belief: Belief
    is_drift: bool


def conversation_key(
    turns: Sequence[Turn], *, user: str | None = None, conversation_id: str | None = None
) -> ConversationKey | None:
    """The key from what every request carries, or None when nothing in it tells conversations apart yet.

    The client's own id before `user`, before the opening: everything up to the first user turn that says something of
    its own (so not a bare "hello", which thousands of conversations open with).
    """
    if conversation_id:
        return ConversationKey(id=_digest("conversation", conversation_id), is_exact=True)
    if user:
        return ConversationKey(id=_digest("user", user), is_exact=False)
    for index, turn in enumerate(turns):
        if turn.role == "user" and not is_follow_up(turn.text):
            opening = [f"{each.role}:{_said(each.text)}" for each in turns[: index + 1]]
            return ConversationKey(id=_digest("opening", *opening), is_exact=False)
    return None


def fingerprint(turns: Sequence[Turn], num_user_turns: int | None = None) -> str:
    """A digest of the first `num_user_turns` user turns (None: all). Equal digests mean the same questions so far."""
    said = [turn.text for turn in turns if turn.role == "user"][:num_user_turns]
    return _digest(*map(_said, said))


def _said(text: str) -> str:
    """A turn as it is recognised by. What a harness puts around it changes from call to call, so that goes."""
    if len(text) > LONG_CHARS:
        return f"{len(text)}:{text[: LONG_CHARS // 2]}:{text[-LONG_CHARS // 2 :]}"
    return strip_harness(text).strip() if "<" in text or "[" in text else text.strip()


def _digest(*parts: str) -> str:
    joined = "\0".join(parts).encode("utf-8", "surrogatepass")
    return blake2b(joined, digest_size=16).hexdigest()


def is_continued(known: Conversation, turns: Sequence[Turn], key: ConversationKey) -> bool:
    """Whether `turns` go on from what is known: by an exact id, by the same questions so far, or by leaning on them."""
    if key.is_exact or fingerprint(turns, known.num_turns) == known.fingerprint:
        return True
    spoken = [turn.text for turn in turns if turn.role == "user"]
    return len(spoken) == 1 and is_follow_up(spoken[0])  # a client that names the user and sends no history


def updated(belief: Belief | None, evidence: Belief, params: StickinessParams) -> Update:
    """The belief after one more turn with `evidence`; both sum to 1.

    Whatever was believed keeps at most memory · max_log_odds = 2 of log-odds. So a new topic that is at least twice
    as likely as the old one (log-odds ≥ .7) in two turns running is ahead after the second: 2/2 − .7 · (1 + ½) < 0.
    """
    if belief is None:
        return Update(evidence, False)
    if evidence[0][1] >= params.drift_confidence and distance(belief, evidence) >= params.drift_distance:
        return Update(evidence, True)
    prior, new = _flattened(belief, params), dict(evidence)
    floor = params.min_probability
    unseen = -params.memory * params.max_log_odds
    logs = {domain: prior.get(domain, unseen) + math.log(max(floor, new.get(domain, 0.0))) for domain in prior | new}
    return Update(_softmax(logs), False)


def _flattened(belief: Belief, params: StickinessParams) -> dict[str, float]:
    """The log-odds the next turn starts with: bounded, then shrunk. The likeliest domain has 0."""
    top = belief[0][1]
    least = top * math.exp(-params.max_log_odds)
    return {domain: params.memory * math.log(max(least, p) / top) for domain, p in belief}


def _softmax(logs: Mapping[str, float]) -> Belief:
    top = max(logs.values())
    weights = {domain: math.exp(log - top) for domain, log in logs.items()}
    total = sum(weights.values())
    shares = [(domain, weight / total) for domain, weight in weights.items()]
    return tuple(sorted(shares, key=lambda each: -each[1]))[:MOST_DOMAINS]


def distance(belief: Belief, evidence: Belief) -> float:
    """Total variation: the share of probability that would have to move, from 0 (equal) to 1 (nothing in common)."""
    old, new = dict(belief), dict(evidence)
    return sum(abs(old.get(domain, 0.0) - new.get(domain, 0.0)) for domain in old | new) / 2


class ConversationStore:
    """Conversations by key, at most `max_conversations`, each forgotten `ttl_seconds` after it was last put.

    The one owner of this state; safe to use from several threads. `clock` gives seconds and never runs backwards.
    Two requests of one conversation at the same time both start from the same state, and the later one is kept.
    """

    def __init__(
        self, *, clock: Callable[[], float], max_conversations: int = 10_000, ttl_seconds: float = 3600.0
    ) -> None:
        if max_conversations < 1 or not ttl_seconds > 0:
            raise ValueError(
                f"max_conversations = {max_conversations} must be at least 1 and ttl_seconds = {ttl_seconds} above 0"
            )
        self._clock = clock
        self._max_conversations = max_conversations
        self._ttl_seconds = ttl_seconds
        self._lock = Lock()
        self._known: OrderedDict[str, tuple[float, Conversation]] = OrderedDict()  # oldest put first

    def get(self, key: ConversationKey) -> Conversation | None:
        with self._lock:
            self._forget_expired()
            found = self._known.get(key.id)
            return None if found is None else found[1]

    def put(self, key: ConversationKey, conversation: Conversation) -> None:
        with self._lock:
            self._known[key.id] = (self._clock(), conversation)
            self._known.move_to_end(key.id)
            self._forget_expired()
            while len(self._known) > self._max_conversations:
                self._known.popitem(last=False)

    def __len__(self) -> int:
        with self._lock:
            self._forget_expired()
            return len(self._known)

    def _forget_expired(self) -> None:
        """Each entry is removed once, so this costs next to nothing on average."""
        eldest = self._clock() - self._ttl_seconds
        while self._known and next(iter(self._known.values()))[0] <= eldest:
            self._known.popitem(last=False)
