"""Finds the passages that belong to a question: by meaning and by words, each with its rank, fused.

Reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009) needs no common scale for cosines and BM25. A passage is
kept only if it is as much like the question as neighbours in the index are like each other, or half as much and shares
some of its words; so small talk mostly finds nothing. The two bounds were chosen with `bench.knowledge`.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.knowledge.indexing import DEFAULT_FLOOR, FLOOR_KEY
from gateway.knowledge.store import KnowledgeStore, StoredPassage, Vector

CANDIDATES = 50
RANK_CONSTANT = 60.0
LEAST_COVERAGE = 0.15
MAX_TERMS = 24
COMMON_WORD = 20_000  # what more passages have tells none of them apart
_BEST_SCORE = 2 / (RANK_CONSTANT + 1)  # first by both

_TERM = re.compile(r"[^\W_]+(?:\.\d+)?")
_STOPWORDS_LISTED = """
a about above after again all also am an and any are as at be because been before being below between both but by can
could did do does doing down during each explain few for from further give had has have having he hello her here hers
hey hi him his how i if in into is it its itself just let like me more most my no nor not now of off ok okay on once
only or other our out over own please same she should so some such tell than thank thanks that the their them then
there these they this those through to too under until up us very was we were what when where which while who whom why
will with would you your
"""
_STOPWORDS = frozenset(_STOPWORDS_LISTED.split())


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that belongs to the question. `score` is 0 to 1: 1 for the first by both orders.

    `similarity` is the cosine to the question, None where it is not known; `coverage` how much of its rare words
    it holds, 0 to 1.
    """

    passage: StoredPassage
    score: float
    similarity: float | None
    coverage: float


def search(store: KnowledgeStore, question: str, vector: Vector | None, *, limit: int) -> list[Hit]:
    """The best passages, best first; without a vector by words alone."""
    terms = terms_of(question)
    by_words = store.matching(terms, CANDIDATES) if terms else []
    by_meaning = store.nearest(vector, CANDIDATES) if vector is not None else []
    scores = fused([by_words, [id for id, _ in by_meaning]])
    similarities = {} if vector is None else store.similarities(vector, list(scores))
    coverages = _coverages(store, terms, list(scores))
    floor = float(store.about(FLOOR_KEY) or DEFAULT_FLOOR)
    ordered = sorted(scores, key=lambda id: (-scores[id], id))
    kept = [id for id in ordered if belongs(similarities.get(id), coverages[id], floor)][:limit]
    passages = store.passages(kept)
    return [Hit(passages[id], scores[id] / _BEST_SCORE, similarities.get(id), coverages[id]) for id in kept]


def belongs(similarity: float | None, coverage: float, floor: float) -> bool:
    """Whether a passage is about the question: by meaning alone, or by its words and by half as much meaning."""
    if similarity is None:
        return coverage >= LEAST_COVERAGE
    return similarity > floor or (similarity > floor / 2 and coverage >= LEAST_COVERAGE)


def terms_of(question: str) -> list[str]:
    """The words that say what the question is about, each once."""
    words = (found.group().lower() for found in _TERM.finditer(question))
    return list(dict.fromkeys(word for word in words if word not in _STOPWORDS and (len(word) > 1 or word.isdigit())))[
        :MAX_TERMS
    ]


def fused(orders: Sequence[Sequence[int]]) -> dict[int, float]:
    """Reciprocal rank fusion of several orders."""
    scores: dict[int, float] = defaultdict(float)
    for order in orders:
        for rank, id in enumerate(order, start=1):
            scores[id] += 1 / (RANK_CONSTANT + rank)
    return scores


def _coverages(store: KnowledgeStore, terms: Sequence[str], ids: Sequence[int]) -> Mapping[int, float]:
    """Which share of the question's words each passage holds, a rare word counting more than a common one."""
    found: dict[int, float] = dict.fromkeys(ids, 0.0)
    if not terms or not ids:
        return found
    total = store.num_passages()
    holders = [store.those_with(term, COMMON_WORD) for term in terms]
    weights = [math.log(1 + total / (1 + len(each))) for each in holders]
    whole = sum(weights)
    for each, weight in zip(holders, weights, strict=True):
        for id in each.intersection(ids):
            found[id] += weight / whole
    return found
