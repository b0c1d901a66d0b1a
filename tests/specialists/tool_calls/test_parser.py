"""Calls are found in a model's words in every family's way of writing them, however the words arrive."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.tool_calls.bodies import CallArguments, CallBegun
from specialists.tool_calls.formats import FORMATS, GENERIC, format_named, format_of
from specialists.tool_calls.parser import Said, Text, ToolCallParser

TOOLS = {"weather": {"city": "string", "days": "integer"}, "now": {}}
Heard = tuple[str, list[tuple[str, str]]]


def heard(form: str, pieces: Sequence[str], *, max_calls: int = 128) -> Heard:
    """The text and the calls (name, arguments) of an answer that came in these pieces."""
    parser = ToolCallParser(format_named(form), TOOLS, max_calls=max_calls)
    text, calls = "", list[tuple[str, str]]()
    said: list[Said] = [each for piece in pieces for each in parser.push(piece)] + parser.finish()
    for each in said:
        match each:
            case Text(more):
                text += more
            case CallBegun(call, name):
                assert call == len(calls)
                calls.append((name, ""))
            case CallArguments(call, more):
                assert call == len(calls) - 1
                calls[call] = (calls[call][0], calls[call][1] + more)
    return text, calls


def tagged(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


ANSWERS: list[tuple[str, str, Heard]] = [
    ("generic", "Hello", ("Hello", [])),
    ("generic", tagged("weather", '{"city": "Oslo"}'), ("", [("weather", '{"city": "Oslo"}')])),
    ("generic", "Let me see.\n\n" + tagged("now", "{}"), ("Let me see.", [("now", "{}")])),
    (
        "tagged",
        tagged("now", "{}") + "\n" + tagged("weather", '{"city":"a}b\\"<"}') + "\n",
        ("", [("now", "{}"), ("weather", '{"city":"a}b\\"<"}')]),
    ),
    ("tagged", '<tool_call>{"arguments": {"city": "x"}, "name": "weather"}', ("", [("weather", '{"city": "x"}')])),
    ("tagged", '<tool_call>{"name": "now"}</tool_call> Done.', ("Done.", [("now", "{}")])),
    ("tagged", '<tool_call>{"name": "now", "arguments": null}</tool_call>', ("", [("now", "{}")])),
    ("tagged", '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', ("", [("f", '{"a": 1}')])),
    ("tagged", '<tool_call>{"name": "f", "id": [1, {"x": "]"}], "arguments": {}}</tool_call>', ("", [("f", "{}")])),
    # a brace too few, and none of it is lost; a call that breaks off keeps what it had
    ("tagged", '<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>.', (".", [("f", '{"a": 1}')])),
    ("tagged", '<tool_call>{"name": "f", "arguments": {"a": 1', ("", [("f", '{"a": 1')])),
    # markers that begin no call are text
    ("tagged", "Write <tool_call> to call.", ("Write <tool_call> to call.", [])),
    ("tagged", "<tool_call>" * 20, ("<tool_call>" * 20, [])),
    ("tagged", '<tool_call>{"x": 1}</tool_call>', ('<tool_call>{"x": 1}</tool_call>', [])),
    ("tagged", "a <tool_call>{" + tagged("now", "{}"), ("a <tool_call>{", [("now", "{}")])),
    ("tagged", "a <tool_cal", ("a <tool_cal", [])),
    ("tagged", "a < b \n", ("a < b \n", [])),
    (
        "tagged",
        "<tool_call>\n<function=weather>\n<parameter=city>\n5\n</parameter>\n<parameter=days>\n5\n</parameter>\n"
        "</function>\n</tool_call>",
        ("", [("weather", '{"city": "5", "days": 5}')]),
    ),
    ("tagged", "<tool_call><function=f>\n</function></tool_call>", ("", [("f", "{}")])),
    (
        "tagged",
        "<tool_call><function=f><parameter=a>{\"x\": [1]}</parameter><parameter=b>two\nlines</parameter></tool_call>!",
        ("!", [("f", '{"a": {"x": [1]}, "b": "two\\nlines"}')]),
    ),
    ("tagged", "<tool_call><b>bold</b>", ("<tool_call><b>bold</b>", [])),
    (
        "gemma",
        '<|tool_call>call:weather{city:<|"|>Paris "x"\n<b><|"|>,days:3,deep:{a:[1,-2.5,true,null],b:{}}}<tool_call|>',
        ("", [("weather", '{"city":"Paris \\"x\\"\\n<b>","days":3,"deep":{"a":[1,-2.5,true,null],"b":{}}}')]),
    ),
    (
        "gemma",
        "So:\n<|tool_call>call:now{}<tool_call|><|tool_call>call:f{a:plain word}<tool_call|>",
        ("So:", [("now", "{}"), ("f", '{"a":"plain word"}')]),
    ),
    ("gemma", '<|tool_call>call:f{"a": "b<c", "d": 1}<tool_call|>', ("", [("f", '{"a":"b<c","d":1}')])),
    ("gemma", "<|tool_call>hello<tool_call|>", ("<|tool_call>hello<tool_call|>", [])),
    ("llama", '{"name": "weather", "parameters": {"city": "Rome"}}', ("", [("weather", '{"city": "Rome"}')])),
    ("llama", ' <|python_tag|>{"name": "now", "parameters": {}}', ("", [("now", "{}")])),
    ("llama", '{"name": "Bob", "parameters": {"age": 5}} is', ('{"name": "Bob", "parameters": {"age": 5}} is', [])),
    ("llama", ' The object {"name": "now"}', (' The object {"name": "now"}', [])),
    ("llama", '{"answer": 1}', ('{"answer": 1}', [])),
    ("llama", "<|python_tag|>print(1)", ("<|python_tag|>print(1)", [])),
]  # fmt: skip


@pytest.mark.parametrize(("form", "answer", "expected"), ANSWERS)
def test_calls_and_text_are_told_apart(form: str, answer: str, expected: Heard) -> None:
    """Each family's calls are found with name and arguments, and everything else stays text."""
    assert heard(form, [answer]) == expected


@pytest.mark.parametrize(("form", "answer", "expected"), ANSWERS)
def test_one_character_at_a_time_gives_the_same(form: str, answer: str, expected: Heard) -> None:
    """The finest cut there is."""
    assert heard(form, list(answer)) == expected


FRAGMENTS = st.sampled_from(
    [
        "<tool_call>", "</tool_call>", "<|tool_call>", "<tool_call|>", '<|"|>', "<|python_tag|>", "<function=f>",
        "</function>", "<parameter=a>", "</parameter>", "call:f{", '{"name": "now"', '"arguments": {', '{"name": "f", ',
        '"', "\\", "{", "}", "[", "]", ":", ",", "<", "a", "1", " ", "\n", "null", "é", '"parameters": ',
    ]
)  # fmt: skip
WILD = st.lists(FRAGMENTS, max_size=14).map("".join) | st.sampled_from([answer for _, answer, _ in ANSWERS])


@given(form=st.sampled_from([form.name for form in (GENERIC, *FORMATS)]), answer=WILD, data=st.data())
def test_no_cut_changes_what_is_heard(form: str, answer: str, data: st.DataObject) -> None:
    """Any text, cut anywhere, gives the joined text and calls of the whole."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=6)))
    pieces = [answer[start:end] for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    assert heard(form, pieces) == heard(form, [answer])
    assert heard(form, pieces, max_calls=1) == heard(form, [answer], max_calls=1)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=3), st.booleans())
def test_arguments_pass_through_as_they_were_written(arguments: dict[str, object], is_ascii: bool) -> None:
    """The JSON between the markers arrives to the character."""
    text = json.dumps(arguments, ensure_ascii=is_ascii)
    assert heard("generic", list(tagged("f", text))) == ("", [("f", text)])


def gemma(value: object) -> str:
    """A value as Gemma's template writes it."""
    match value:
        case str():
            return f'<|"|>{value}<|"|>'
        case dict():
            return "{" + ",".join(f"{key}:{gemma(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ",".join(map(gemma, value)) + "]"
        case _:
            return json.dumps(value)


PLAIN_KEYS = st.text("abcxyz_", min_size=1, max_size=5)
PLAIN_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text().filter(lambda text: '<|"|>' not in text + "<|"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN_KEYS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(PLAIN_KEYS, PLAIN_VALUES, max_size=3))
def test_what_gemma_writes_becomes_the_json_it_means(arguments: dict[str, object]) -> None:
    """Strings without escapes, bare keys, nesting: the same value comes out."""
    text, calls = heard("gemma", list(f"<|tool_call>call:f{gemma(arguments)}<tool_call|>"))
    assert text == ""
    assert [(name, json.loads(said)) for name, said in calls] == [("f", arguments)]


def test_arguments_leave_before_the_call_is_complete() -> None:
    """A long argument is told as it comes, not at its end."""
    parser = ToolCallParser(GENERIC, TOOLS, max_calls=128)
    parser.push('<tool_call>{"name": "weather", "arguments": {"city": "')
    assert parser.push("Os") == [CallArguments(0, "Os")]


@pytest.mark.parametrize(
    ("template", "reads_tools", "name"),
    [
        ("{% if tools %}<|tool_call>call:{{ x }}<tool_call|>{% endif %}", True, "gemma"),
        ("{% if tools %}<tool_call>{% endif %}", True, "tagged"),
        ('{% if tools %}<|start_header_id|> "parameters"{% endif %}', True, "llama"),
        ("{% if tools %}[TOOL_CALLS]{% endif %}", True, "generic"),
        ("<tool_call>", False, "generic"),
    ],
)
def test_the_template_tells_the_family(template: str, reads_tools: bool, name: str) -> None:
    """By its marks, if it does anything with tools at all; an unknown family gets the generic format."""
    assert format_of(template, reads_tools=reads_tools).name == name
