"""What a prompt orders to be repeated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.engine.loop_request import MOST_REPEATS, requested_repeats


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Write 'la' 50 times", 50),
        ("Please write the word la fifty times.", 50),
        ('Schreibe "Ich darf nicht lügen" 100 mal.', 100),
        ("Écris « bonjour » 20 fois", 20),
        ("Напиши слово привет 30 раз", 30),
        ("请把“你好”写50次", 50),
        ("Write 1,000 lines of 'I must not talk'!", 1000),
        ("Compute 1/7 to 500 decimal places.", 500),
        ("Print a 20x30 matrix of zeros", 600),
        ("Hello. Say 'meow' over and over.", 1000),
        ("Repeat 'a' 5 times, then write 'b' 70 times", 70),
        ("Write 'x' 999999 times", MOST_REPEATS),
    ],
)
def test_ordered_repetition_is_read_from_the_prompt(prompt: str, expected: int) -> None:
    """The largest number ordered in any sentence counts, up to a limit."""
    assert requested_repeats(prompt) == expected


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "What is 17 times 23?",
        "Write the result of 17 times 23.",
        "Explain why 3 times x is 9, and write it down.",
        "A coin is tossed 50 times. Write the probability of three heads.",
        "List 100 facts about rivers.",
        "Write an essay that is 3 times as long as this one.",
        "Check the result again and again until you are certain.",
        "Think about it over and over, then write your answer.",
    ],
)
def test_other_numbers_order_nothing(prompt: str) -> None:
    """Multiplication, numbers of facts, and a wish for care are no orders to repeat."""
    assert requested_repeats(prompt) is None


@given(st.text(alphabet="1 ,.x'writes times\n", max_size=3000))
def test_any_prompt_is_read(prompt: str) -> None:
    """Whatever is asked, the answer is None or at least 2 and at most the limit."""
    found = requested_repeats(prompt)
    assert found is None or 2 <= found <= MOST_REPEATS
