"""Modelfiles: reading what people write, writing what reads back."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelfiles.errors import ModelfileError
from modelfiles.modelfile import MESSAGE_ROLES, ExampleTurn, Modelfile, parse, render
from modelfiles.parameters import NAMES, RANGES, Parameters

EXAMPLE = '''# A comment
from ./model.gguf

Parameter temperature 0.6
PARAMETER num_predict -1
PARAMETER stop "<|im_end|>"
PARAMETER stop   User:
PARAMETER think false
  SYSTEM """
You are an expert. # not a comment
Say "hello".
"""
TEMPLATE "{{ .Prompt }}
second line"
RENDERER gemma4
MESSAGE user Is Toronto in Canada?
MESSAGE assistant yes
LICENSE """first"""
LICENSE second
ADAPTER ./lora.gguf
'''

texts = st.one_of(
    st.text(alphabet=st.sampled_from('ab "#\n\r\t\\{}\u2028\u00e9\U0001f999'), max_size=12),
    st.text(st.characters(codec="utf-8"), max_size=30),
)


def values_of(name: str) -> st.SearchStrategy[float]:
    """Every value in a parameter's range."""
    allowed = RANGES[name]
    if allowed.kind is int:
        return st.integers(int(allowed.low), int(allowed.high)).filter(lambda value: value not in allowed.excluded)
    return st.floats(allowed.low, allowed.high).filter(lambda value: value not in allowed.excluded)


parameters = st.builds(
    Parameters,
    **{name: st.none() | values_of(name) for name in RANGES},
    think=st.sampled_from([None, False]),
    stop=st.lists(texts.filter(bool), max_size=3).map(tuple),
)
modelfiles = st.builds(
    Modelfile,
    source=texts.filter(bool),
    adapter=st.none() | texts,
    parameters=parameters,
    template=st.none() | texts,
    system=st.none() | texts,
    messages=st.lists(st.builds(ExampleTurn, st.sampled_from(MESSAGE_ROLES), texts), max_size=3).map(tuple),
    licenses=st.lists(texts, max_size=2).map(tuple),
    renderer=st.none() | texts,
    parser=st.none() | texts,
    requires=st.none() | texts,
)


def test_every_instruction_is_read() -> None:
    """Keywords in any case, comments, repeated stops, heredocs and multi-line quotes come out as values."""
    assert parse(EXAMPLE) == Modelfile(
        source="./model.gguf",
        adapter="./lora.gguf",
        parameters=Parameters(temperature=0.6, num_predict=-1, think=False, stop=("<|im_end|>", "User:")),
        template="{{ .Prompt }}\nsecond line",
        system='\nYou are an expert. # not a comment\nSay "hello".\n',
        messages=(ExampleTurn("user", "Is Toronto in Canada?"), ExampleTurn("assistant", "yes")),
        licenses=("first", "second"),
        renderer="gemma4",
    )


@given(modelfiles)
def test_parse_undoes_render(modelfile: Modelfile) -> None:
    """parse(render(m)) == m, unless a text holds the closing quotation at a line's end and render says so."""
    try:
        text = render(modelfile)
    except ModelfileError:
        assert '"' in repr(modelfile)
    else:
        assert parse(text) == modelfile


@given(st.text(alphabet=st.sampled_from('aF "#\n\r'), max_size=40))
def test_what_was_read_can_be_written(value: str) -> None:
    """Any text that parses renders to one that parses the same: quoting never fails on what came from a file."""
    try:
        modelfile = parse(f"FROM x\nSYSTEM {value}")
    except ModelfileError:
        return
    assert parse(render(modelfile)) == modelfile


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused_politely(text: str) -> None:
    """Whatever the text, the outcome is a Modelfile with a FROM, or a ModelfileError."""
    with contextlib.suppress(ModelfileError):
        assert parse(text).source


def test_a_text_no_quoting_can_carry_is_refused() -> None:
    """A line inside a text that ends with both kinds of closing quotation cannot be written."""
    with pytest.raises(ModelfileError, match="SYSTEM: this text cannot be quoted"):
        render(Modelfile(source="x", system='a """\nb'))


def test_rendering_for_ollama_leaves_think_out() -> None:
    """Ollama refuses `think` in a Modelfile, so only our own rendering has it."""
    modelfile = Modelfile(source="x", parameters=Parameters(think=False, temperature=0.6))

    assert "think" in render(modelfile)
    assert render(modelfile, for_ollama=True) == "FROM x\nPARAMETER temperature 0.6\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SYSTEM hi", "f: FROM is missing"),
        ("FROM x\nFORM y", "f, line 2: 'FORM' is not an instruction"),
        ("FROM x\nFROM y", "f, line 2: FROM was given in line 1 already"),
        ("FROM x\nSYSTEM", 'f, line 2: SYSTEM needs a value; an empty one is written ""'),
        ('FROM x\nSYSTEM """a\nb', "f, line 2: SYSTEM is never closed"),
        ('FROM x\nSYSTEM "a', "f, line 2: SYSTEM is never closed"),
        ("FROM x\nPARAMETER", "f, line 2: PARAMETER needs a name"),
        ("FROM x\nPARAMETER top_k", "f, line 2: PARAMETER top_k needs a value"),
        ("FROM x\nPARAMETER top_k 1.5", "f, line 2: PARAMETER top_k: '1.5' is not a value; a whole number"),
        ("FROM x\nPARAMETER top_k 1_0", "is not a value"),
        ("FROM x\nPARAMETER temperature 0.6 # low", "a comment needs a line of its own"),
        ("FROM x\nPARAMETER temperature nan", "is not a value"),
        ("FROM x\nPARAMETER temperature 1e999", "inf is out of range; a number from 0 to 2"),
        ("FROM x\nPARAMETER num_predict 0", "0 is out of range"),
        ("FROM x\nPARAMETER num_ctx 1\nPARAMETER num_ctx 2", "line 3: PARAMETER num_ctx was given in line 2"),
        ("FROM x\nPARAMETER think true", "line 2: PARAMETER think: specialists are served with thinking off"),
        ("FROM x\nPARAMETER think maybe", "'maybe' is not a value; write false"),
        ("FROM x\nPARAMETER num_keep 4", "has no effect here; delete the line"),
        ('FROM x\nPARAMETER stop ""', "would stop every answer"),
        ("FROM x\nMESSAGE tool hi", "line 2: MESSAGE needs a role"),
    ],
)
def test_errors_name_place_and_mend(text: str, message: str) -> None:
    """A mistake is reported with the file, the line, the field and what to write instead."""
    with pytest.raises(ModelfileError) as caught:
        parse(text, source="f")
    assert message in str(caught.value)


def test_an_unknown_parameter_lists_the_known_ones() -> None:
    """Somebody who mistypes a parameter sees what there is."""
    with pytest.raises(ModelfileError) as caught:
        parse("FROM x\nPARAMETER temprature 0.6")
    assert all(name in str(caught.value) for name in NAMES)
