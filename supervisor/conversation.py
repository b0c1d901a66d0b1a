"""What the supervisor reads: turns of a conversation, and the one text in them that says what is being asked.

A follow-up ("and in Rust?") means nothing alone, so the user's previous turn is put in front of it. What the system
or the assistant said is left out: the first describes the application, the second repeats the topic of whoever
answered, and both would make a wrong choice defend itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from supervisor.follow_up import is_follow_up

EARLIER_TURNS = 2  # how far back a chain of follow-ups is traced


@dataclass(frozen=True, slots=True)
class Turn:
    """One message; `role` is system, user, assistant or tool."""

    role: str
    text: str


def query_of(conversation: Sequence[Turn]) -> str:
    """The last user turn, after the user's earlier turns while those read are follow-ups. "" if no user spoke."""
    spoken = [turn.text for turn in conversation if turn.role == "user" and turn.text.strip()]
    if not spoken:
        return ""
    chosen = [spoken[-1]]
    for earlier in reversed(spoken[:-1][-EARLIER_TURNS:]):
        if not is_follow_up(chosen[0]):
            break
        chosen.insert(0, earlier)
    return "\n".join(chosen)
