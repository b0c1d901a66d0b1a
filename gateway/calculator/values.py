"""Exact and approximate numbers, and what may be done with two of them, at a bounded cost.

A number is a Fraction as long as that is exact and small (`MAX_BITS` above and below the line), else a float. Powers
that are not exact come from 40 digits of `decimal`, so a float is wrong in its last digit or two at most, whatever the
exponent. Nothing here parses or prints.
"""

import decimal
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from gateway.calculator.errors import CalculationError

Number = Fraction | float

MAX_BITS = 4096
MAX_EFFORT = 4_000
_BITS_PER_UNIT = 64
_WORKING = decimal.Context(
    prec=40,
    Emax=999_999,
    Emin=-999_999,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow, decimal.Underflow],
)
_TOO_LARGE = "the result is too large"
_TOO_SMALL = "the result is too close to zero"


@dataclass(slots=True)
class Effort:
    """How much one calculation has cost, in units of 64 bits looked at; past `MAX_EFFORT` it is given up."""

    spent: int = 0

    def spend(self, *numbers: Number) -> None:
        self.spent += sum(1 + num_bits(number) // _BITS_PER_UNIT for number in numbers)
        if self.spent > MAX_EFFORT:
            raise CalculationError("the calculation takes too long")


def num_bits(number: Number) -> int:
    """The longer of numerator and denominator; a float has 64."""
    if isinstance(number, float):
        return _BITS_PER_UNIT
    return max(number.numerator.bit_length(), number.denominator.bit_length())


def bounded(number: Number) -> Number:
    """`number` itself, or the float next to it where the fraction has grown too long. Raises CalculationError."""
    if isinstance(number, float):
        if not math.isfinite(number):
            raise CalculationError(_TOO_LARGE)
        return number
    return number if num_bits(number) <= MAX_BITS else as_float(number)


def as_float(number: Number) -> float:
    try:
        found = float(number)
    except OverflowError:
        raise CalculationError(_TOO_LARGE) from None
    if found == 0 and number != 0:
        raise CalculationError(_TOO_SMALL)
    return found


def as_integer(number: Number, what: str) -> int:
    """`number` as an int, also where it is a float without a fraction. Raises CalculationError."""
    if number != math.floor(number):
        raise CalculationError(f"{what} needs a whole number")
    return int(number)


def as_decimal(number: Number) -> decimal.Decimal:
    """The nearest of 40 digits."""
    if isinstance(number, float):
        return decimal.Decimal(number)
    return _WORKING.divide(decimal.Decimal(number.numerator), decimal.Decimal(number.denominator))


def add(left: Number, right: Number) -> Number:
    return bounded(_in_range(lambda: left + right))


def subtract(left: Number, right: Number) -> Number:
    return bounded(_in_range(lambda: left - right))


def multiply(left: Number, right: Number) -> Number:
    return bounded(_in_range(lambda: left * right))


def divide(left: Number, right: Number) -> Number:
    _refuse_zero(right)
    return bounded(_in_range(lambda: left / right))


def floor_divide(left: Number, right: Number) -> Number:
    _refuse_zero(right)
    return bounded(Fraction(_in_range(lambda: math.floor(left / right))))


def modulo(left: Number, right: Number) -> Number:
    """With the sign of `right`."""
    _refuse_zero(right)
    return bounded(_in_range(lambda: left % right))


def power(base: Number, exponent: Number) -> Number:
    """Exact where both are and the result is short enough; 0 to the 0 is 1. Raises CalculationError."""
    if base == 0 and exponent < 0:
        raise CalculationError("division by zero")
    if base in (0, 1) or exponent == 0:
        return Fraction(1 if exponent == 0 else int(base))
    is_whole = exponent == math.floor(exponent)
    if base < 0 and not is_whole:
        raise CalculationError("the result is not a real number")
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and is_whole:
        if base == -1:
            return Fraction(1 if exponent % 2 == 0 else -1)
        if num_bits(base) * abs(exponent) <= MAX_BITS:
            return bounded(Fraction(base ** int(exponent)))
    return _by_decimal(lambda: _WORKING.power(as_decimal(base), as_decimal(exponent)))


def square_root(number: Number) -> Number:
    """Exact for squares of fractions."""
    if number < 0:
        raise CalculationError("the result is not a real number")
    if isinstance(number, Fraction):
        root = Fraction(math.isqrt(number.numerator), math.isqrt(number.denominator))
        if root * root == number:
            return root
    return _by_decimal(lambda: _WORKING.sqrt(as_decimal(number)))


def exponential(number: Number) -> Number:
    return _by_decimal(lambda: _WORKING.exp(as_decimal(number)))


def logarithm(number: Number, base: Number | None = None) -> Number:
    """Natural without a base. Raises CalculationError where there is none."""
    if number <= 0 or (base is not None and (base <= 0 or base == 1)):
        raise CalculationError("the logarithm needs positive numbers, and a base other than 1")
    natural = _WORKING.ln(as_decimal(number))
    return _by_decimal(lambda: natural if base is None else _WORKING.divide(natural, _WORKING.ln(as_decimal(base))))


def _by_decimal(compute: Callable[[], decimal.Decimal]) -> float:
    try:
        found = compute()
    except (decimal.Overflow, decimal.Underflow):
        raise CalculationError("the result is too large or too close to zero") from None
    except decimal.DecimalException:
        raise CalculationError("the result is not a real number") from None
    result = float(found)
    if math.isinf(result):
        raise CalculationError(_TOO_LARGE)
    if result == 0 and found != 0:
        raise CalculationError(_TOO_SMALL)
    return result


def _in_range(compute: Callable[[], Number]) -> Number:
    """For mixed fractions and floats: a fraction beyond all floats cannot become one."""
    try:
        return compute()
    except OverflowError:
        raise CalculationError(_TOO_LARGE) from None


def _refuse_zero(divisor: Number) -> None:
    if divisor == 0:
        raise CalculationError("division by zero")
