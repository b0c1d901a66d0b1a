"""Reads a stream of server-sent events the way a strict client does."""

import json
from typing import Any

DONE = "[DONE]"


def blocks(body: str) -> list[str]:
    """The blocks of a stream; each must end with a blank line."""
    assert body.endswith("\n\n"), body[-80:]
    return body[:-2].split("\n\n")


def chunks(body: str) -> list[Any]:
    """The data of every block, parsed; comments are passed over, and no other kind of line is tolerated."""
    found: list[Any] = []
    for block in blocks(body):
        for line in block.split("\n"):
            if line.startswith(":"):
                assert not line.startswith(": ping")
                continue
            assert line.startswith("data: "), line
            data = line.removeprefix("data: ")
            found.append(DONE if data == DONE else json.loads(data))
    return found


def content(body: str, index: int = 0, name: str = "content") -> str:
    """The concatenated deltas of one choice."""
    return "".join(
        choice["delta"].get(name) or ""
        for chunk in chunks(body)
        if chunk != DONE
        for choice in chunk.get("choices", ())
        if choice["index"] == index
    )


def finish_reasons(body: str) -> list[str]:
    return [
        choice["finish_reason"]
        for chunk in chunks(body)
        if chunk != DONE
        for choice in chunk.get("choices", ())
        if choice["finish_reason"]
    ]
