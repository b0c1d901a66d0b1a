"""The `<context>` block: passages in front of a question, within a budget, which no passage can end or imitate.

Pure. Message text is never parsed for a model's special tokens anyway; here the block's own tags are made harmless.
Tokens are estimated from above, since the model's tokenizer is in another process.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from msgspec.structs import replace as replace_struct

from gateway.knowledge.searching import Hit
from gateway.request import ChatRequest
from specialists.request import Message

OPENING = "<context>"
CLOSING = "</context>"
AFTERWARDS = (
    "Use the context above where it helps to answer, and name what you used by its number, such as [1]. "
    "Where it does not help, leave it aside."
)
_TAG = re.compile(r"<(?=\s*/?\s*context)", re.IGNORECASE)
_TURN_TOKENS = 8  # what a template puts around a message


def estimated_tokens(text: str) -> int:
    """At least as many as a text has with the tokenizers in use: a digit is one, three bytes of anything else are."""
    num_digits = sum(map(str.isdigit, text))
    return num_digits + (len(text.encode("utf-8", "replace")) - num_digits + 2) // 3


def conversation_tokens(messages: Sequence[Message]) -> int:
    return sum(_TURN_TOKENS + estimated_tokens(message.content) for message in messages)


def fitting(hits: Sequence[Hit], budget: int) -> list[Hit]:
    """The best that fit together into `budget` tokens; one that is too long makes room for shorter ones."""
    left = budget - estimated_tokens(_block([])) - _TURN_TOKENS
    kept: list[Hit] = []
    for hit in hits:
        size = estimated_tokens(_entry(len(hits), hit))
        if size <= left:
            kept.append(hit)
            left -= size
    return kept


def with_context(request: ChatRequest, hits: Sequence[Hit]) -> ChatRequest:
    """The request with the passages in front of what the user said last.

    There they change nothing before that turn, so that what an engine has computed of the conversation stays good.
    """
    index = last_user_turn(request.messages)
    if index is None or not hits:
        return request
    turn = request.messages[index]
    asked = replace_struct(turn, content=f"{_block(hits)}\n\n{turn.content}")
    return replace(request, messages=(*request.messages[:index], asked, *request.messages[index + 1 :]))


def last_user_turn(messages: Sequence[Message]) -> int | None:
    return next((index for index in range(len(messages) - 1, -1, -1) if messages[index].role == "user"), None)


def _block(hits: Sequence[Hit]) -> str:
    entries = "\n".join(_entry(number, hit) for number, hit in enumerate(hits, start=1))
    return f"{OPENING}\n{entries}{CLOSING}\n{AFTERWARDS}"


def _entry(number: int, hit: Hit) -> str:
    source = " ".join(hit.passage.source.split())
    return f"[{number}] {harmless(source)}, {hit.passage.position}:\n{harmless(hit.passage.text)}\n"


def harmless(text: str) -> str:
    """Without anything that reads as one of the block's own tags."""
    return _TAG.sub("&lt;", text)
