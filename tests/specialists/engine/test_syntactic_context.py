"""What form a text has, at a glance."""

import pytest

from specialists.engine.syntactic_context import Context, context_of, has_words, is_rule


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The moon has no air, and so there is no wind. That is why footprints stay.", Context.PROSE),
        ('"No," she said, "I will not." And she did not.', Context.PROSE),
        ("Turn, little wheel,\nturn and turn again,\nover the meadow\nand back through the rain.\n", Context.VERSE),
        ("The lamp is on.\nThe lamp is off.\nNobody looks.\nThe task is done.\n", Context.PROSE),
        ("1. Use a lamp.\n2. Use a rope.\n3. Use both of them together.\n", Context.LIST),
        ("- bread\n- butter and a knife\n* cheese\n", Context.LIST),
        ("| case | result |\n|---|---|\n| a | pass |\n", Context.TABLE),
        ("id,name,town\n1,Ada,Graz,x\n2,Bela,Kiel,y\n", Context.TABLE),
        ("2026-03-01 12:00:01 INFO ready\n2026-03-01 12:00:02 INFO done\n", Context.TABLE),
        ("    for item in items:\n        print(item)\n", Context.CODE),
        ("np.random.quantile(np.random.quantile(", Context.CODE),
        ("<p>\nThis is fake content.\n</p>\n<p>\n", Context.CODE),
        (">>> say(1)\nTraceback (most recent call last):\nValueError: not to be said here\n", Context.CODE),
        ("class Lamp(Light):\n  @property\n  def colour(self):\n  return the_colour\n", Context.CODE),
        ('{\n"name": "Ada",\n"age": 30\n},\n', Context.JSON),
        ('"Saudi Arabia",\n"Saudi Arabia",\n', Context.JSON),
        ("As follows:\n```python\nx = f(x)\nx = f(x)\n```\n", Context.CODE),
        ("", Context.PROSE),
    ],
)
def test_forms_are_told_apart(text: str, expected: Context) -> None:
    """One example for each rule of thumb."""
    assert context_of(text) is expected


def test_inside_a_fence_everything_is_code_or_a_literal() -> None:
    """Prose in a fence repeats as code may, and values without any statement as JSON may."""
    assert context_of("say hello\nsay hello\n", is_fenced=True) is Context.CODE
    assert context_of("0.0, 0.0, 0.0,\n0.0, 0.0,", is_fenced=True) is Context.JSON
    assert (
        context_of(
            "x = 1\n```\nThat is all there is to say, and I hope that it will help you to go on.", is_fenced=True
        )
        is Context.PROSE
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("and therefore ", True),
        (" la", True),
        ("A to Z\n\n", True),
        ("你好", True),
        ("привет", True),
        ("0.0, ", False),
        ("0xff, 0x00, ", False),
        ("de ad be ef 00 ", False),
        ("&#x25FC;", False),
        ("\\u00e9\\x00", False),
        ("None, null, N/A, NaN", False),
        ("-----|", False),
        ("│ ░░ │", False),
        ("ÿÿÿÿÿÿÿ", False),
        ("哈哈哈哈哈哈", False),
        ("�", False),
        ("iVBORw0KGgoAAAANSUhEUgAAADAAAAAwBAMAAAClLOS0", False),
        ("", False),
    ],
)
def test_filler_is_told_from_words(text: str, expected: bool) -> None:
    """What says nothing may go on longer; what says something in any language may not."""
    assert has_words(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("|---|---|\n", True),
        ("| :--- | ---: |", True),
        ("=====", True),
        ("─────\n", True),
        ("|    |    |\n", False),
        ("0, 0, ", False),
        ("--- a", False),
        ("", False),
    ],
)
def test_rules_are_told_from_tables_that_are_empty(text: str, expected: bool) -> None:
    """A line that is drawn has an end sooner than cells that wait to be filled in."""
    assert is_rule(text) is expected
