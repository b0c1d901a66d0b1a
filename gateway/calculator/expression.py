"""From the text of a calculation to its value: a tokenizer and a parser of our own, which compute as they read.

What people and models write is understood: `2(3+4)`, `3 x 4`, `2^10`, `15% of 80`, `1,234.5`, `$20`, `5!`, `√2`, `30°`.
A percent sign before a number or a bracket is the remainder of a division, elsewhere it divides by a hundred. Length,
depth, digits and work are bounded; whatever is wrong becomes a CalculationError.
"""

import math
import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from gateway.calculator.errors import CalculationError
from gateway.calculator.functions import CONSTANTS, FUNCTIONS, call, factorial
from gateway.calculator.values import (
    Effort,
    Number,
    add,
    bounded,
    divide,
    floor_divide,
    modulo,
    multiply,
    power,
    square_root,
    subtract,
)

MAX_CHARACTERS = 240
MAX_DEPTH = 40
MAX_EXPONENT = 400  # of a number as it is written

_TOKEN = re.compile(
    r"(?P<number>(?:\d+(?:_\d+)*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-zπ][A-Za-z0-9_]*)"
    r"|(?P<mark>\*\*|//|[-+*/^%!()\[\],°√])",
    re.ASCII,
)
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])", re.ASCII)
_SPELLINGS = str.maketrans("×·⋅∗÷⁄−–{}", "****//--()")
_CURRENCY = re.compile(r"[$€£]\s*(?=[\d.])")
_TIMES = re.compile(r"(?<=[\d)!%\]])\s*[xX]\s*(?=[\d.(])|\bof\b")


class Token(NamedTuple):
    """`kind` is number, name, mark or end."""

    kind: str
    text: str


_END = Token("end", "")


def evaluate(text: str) -> Number:
    """The value of `text`. Raises CalculationError, and nothing else."""
    if len(text) > MAX_CHARACTERS:
        raise CalculationError(f"the calculation is longer than {MAX_CHARACTERS} characters")
    return bounded(_Parser(tokens_of(text)).whole())


def tokens_of(text: str) -> list[Token]:
    """Raises CalculationError for a character that no calculation has."""
    text = _plain(text)
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        found = _TOKEN.match(text, position)
        if found is None:
            raise CalculationError(f"{text[position]!r} cannot be read")
        tokens.append(Token(found.lastgroup or "", found.group()))
        position = found.end()
    return tokens


def _plain(text: str) -> str:
    """With one spelling for each sign. Commas group digits except between the arguments of a function."""
    text = _CURRENCY.sub("", text.translate(_SPELLINGS))
    text = _TIMES.sub("*", text)
    if not any(f"{name}(" in text.replace(" ", "") for name in FUNCTIONS):
        text = _GROUPED.sub(lambda found: found.group().replace(",", ""), text)
    return text


@dataclass(slots=True)
class _Parser:
    """Recursive descent. `_depth` counts what is open, brackets and signs alike."""

    _tokens: list[Token]
    _position: int = 0
    _depth: int = 0
    _effort: Effort = field(default_factory=Effort)

    def whole(self) -> Number:
        if not self._tokens:
            raise CalculationError("there is nothing to calculate")
        value = self._sum()
        if self._next != _END:
            raise CalculationError(f"{self._next.text[:30]!r} is not expected there")
        return value

    def _sum(self) -> Number:
        value = self._product()
        while (sign := self._take("+", "-")) is not None:
            right = self._product()
            self._effort.spend(value, right)
            value = add(value, right) if sign == "+" else subtract(value, right)
        return value

    def _product(self) -> Number:
        value = self._signed()
        while True:
            sign = self._take("*", "/", "//", "%")
            if sign is None and not self._begins_factor():
                return value
            right = self._signed() if sign is not None else self._powered()
            self._effort.spend(value, right)
            value = _PRODUCTS[sign or "*"](value, right)

    def _begins_factor(self) -> bool:
        """Whether a factor follows without a sign, as in 2(3+4) or 2π; two numbers side by side are a mistake."""
        return self._next.kind == "name" or self._next.text in ("(", "[", "√")

    def _signed(self) -> Number:
        sign = self._take("+", "-")
        if sign is None:
            return self._powered()
        with self._deeper():
            value = self._signed()
        return -value if sign == "-" else value

    def _powered(self) -> Number:
        base = self._finished()
        if self._take("**", "^") is None:
            return base
        with self._deeper():
            exponent = self._signed()
        self._effort.spend(base, exponent)
        return power(base, exponent)

    def _finished(self) -> Number:
        """A value with what stands behind it: factorial, percent, degrees."""
        value = self._value()
        while True:
            if self._take("!") is not None:
                self._effort.spend(value)
                value = factorial(value)
            elif self._next.text == "%" and not self._is_remainder():
                self._position += 1
                value = divide(value, Fraction(100))
            elif self._take("°") is not None:
                value = multiply(value, math.pi / 180)
            else:
                return value

    def _is_remainder(self) -> bool:
        after = self._tokens[self._position + 1] if self._position + 1 < len(self._tokens) else _END
        return after.kind in ("number", "name") or after.text in ("(", "[", "√")

    def _value(self) -> Number:
        token = self._next
        if token == _END:
            raise CalculationError("something is missing at the end")
        self._position += 1
        if token.kind == "number":
            return _number(token.text)
        if token.kind == "name":
            return self._named(token.text)
        if token.text == "√":
            with self._deeper():
                return square_root(self._value())
        if token.text in ("(", "["):
            return self._bracketed(")" if token.text == "(" else "]")
        raise CalculationError(f"{token.text!r} is not expected there")

    def _bracketed(self, closing: str) -> Number:
        with self._deeper():
            value = self._sum()
        self._expect(closing)
        return value

    def _named(self, name: str) -> Number:
        lowered = name.lower()
        if self._next.text == "(" and lowered not in CONSTANTS:
            return self._called(lowered)
        if lowered in CONSTANTS:
            return CONSTANTS[lowered]
        if lowered in FUNCTIONS:
            raise CalculationError(f"{name} needs brackets: {name}(…)")
        raise CalculationError(f"{name[:30]} is unknown")

    def _called(self, name: str) -> Number:
        self._expect("(")
        arguments: list[Number] = []
        with self._deeper():
            while not arguments or self._take(",") is not None:
                arguments.append(self._sum())
        self._expect(")")
        self._effort.spend(*arguments)
        return call(name, arguments)

    # ── small parts ──────────────────────────────────────────────────────────

    @property
    def _next(self) -> Token:
        return self._tokens[self._position] if self._position < len(self._tokens) else _END

    def _take(self, *marks: str) -> str | None:
        token = self._next
        if token.kind != "mark" or token.text not in marks:
            return None
        self._position += 1
        return token.text

    def _expect(self, mark: str) -> None:
        if self._take(mark) is None:
            raise CalculationError(f"{mark!r} is missing")

    def _deeper(self) -> "_Deeper":
        return _Deeper(self)


class _Deeper:
    """One level further down while the context lasts."""

    def __init__(self, parser: _Parser) -> None:
        self._parser = parser

    def __enter__(self) -> None:
        self._parser._depth += 1
        if self._parser._depth > MAX_DEPTH:
            raise CalculationError("the calculation is nested too deep")

    def __exit__(self, *_: object) -> None:
        self._parser._depth -= 1


_PRODUCTS = {"*": multiply, "/": divide, "//": floor_divide, "%": modulo}


def _number(text: str) -> Fraction:
    digits, _, exponent = text.replace("_", "").lower().partition("e")
    if exponent and (len(exponent) > 5 or abs(int(exponent)) > MAX_EXPONENT):
        raise CalculationError(f"the exponent of {text[:30]} is too large")
    return Fraction(f"{digits.rstrip('.')}e{exponent or 0}")
