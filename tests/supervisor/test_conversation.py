"""Properties of `supervisor.conversation`."""

from supervisor.conversation import Turn, query_of


def test_a_question_with_its_own_topic_is_read_alone() -> None:
    """What was asked before does not colour a question that names its topic, however short it is."""
    turns = (
        Turn("user", "How do I center a div?"),
        Turn("assistant", "Use flexbox."),
        Turn("user", "What is photosynthesis?"),
    )
    assert query_of(turns) == "What is photosynthesis?"


def test_a_follow_up_brings_the_turn_it_follows() -> None:
    """A turn without a topic is read together with the user's turn before it."""
    turns = (Turn("user", "Sort a list in Haskell"), Turn("assistant", "…"), Turn("user", "why?"))
    assert query_of(turns) == "Sort a list in Haskell\nwhy?"


def test_only_the_user_is_heard() -> None:
    """System and assistant texts never reach the classifier; without a user turn there is no query."""
    assert query_of((Turn("system", "You know law."), Turn("assistant", "Hello"))) == ""
    assert query_of(()) == ""
