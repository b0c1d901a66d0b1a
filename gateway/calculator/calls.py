"""What a call looks like in an answer, what the model is told about it, and what is written in reply.

A call is `<<3*4=` or `<<3*4>>`; the reply completes it to `<<3*4=12>>`, the form in which many models have met worked
arithmetic. What stands between the marks and is plainly no calculation is left as it was written.
"""

import re
from dataclasses import dataclass

from gateway.calculator.functions import CONSTANTS, FUNCTIONS
from gateway.calculator.result import Result, calculate
from specialists.request import CallMarks, Message

OPENING = "<<"
CLOSING = ">>"
EQUALS = "="
MAX_CHARACTERS = 240
CALL_MARKS = CallMarks(opening=OPENING, closings=(EQUALS, CLOSING), max_characters=MAX_CHARACTERS)

INSTRUCTIONS = """\
You have a calculator. Write every calculation between << and =, and the exact result appears at once, followed by >>. \
For example: The diagonal is <<sqrt(3^2+4^2)=5>>5 m.
Use numbers, + - * / ^ ( ), % and functions such as sqrt, ln, log10, exp, sin. Never work out a number yourself."""

# Small models follow an example where they do not follow instructions: in front of the conversation, as one more turn.

EXAMPLE = (
    Message(role="user", content="There are 12 boxes with 48 pens each. 9 pens are lost. How many are left?"),
    Message(
        role="assistant",
        content="The boxes hold 12*48 = <<12*48=576>>576 pens.\n"
        "After the loss there are 576-9 = <<576-9=567>>567 pens.\nThe answer is 567.",
    ),
)

_ALPHABET = re.compile(r"[\w\s.,+\-*/^%!()\[\]{}×·⋅∗÷⁄−–√π°$€£]+")
_WORDS = re.compile(r"[A-Za-zπ]+")
_LETTERS_ALONE = frozenset({*FUNCTIONS, *CONSTANTS, "x", "of"})


@dataclass(frozen=True, slots=True)
class Calculation:
    """A call and what it came to; both are as the model saw them."""

    expression: str
    result: Result


def open_call(text: str) -> str:
    """What stands between the last opening of `text` and its end."""
    return text[text.rindex(OPENING) + len(OPENING) :]


def is_calculation(inside: str) -> bool:
    """Whether something could be meant as arithmetic: its signs alone, and a digit or a name that we know."""
    if _ALPHABET.fullmatch(inside) is None:
        return False
    return any(character.isdigit() for character in inside) or any(
        word.lower() in _LETTERS_ALONE for word in _WORDS.findall(inside)
    )


def answer_to(inside: str) -> Calculation:
    return Calculation(inside.strip(), calculate(inside))


def reply_text(calculation: Calculation) -> str:
    """What follows the open call."""
    return f"{EQUALS}{calculation.result.text}{CLOSING}"
