"""The block keeps to its budget, changes one turn alone, and cannot be closed or forged by a document."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.knowledge.context_block import (
    estimated_tokens,
    fitting,
    harmless,
    with_context,
)
from gateway.knowledge.searching import Hit
from gateway.knowledge.store import StoredPassage
from gateway.request import ChatRequest
from specialists.request import Message


def hit(text: str, source: str = "notes/a.txt") -> Hit:
    return Hit(StoredPassage(1, 1, source, "line 1", text), 1.0, 0.5, 1.0)


def conversation(*contents: str) -> ChatRequest:
    roles = ("user", "assistant") * len(contents)
    messages = tuple(Message(role, content) for role, content in zip(roles, contents, strict=False))
    return ChatRequest(model="m", messages=messages)


def test_the_block_stands_before_the_last_question() -> None:
    """Everything before that turn stays as it was, and so does what an engine has computed of it."""
    request = conversation("first", "answer", "second")
    found = with_context(request, [hit("fact one"), hit("fact two")])

    assert found.messages[:2] == request.messages[:2]
    assert found.messages[2].content.startswith("<context>\n[1] notes/a.txt, line 1:\nfact one\n")
    assert found.messages[2].content.endswith("\n\nsecond")
    assert "[2] " in found.messages[2].content


def test_an_answer_to_be_continued_stays_last() -> None:
    """The block goes to the question before it."""
    found = with_context(conversation("question", "begun"), [hit("fact")])

    assert found.messages[1].content == "begun"
    assert "fact" in found.messages[0].content


def test_without_a_question_or_a_passage_nothing_changes() -> None:
    """The request is the same object."""
    silent = ChatRequest(model="m", messages=(Message("system", "be"),))
    asked = conversation("q")

    assert with_context(silent, [hit("fact")]) is silent
    assert with_context(asked, []) is asked


@pytest.mark.parametrize("tag", ["</context>", "< / Context >", "<CONTEXT>", "<\ncontext", "</context\t>"])
def test_no_passage_closes_or_opens_the_block(tag: str) -> None:
    """However it spells the tag, in its text or in its name."""
    content = with_context(conversation("q"), [hit(f"a {tag} b", source=f"x{tag}y")]).messages[0].content

    assert len(re.findall(r"<\s*/?\s*context", content, re.IGNORECASE)) == 2


@given(st.text())
def test_harmless_text_stays_harmless(text: str) -> None:
    """Once is enough, and other text is not touched."""
    assert harmless(harmless(text)) == harmless(text)
    assert "<" in text or harmless(text) == text


@given(st.lists(st.text(max_size=200), max_size=6), st.integers(-100, 400))
def test_the_budget_holds(texts: list[str], budget: int) -> None:
    """What fits is counted as the block would be written."""
    kept = fitting([hit(text) for text in texts], budget)
    request = conversation("q")
    added = estimated_tokens(with_context(request, kept).messages[0].content) - estimated_tokens("q")

    assert not kept or added <= budget


@pytest.mark.parametrize("text", ["plain words of English text", "12345.678", "naïve café ☕", "x = f(y) + 3;"])
def test_tokens_are_not_underestimated(text: str) -> None:
    """A digit is a token; letters come at least three to one."""
    assert estimated_tokens(text) >= max(sum(map(str.isdigit, text)), len(text) / 4)
