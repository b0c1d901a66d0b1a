"""Results are exact where that is short, and rounded to twelve digits otherwise."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.calculator.result import MAX_EXACT_CHARACTERS, SIGNIFICANT_DIGITS, calculate, shown


@given(st.fractions(max_denominator=10**6), st.integers(0, 30))
def test_what_is_shown_as_exact_is(number: Fraction, power: int) -> None:
    """Reading an exact result back gives the number; a rounded one is within half a unit of its last digit."""
    number *= 10**power
    result = shown(number)

    if result.is_exact:
        assert Fraction(result.text) == number
        assert len(result.text) <= MAX_EXACT_CHARACTERS + 1
    else:
        assert abs(Fraction(result.text) - number) <= abs(number) * Fraction(1, 10 ** (SIGNIFICANT_DIGITS - 1))


@pytest.mark.parametrize(
    ("text", "shown_as", "is_exact"),
    [
        ("0.1+0.2", "0.3", True), ("10/3", "3.33333333333", False), ("2**64", "18446744073709551616", True), ("-1/8",
        "-0.125", True),
        ("2**200", "1.60693804426e60", False), ("12345.678**0.8", "1875.9098181", False), ("1/7e10",
        "1.42857142857e-11", False),
        ("sin(pi)", "0", False), ("1e20", "100000000000000000000", True),
    ],
)  # fmt: skip
def test_results_read_as_numbers_do(text: str, shown_as: str, is_exact: bool) -> None:
    """No trailing zeros, no needless exponent."""
    result = calculate(text)

    assert (result.text, result.is_exact, result.is_error) == (shown_as, is_exact, False)


def test_an_error_is_a_result_too() -> None:
    """It is said in the place of the number."""
    assert calculate("1/0").text == "error: division by zero"
    assert calculate("1/0").is_error
