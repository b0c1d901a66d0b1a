"""A number as text for a model to read on: exact where that is short, else rounded to twelve significant digits."""

import decimal
from dataclasses import dataclass
from fractions import Fraction

from gateway.calculator.errors import CalculationError
from gateway.calculator.expression import evaluate
from gateway.calculator.values import Number, as_decimal

SIGNIFICANT_DIGITS = 12
MAX_EXACT_CHARACTERS = 40
_PLAIN_EXPONENTS = range(-7, 16)  # of the first digit; beyond them numbers are written with an exponent
_SHOWN = decimal.Context(prec=SIGNIFICANT_DIGITS, rounding=decimal.ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class Result:
    """What a calculation came to. `is_exact`: `text` is the value itself; `is_error`: `text` says why there is none."""

    text: str
    is_exact: bool = False
    is_error: bool = False


def calculate(text: str) -> Result:
    """The result of a calculation, or why there is none. Raises nothing."""
    try:
        return shown(evaluate(text))
    except CalculationError as error:
        return Result(f"error: {error}", is_error=True)


def shown(number: Number) -> Result:
    if isinstance(number, Fraction) and (exact := _exact(number)) is not None:
        return Result(exact, is_exact=True)
    return Result(_rounded(number))


def _exact(number: Fraction) -> str | None:
    """All digits, if there are few; None where the decimals do not end or the text would be long."""
    places = _decimal_places(number.denominator)
    if places is None:
        return None
    whole = abs(number.numerator) * 10**places // number.denominator
    digits = str(whole).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{text}" * (number < 0) or text if len(text) <= MAX_EXACT_CHARACTERS else None


def _decimal_places(denominator: int) -> int | None:
    """How many decimals a fraction with this denominator has; None if they never end, or are too many."""
    places = 0
    while denominator % 10 == 0:
        denominator, places = denominator // 10, places + 1
    prime = 2 if denominator % 2 == 0 else 5
    while denominator % prime == 0:
        denominator, places = denominator // prime, places + 1
    return places if denominator == 1 and places <= MAX_EXACT_CHARACTERS else None


def _rounded(number: Number) -> str:
    found = _SHOWN.plus(as_decimal(number)).normalize(_SHOWN)
    if found == 0:
        return "0"
    if found.adjusted() in _PLAIN_EXPONENTS:
        return format(found, "f")
    mantissa, _, exponent = format(found, "e").partition("e")
    return f"{mantissa}e{int(exponent)}"
