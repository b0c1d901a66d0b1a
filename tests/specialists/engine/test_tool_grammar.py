"""Enforced calls: whatever is drawn under the grammar is a call whose arguments match the function's schema."""

import json

import numpy as np
import pytest

from specialists.engine.llama import Model
from specialists.engine.structured import SchemaCompiler, SchemaMatcher
from specialists.engine.tool_grammar import MAX_CALLS, is_enforced, num_calls, tool_grammar
from specialists.errors import InvalidSchema
from specialists.request import Tool, ToolChoice, ToolUse
from specialists.tool_calls.bodies import CallArguments, CallBegun
from specialists.tool_calls.formats import FORMATS, GENERIC, ToolFormat, format_named
from specialists.tool_calls.parser import Text, ToolCallParser

PARAMETERS = {
    "type": "object",
    "properties": {"unit": {"enum": ["C", "°F"]}, "days": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["unit"],
}
WEATHER = Tool("weather", "", json.dumps(PARAMETERS))
NOW = Tool("now", "", '{"type": "object", "properties": {}}')
REQUIRED = ToolUse(tools=(WEATHER, NOW), choice=ToolChoice.REQUIRED)
ALL_FORMATS = pytest.mark.parametrize("form", [GENERIC, *FORMATS], ids=lambda form: form.name)


def matcher(model: Model, grammar: str) -> SchemaMatcher:
    return SchemaCompiler(model.vocabulary).compile_calls(grammar)


def drawn(model: Model, grammar: str, seed: int) -> str:
    """An answer drawn at random among what the grammar allows."""
    state, rng = matcher(model, grammar), np.random.default_rng(seed)
    answer = state.start()
    while not state.is_finished:
        logits = rng.standard_normal(model.vocabulary.size).astype(np.float32)
        state.mask(logits)
        token = int(logits.argmax())
        answer += [token, *state.accept(token)]
    return b"".join(model.vocabulary.piece(token) for token in answer).decode()


def calls_in(form: ToolFormat, answer: str) -> tuple[str, list[tuple[str, str]]]:
    parser = ToolCallParser(form, {"weather": {}, "now": {}}, max_calls=128)
    text, calls = "", list[tuple[str, str]]()
    for said in parser.push(answer) + parser.finish():
        match said:
            case Text(more):
                text += more
            case CallBegun(_, name):
                calls.append((name, ""))
            case CallArguments(_, more):
                calls[-1] = (calls[-1][0], calls[-1][1] + more)
    return text, calls


@ALL_FORMATS
def test_a_required_call_is_the_whole_answer_and_its_arguments_match(model: Model, form: ToolFormat) -> None:
    """In every family's format, for any draw: known functions, matching arguments, no property made up, no text."""
    grammar = tool_grammar(REQUIRED, form, model.vocabulary.markup)
    seen = set()
    for seed in range(12):
        text, calls = calls_in(form, drawn(model, grammar, seed))
        assert text == ""
        assert 1 <= len(calls) <= num_calls(REQUIRED, form)
        for name, arguments in calls:
            values = json.loads(arguments)
            seen.add(name)
            if name == "weather":
                assert values["unit"] in ("C", "°F")
                assert set(values) <= {"unit", "days"}
                assert 0 <= values.get("days", 0) <= 9
            else:
                assert values == {}
    assert seen == {"weather", "now"}


def follow(model: Model, grammar: str, text: str) -> bool:
    """Whether an answer may be exactly this text."""
    state, tokens = matcher(model, grammar), model.vocabulary.tokenize(text)
    for place, token in enumerate(tokens):
        state.rewind(tokens[:place])
        logits = np.zeros(model.vocabulary.size, dtype=np.float32)
        state.mask(logits)
        if not np.isfinite(logits[token]):
            return False
    state.rewind(tokens)
    return state.may_end


@pytest.mark.parametrize(
    ("answer", "is_allowed"),
    [
        ("Just text.", True),
        ("", True),
        ('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', True),
        ('First.\n<tool_call>\n{"name": "weather", "arguments": {"unit": "C"}}\n</tool_call>', True),
        ('<tool_call>\n{"name": "weather", "arguments": {"unit": "K"}}\n</tool_call>', False),
        ('<tool_call>\n{"name": "nobody", "arguments": {}}\n</tool_call>', False),
        ("<tool_call> is a tag", False),
        ('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call> And text.', False),
    ],
)
def test_where_the_model_may_choose_text_is_free_and_calls_are_sound(
    model: Model, answer: str, is_allowed: bool
) -> None:
    """From the opening mark on a call is enforced; before it nothing is."""
    grammar = tool_grammar(ToolUse(tools=(WEATHER, NOW)), GENERIC, {})
    assert follow(model, grammar, answer) is is_allowed


def test_text_with_a_schema_is_that_schema_or_a_call(model: Model) -> None:
    """A response format holds for the text, and leaves the calls as they are."""
    grammar = tool_grammar(ToolUse(tools=(NOW,)), GENERIC, {}, answer_schema='{"enum": ["yes", "no"]}')
    assert follow(model, grammar, '"yes"')
    assert follow(model, grammar, '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>')
    assert not follow(model, grammar, "yes")


@ALL_FORMATS
def test_parallel_calls_are_bounded(form: ToolFormat) -> None:
    """One where the client or the format wants one, else several; a format the model does not know holds one."""
    use = {wish: ToolUse(tools=(NOW,), parallel=wish) for wish in (None, True, False)}
    several = MAX_CALLS if form.takes_several else 1
    assert num_calls(use[False], form) == 1
    assert num_calls(use[True], form) == several
    assert num_calls(use[None], form) == (several if form.reads_tools else 1)


def test_only_what_needs_a_grammar_gets_one() -> None:
    """A trained format with lax functions is left to the model."""
    trained = format_named("gemma")
    strict = Tool("f", "", "{}", strict=True)
    assert not is_enforced(ToolUse(tools=(NOW,)), trained)
    assert is_enforced(ToolUse(tools=(NOW, strict)), trained)
    assert is_enforced(ToolUse(tools=(NOW,)), GENERIC)
    assert is_enforced(REQUIRED, trained)


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        ({"properties": {"a": {"type": "integer"}}, "required": ["b"]}, '{"b": 1}'),
        ({"properties": {"a": {"type": "integer"}}, "additionalProperties": True}, '{"z": 1}'),
        ({"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}}, '{"a": 4}'),
        ({"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {}}}]}, '{"a": 1}'),
        ({}, '{"x": [1]}'),
    ],
)  # fmt: skip
def test_closing_a_schema_never_empties_it(model: Model, schema: dict[str, object], example: str) -> None:
    """Objects are held to their listed properties only where that leaves something to say."""
    use = ToolUse(tools=(Tool("f", "", json.dumps(schema)),), choice=ToolChoice.REQUIRED)
    answer = f'<tool_call>\n{{"name": "f", "arguments": {example}}}\n</tool_call>'
    assert follow(model, tool_grammar(use, GENERIC, {}), answer)


def test_a_schema_that_cannot_be_enforced_is_refused_by_its_field(model: Model) -> None:
    """Too deep, or beyond what grammars can say."""
    deep: object = {"type": "string"}
    for _ in range(40):
        deep = {"items": deep}
    with pytest.raises(InvalidSchema, match=r"'f'.*levels deep") as caught:
        tool_grammar(ToolUse(tools=(Tool("f", "", json.dumps(deep)),)), GENERIC, {})
    assert caught.value.param == "tools"
    hard = Tool("f", "", '{"properties": {"a": {"type": "string", "pattern": "(unclosed"}}}')
    with pytest.raises(InvalidSchema) as caught:
        matcher(model, tool_grammar(ToolUse(tools=(hard,)), GENERIC, {}))
    assert caught.value.param == "tools"
    matcher(model, tool_grammar(ToolUse(tools=(hard,)), GENERIC, {}, is_lenient=True))
