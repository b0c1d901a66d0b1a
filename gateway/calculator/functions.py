"""The names that an expression may use: constants, and functions of numbers, each with how many arguments it takes.

Angles are in radians. Trigonometry and its kin are those of `math`, on floats; roots, powers, exponentials and
logarithms are more precise (`values`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from gateway.calculator.errors import CalculationError
from gateway.calculator.values import (
    MAX_BITS,
    Number,
    add,
    as_float,
    as_integer,
    bounded,
    divide,
    exponential,
    logarithm,
    modulo,
    multiply,
    power,
    square_root,
)

MAX_PLACES = 100
_LARGEST_FACTORIAL = 500  # 3,768 bits

CONSTANTS: dict[str, Number] = {"pi": math.pi, "π": math.pi, "e": math.e, "tau": math.tau, "phi": (1 + 5**0.5) / 2}


@dataclass(frozen=True, slots=True)
class Function:
    """`most` None: any number of arguments."""

    compute: Callable[..., Number]
    least: int = 1
    most: int | None = 1


def call(name: str, arguments: Sequence[Number]) -> Number:
    """Raises CalculationError for an unknown name, a wrong count or arguments outside the domain."""
    function = FUNCTIONS.get(name)
    if function is None:
        raise CalculationError(f"there is no function {name[:30]}")
    if len(arguments) < function.least or (function.most is not None and len(arguments) > function.most):
        raise CalculationError(f"{name} takes {_count(function)}, not {len(arguments)}")
    return bounded(function.compute(*arguments))


def _count(function: Function) -> str:
    if function.most is None:
        return f"{function.least} or more arguments"
    if function.least != function.most:
        return f"{function.least} or {function.most} arguments"
    return f"{function.least} argument" + "s" * (function.least != 1)


def _of_floats(name: str, compute: Callable[..., float]) -> Callable[..., Number]:
    """A function of `math`, with its errors in our words."""

    def on_floats(*arguments: Number) -> Number:
        try:
            return compute(*map(as_float, arguments))
        except ValueError:
            raise CalculationError(f"{name} is not defined there") from None
        except OverflowError:
            raise CalculationError("the result is too large") from None

    return on_floats


def _snapped(compute: Callable[[float], float]) -> Callable[[float], float]:
    """What only the rounding of π keeps from zero is zero."""

    def snap(angle: float) -> float:
        found = compute(angle)
        return 0.0 if abs(found) < 4e-16 * max(1.0, abs(angle)) else found

    return snap


def _tangent(angle: float) -> float:
    if _snapped(math.cos)(angle) == 0:
        raise ValueError
    return _snapped(math.tan)(angle)


def factorial(number: Number) -> Number:
    n = as_integer(number, "a factorial")
    if n < 0:
        raise CalculationError("a factorial needs a number that is not negative")
    if n > _LARGEST_FACTORIAL:
        raise CalculationError(f"the result is too large: factorials go up to {_LARGEST_FACTORIAL}")
    return Fraction(math.factorial(n))


def _combinations(n: Number, k: Number) -> Number:
    return Fraction(math.comb(*_counted("comb", n, k, symmetric=True)))


def _permutations(n: Number, k: Number) -> Number:
    return Fraction(math.perm(*_counted("perm", n, k, symmetric=False)))


def _counted(name: str, n: Number, k: Number, *, symmetric: bool) -> tuple[int, int]:
    """Both as integers, if the result is short enough to be counted out."""
    of, taken = as_integer(n, name), as_integer(k, name)
    if of < 0 or taken < 0:
        raise CalculationError(f"{name} needs numbers that are not negative")
    factors = min(taken, of - taken) if symmetric else taken
    if taken <= of and factors * of.bit_length() > MAX_BITS:
        raise CalculationError("the result is too large")
    return of, taken


def rounded(number: Number, places: Number = Fraction(0)) -> Number:
    """Halves go away from zero, as in school."""
    n = as_integer(places, "round")
    if abs(n) > MAX_PLACES:
        raise CalculationError(f"round goes to {MAX_PLACES} places at most")
    unit = Fraction(10) ** -n
    scaled = abs(Fraction(str(number)) if isinstance(number, float) else number) / unit
    found = math.floor(scaled + Fraction(1, 2)) * unit
    return -found if number < 0 else found


def _root(number: Number, degree: Number) -> Number:
    """Odd roots of negative numbers are negative."""
    n = as_integer(degree, "root")
    if n == 0:
        raise CalculationError("there is no root of degree 0")
    if number < 0 and n % 2:
        return -_root(-number, degree)
    found = power(number, divide(Fraction(1), Fraction(n)))
    nearest = Fraction(round(found)) if -1e15 < found < 1e15 else Fraction(0)
    if isinstance(number, Fraction) and 0 < n <= 64 and nearest != 0 and power(nearest, Fraction(n)) == number:
        return nearest
    return found


def _whole(numbers: Sequence[Number], name: str) -> list[int]:
    return [as_integer(number, name) for number in numbers]


def _sum(*numbers: Number) -> Number:
    total: Number = Fraction(0)
    for number in numbers:
        total = add(total, number)
    return total


def _mean(*numbers: Number) -> Number:
    return divide(_sum(*numbers), Fraction(len(numbers)))


def _median(*numbers: Number) -> Number:
    ordered = sorted(numbers)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else _mean(ordered[middle - 1], ordered[middle])


def _hypotenuse(*legs: Number) -> Number:
    return square_root(_sum(*(multiply(leg, leg) for leg in legs)))


def _log10(number: Number) -> Number:
    return logarithm(number, Fraction(10))


_MATH = {
    "sin": _snapped(math.sin), "cos": _snapped(math.cos), "tan": _tangent,
    "asin": math.asin, "acos": math.acos, "atan": math.atan, "arcsin": math.asin, "arccos": math.acos,
    "arctan": math.atan, "sinh": math.sinh, "cosh": math.cosh, "tanh": math.tanh, "asinh": math.asinh,
    "acosh": math.acosh, "atanh": math.atanh, "degrees": math.degrees, "radians": math.radians, "erf": math.erf,
    "gamma": math.gamma,
}  # fmt: skip

FUNCTIONS: dict[str, Function] = {
    **{name: Function(_of_floats(name, compute)) for name, compute in _MATH.items()},
    "atan2": Function(_of_floats("atan2", math.atan2), 2, 2),
    "sqrt": Function(square_root),
    "cbrt": Function(lambda number: _root(number, Fraction(3))),
    "root": Function(_root, 2, 2),
    "pow": Function(power, 2, 2),
    "exp": Function(exponential),
    "ln": Function(logarithm),
    "log": Function(lambda number, base=Fraction(10): logarithm(number, base), 1, 2),
    "log2": Function(lambda number: logarithm(number, Fraction(2))),
    "log10": Function(_log10),
    "abs": Function(abs),
    "sign": Function(lambda number: Fraction((number > 0) - (number < 0))),
    "floor": Function(lambda number: Fraction(math.floor(number))),
    "ceil": Function(lambda number: Fraction(math.ceil(number))),
    "trunc": Function(lambda number: Fraction(math.trunc(number))),
    "round": Function(rounded, 1, 2),
    "factorial": Function(factorial),
    "comb": Function(_combinations, 2, 2),
    "perm": Function(_permutations, 2, 2),
    "mod": Function(modulo, 2, 2),
    "gcd": Function(lambda *numbers: Fraction(math.gcd(*_whole(numbers, "gcd"))), 1, None),
    "lcm": Function(lambda *numbers: Fraction(math.lcm(*_whole(numbers, "lcm"))), 1, None),
    "hypot": Function(_hypotenuse, 1, None),
    "min": Function(lambda *numbers: min(numbers), 1, None),
    "max": Function(lambda *numbers: max(numbers), 1, None),
    "sum": Function(_sum, 1, None),
    "mean": Function(_mean, 1, None),
    "median": Function(_median, 1, None),
}
