"""The evaluator agrees with exact arithmetic, and nothing that is written can make it fail otherwise or take long."""

import decimal
import math
from contextlib import suppress
from fractions import Fraction
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.calculator.errors import CalculationError
from gateway.calculator.expression import MAX_CHARACTERS, evaluate
from gateway.calculator.functions import CONSTANTS, FUNCTIONS
from gateway.calculator.values import MAX_BITS, num_bits

SECONDS_FOR_ANYTHING = 1.0  # of this process alone; the worst takes some milliseconds


@st.composite
def written(draw: st.DrawFn, depth: int = 3) -> tuple[str, Fraction]:
    """An expression as text, and its value by `fractions`."""
    if depth == 0 or draw(st.booleans()):
        number = draw(st.decimals(min_value=0, max_value=9999, places=draw(st.integers(0, 3))))
        return format(number, "f"), Fraction(number)
    sign = draw(st.sampled_from("+-*/"))
    (left, one), (right, other) = draw(written(depth=depth - 1)), draw(written(depth=depth - 1))
    if sign == "/" and other == 0:
        sign = "+"
    value = {"+": one + other, "-": one - other, "*": one * other, "/": one / other if other else one}[sign]
    return f"({left}{draw(st.sampled_from(['', ' ']))}{sign}{right})", value


@given(written())
def test_sums_and_products_are_exact(case: tuple[str, Fraction]) -> None:
    """Any nesting of + − × ÷ over decimals is what fractions make of it."""
    text, value = case
    if len(text) <= MAX_CHARACTERS:
        assert evaluate(text) == value


@given(
    st.decimals(min_value=decimal.Decimal("0.001"), max_value=100_000, places=3),
    st.decimals(min_value=-9, max_value=9, places=2),
)
def test_powers_are_those_of_decimal(base: decimal.Decimal, exponent: decimal.Decimal) -> None:
    """Fractional powers agree with sixty digits of decimal to one part in 10^15."""
    with decimal.localcontext(prec=60):
        expected = base**exponent

    found = evaluate(f"{base}^({exponent})")

    assert abs(Fraction(found) / Fraction(expected) - 1) < Fraction(1, 10**15)


@given(st.integers(-50, 50), st.integers(-40, 40).filter(bool))
def test_whole_powers_are_exact(base: int, exponent: int) -> None:
    """A whole power of a whole number is the fraction it is."""
    if base == 0 and exponent < 0:
        with pytest.raises(CalculationError, match="zero"):
            evaluate(f"({base})**({exponent})")
    else:
        assert evaluate(f"({base})**({exponent})") == Fraction(base) ** exponent


@given(st.integers(-(10**9), 10**9), st.integers(-(10**6), 10**6).filter(bool))
def test_remainders_and_floors_are_pythons(left: int, right: int) -> None:
    """`%` before a bracket and `//` agree with Python's."""
    assert evaluate(f"({left})%({right})") == left % right
    assert evaluate(f"({left})//({right})") == left // right


_ALPHABET = "0123456789.,+-*/^%!()[]√π° xe×÷_$" + "".join(sorted({letter for name in FUNCTIONS for letter in name}))


@given(
    st.one_of(
        st.text(max_size=60),
        st.text(alphabet=_ALPHABET, max_size=250),
        st.lists(
            st.sampled_from([*FUNCTIONS, *CONSTANTS, "(", ")", ",", "9", "99", "1e9", "^", "!", "-"]), max_size=40
        ).map("".join),
    )
)
def test_nothing_but_its_own_error_comes_out(text: str) -> None:
    """Whatever is written: a bounded number, or a CalculationError."""
    with suppress(CalculationError):
        found = evaluate(text)
        assert math.isfinite(found) if isinstance(found, float) else num_bits(found) <= MAX_BITS


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9", "9^9^9^9", "factorial(10**9)", "10**9!", "2**(10**18)", "(1/3)**100000", "1.0000001**1e18",
        "0.5**1e300",
        "comb(10**9, 5*10**8)", "perm(10**12, 10**11)", "gcd(10**400-1, 10**399-1)",
        "lcm(" + ",".join(map(str, range(1, 80))) + ")",
        "(" * 120 + "1" + ")" * 119, "-" * 239 + "1", "√" * 200 + "2", "2^" * 100 + "2",
        "5" + "!" * 100, "9" * 240, "1e400" + "*1e400" * 30,
        "mod(9**1200, 7**1400)", "exp(exp(exp(10)))", "root(2, 10**300)", "round(1e400, -99)", "sin(1e300)",
        "(1e-400)^0.5",
    ],
)  # fmt: skip
def test_what_could_take_forever_does_not(text: str) -> None:
    """Towers, factorials, depth and length end at once, with a number or an error in words."""
    begun = process_time()
    with suppress(CalculationError):
        evaluate(text)
    assert process_time() - begun < SECONDS_FOR_ANYTHING


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2(3+4)", 14), ("3 x 4", 12), ("3×4÷2", 6), ("-2^2", -4), ("2^3^2", 512), ("2^-1", Fraction(1, 2)),
        ("15% of 80", 12),
        ("50*20%", 10), ("17 % 5", 2), ("1,234.5 + 1", Fraction(24710, 20)), ("$20*3", 60), ("5!", 120),
        ("√(16)+√9", 7),
        ("max(1,000, 5)", 5), ("round(2.5)", 3), ("round(-2.345, 2)", Fraction("-2.35")), ("comb(52,5)", 2598960),
        ("[1+2]*3", 9),
        ("mean(1,2,3,4)", Fraction(5, 2)), ("median(5,1,3)", 3), ("cbrt(-27)", -3), ("hypot(3,4)", 5),
        ("gcd(12,18)", 6),
        ("7//2", 3), ("-7%(3)", 2), ("1_000*3", 3000), ("0**0", 1), (".5+1.", Fraction(3, 2)), ("2e3", 2000),
    ],
)  # fmt: skip
def test_what_people_write_is_understood(text: str, value: Fraction) -> None:
    """Usual spellings mean what they mean elsewhere, exactly."""
    assert evaluate(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("sin(30°)", 0.5),
        ("cos(pi)", -1),
        ("2pi", math.tau),
        ("ln(e)", 1),
        ("log(1000)", 3),
        ("log(8,2)", 3),
        ("sin(pi)", 0),
    ],
)
def test_functions_are_those_of_math(text: str, value: float) -> None:
    """To fifteen digits, and zero where only the rounding of π would keep a sine from it."""
    assert evaluate(text) == pytest.approx(value, rel=1e-15, abs=1e-300)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1/0", "division by zero"), ("ln(-1)", "logarithm"), ("(-8)^0.5", "not a real"), ("x*3", "x is unknown"),
        ("", "nothing"),
        ("sqrt 16", "needs brackets"), ("1 2", "not expected"), ("(1", "missing"), ("2+", "missing at the end"),
        ("foo(1)", "no function"),
        ("atan2(1)", "2 arguments"), ("1e999", "exponent"), ("exp(1e4)", "too large"), ("tan(pi/2)", "not defined"),
        ("3 > 2", "cannot be read"),
        ("501!", "up to 500"), ("2.5!", "whole"), ("__import__('os')", "cannot be read"), ("9" * 300, "longer"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(text: str, message: str) -> None:
    """In words that a model can act on."""
    with pytest.raises(CalculationError, match=message):
        evaluate(text)
