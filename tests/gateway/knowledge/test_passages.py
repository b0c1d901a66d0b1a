"""Passages cover a document, fit the encoder, overlap, and say where they begin."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.knowledge.documents import Section
from gateway.knowledge.passages import OVERLAP_TOKENS, PASSAGE_TOKENS, passages_of
from tests.gateway.knowledge.words_encoder import count_words

TEXTS = st.lists(st.sampled_from(["word ", "another ", "end. ", "more!\n", "\n\n", "x" * 300 + " "]), max_size=400).map(
    "".join
)


@given(TEXTS)
def test_every_word_is_in_a_passage_and_none_is_too_long(text: str) -> None:
    """Cut anywhere, in paragraphs, sentences or words."""
    passages = list(passages_of([Section(text)], count_words))

    assert all(0 < count_words(passage.text) <= PASSAGE_TOKENS + 1 for passage in passages)
    covered = "".join(passage.text for passage in passages)
    for word in set(text.split()):
        assert word[:100] in covered


def test_neighbours_overlap_by_whole_sentences() -> None:
    """So that what stands at a cut is found from both sides."""
    text = " ".join(f"Sentence number {number} is here." for number in range(100))
    first, second, *_ = [passage.text for passage in passages_of([Section(text)], count_words)]

    shared = first[first.rindex(second.split(".")[0]) :]
    assert shared.startswith("Sentence")
    assert 0 < count_words(shared) <= OVERLAP_TOKENS


def test_positions_are_lines_or_pages() -> None:
    """Counted from 1, at the first character that is not blank."""
    text = "\n\nfirst\n\n" + "word " * 118 + "\n\nlast"
    lines = [passage.position for passage in passages_of([Section(text)], count_words)]
    pages = [passage.position for passage in passages_of([Section("a"), Section("b", 7)], count_words)]

    assert lines[0] == "line 3"
    assert pages == ["line 1", "page 7"]
