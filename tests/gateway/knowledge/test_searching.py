"""The right passages come first, whether words or meaning find them, and small talk finds none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.knowledge.indexing import FLOOR_KEY
from gateway.knowledge.passages import Passage
from gateway.knowledge.searching import fused, search, terms_of
from gateway.knowledge.store import KnowledgeStore, create_store, open_store
from tests.gateway.knowledge.words_encoder import WIDTH, WordsEncoder

TEXTS = [
    "A Carnot engine takes heat from a hot reservoir and gives it to a cold one.",
    "Entropy never decreases in an isolated system.",
    "A contract needs an offer and an acceptance.",
    "The mitochondrion makes adenosine triphosphate.",
    "Pasta is boiled in salted water.",
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KnowledgeStore]:
    path = tmp_path / "i.sqlite"
    create_store(path, encoder="words", width=WIDTH)
    encoder = WordsEncoder()
    with open_store(path) as made:
        for number, text in enumerate(TEXTS):
            made.replace("/notes", f"{number}.txt", "d", [Passage(text, "line 1")], [encoder.embed(text)])
        made.set_about(FLOOR_KEY, "0.3")
        yield made


def sources(store: KnowledgeStore, question: str, *, by_meaning: bool = True) -> list[str]:
    vector = WordsEncoder().embed(question) if by_meaning else None
    return [hit.passage.source for hit in search(store, question, vector, limit=3)]


@pytest.mark.parametrize("by_meaning", [True, False])
@pytest.mark.parametrize(
    ("question", "first"),
    [
        ("What does a Carnot engine do with heat?", "notes/0.txt"),
        ("Does entropy decrease?", "notes/1.txt"),
        ("Which contract needs acceptances?", "notes/2.txt"),
    ],
)
def test_the_right_passage_comes_first(store: KnowledgeStore, question: str, first: str, by_meaning: bool) -> None:
    """Also by words alone, and in another form of the word."""
    assert sources(store, question, by_meaning=by_meaning)[0] == first


@pytest.mark.parametrize("question", ["Hello, how are you?", "Tell me a joke about penguins.", "", '"OR" NEAR(*)'])
def test_what_belongs_to_nothing_finds_nothing(store: KnowledgeStore, question: str) -> None:
    """Nor do the words of the search language mean anything in a question."""
    assert sources(store, question) == []


def test_a_passage_that_both_put_first_has_the_score_one(store: KnowledgeStore) -> None:
    """And its cosine and share of words beside it."""
    (hit, *_) = search(store, TEXTS[2], WordsEncoder().embed(TEXTS[2]), limit=3)

    assert hit.score == pytest.approx(1.0)
    assert hit.similarity == pytest.approx(1.0, abs=1e-5)
    assert hit.coverage == pytest.approx(1.0)


@given(st.lists(st.lists(st.integers(0, 20), unique=True), max_size=3))
def test_fusion_never_puts_the_worse_in_every_order_before_the_better(orders: list[list[int]]) -> None:
    """Whoever comes earlier in each order has the higher score."""
    scores = fused(orders)
    for one in scores:
        for other in scores:
            if one != other and all(
                one in order and (other not in order or order.index(one) < order.index(other)) for order in orders
            ):
                assert scores[one] > scores[other]


def test_terms_are_words_of_content() -> None:
    """Each once, bounded, numbers included."""
    assert terms_of("What is the Re of a 5 m pipe, the pipe at 20.5 K?") == ["re", "5", "pipe", "20.5"]
    assert len(terms_of(" ".join(f"word{number}" for number in range(500)))) == 24
