"""Properties of `supervisor.examples`."""

import json
from pathlib import Path

import pytest

from supervisor.domains import DOMAINS
from supervisor.errors import InvalidExamples
from supervisor.examples import Example, own_examples, read_examples, split_by_source


def test_a_domain_may_be_one_name_or_several(tmp_path: Path) -> None:
    """Both forms of `domain` are read, and lists keep their order."""
    file = tmp_path / "x.jsonl"
    rows = [{"text": "a", "domain": "law"}, {"text": "b", "domain": ["cs", "coding"], "source": "s"}]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    assert [example.domains for example in read_examples(file)] == [("law",), ("cs", "coding")]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "x.jsonl:2: not JSON"),
        ('{"text": " ", "domain": "law"}', "`text`"),
        ('{"text": "a", "domain": []}', "`domain`"),
        ("[]", "`text`"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    """The message says which line and which field is wrong."""
    file = tmp_path / "x.jsonl"
    file.write_text('{"text": "fine", "domain": "law"}\n' + line)
    with pytest.raises(InvalidExamples, match=complaint):
        read_examples(file)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    """No example at all is a mistake, not a model."""
    file = tmp_path / "x.jsonl"
    file.write_text("\n")
    with pytest.raises(InvalidExamples, match="no example"):
        read_examples(file)


def test_our_own_questions_cover_every_domain_once_each() -> None:
    """Every domain has its chat questions, and no question is there twice."""
    own = own_examples()
    assert {example.domain for example in own} == set(DOMAINS)
    assert len({example.text for example in own}) == len(own)


def test_the_split_takes_its_share_of_every_source_and_loses_nothing() -> None:
    """Held out and kept are disjoint, together everything, and each (domain, source) gives the same share."""
    examples = [Example(f"{domain} {n}", (domain,), "s") for domain in ("law", "math") for n in range(40)]
    kept, held_out = split_by_source(examples, 0.25, seed=1)
    assert sorted(example.text for example in (*kept, *held_out)) == sorted(example.text for example in examples)
    assert [sum(example.domain == domain for example in held_out) for domain in ("law", "math")] == [10, 10]
    assert split_by_source(list(reversed(examples)), 0.25, seed=1) == (kept, held_out)
