"""What counts as a calculation, and what the model is told about it."""

import pytest

from gateway.calculator.calls import EXAMPLE, INSTRUCTIONS, is_calculation, open_call
from gateway.calculator.result import calculate


@pytest.mark.parametrize("inside", ["48/2", " 12 * 48 ", "sqrt(2)", "pi", "15% of 80", "$5*3", "x*3", "1,000+2"])
def test_arithmetic_is_recognised(inside: str) -> None:
    """Also with a name in it that will turn out to be unknown: then the model is told."""
    assert is_calculation(inside)


@pytest.mark.parametrize("inside", ['"a"', "endl;", "EOF", "std::cin", "a|b", "#", "T extends U"])
def test_code_is_not(inside: str) -> None:
    """Shift operators and heredocs are not answered."""
    assert not is_calculation(inside)


def test_the_open_call_is_the_last_one() -> None:
    """One that was begun anew counts from its last beginning."""
    assert open_call("a <<1=1>> b <<13<<3*4") == "3*4"


def test_the_examples_are_right() -> None:
    """What the model is shown is what the calculator would say."""
    for text in (INSTRUCTIONS, EXAMPLE[1].content):
        calls = [
            call.split(">>")[0] for call in text.split("<<")[1:] if ">>" in call and "=" in call and call[0] != " "
        ]
        assert calls
        for call in calls:
            expression, _, result = call.rpartition("=")
            assert calculate(expression).text == result
