"""`calculator` and `knowledge` in college.toml: off by default, and what is wrong is named."""

from typing import Any

import pytest

from specialists.college_file import KnowledgeTable, check_college
from specialists.errors import CatalogueError


def entry(**fields: Any) -> Any:
    tables = {
        "college": {"name": "c", "default": "a:q4"},
        "specialist": [{"tag": "a:q4", "modelfile": "math", **fields}],
    }
    return check_college(tables, source="college.toml").specialist[0]


def test_both_are_off_unless_switched_on() -> None:
    """`true` stands for a table with the defaults."""
    assert (entry().calculator, entry().knowledge) == (False, None)
    assert (entry(calculator=True).calculator, entry(knowledge=False).knowledge) == (True, None)
    assert entry(knowledge=True).knowledge == KnowledgeTable()
    assert entry(knowledge={"passages": 2}).knowledge == KnowledgeTable(passages=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"calculator": "yes"}, "calculator"),
        ({"knowledge": "docs"}, "knowledge: true or false is expected"),
        ({"knowledge": {"passage": 2}}, "did you mean 'passages'"),
        ({"knowledge": {"tokens": 1}}, "knowledge.tokens"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], message: str) -> None:
    """With the entry and the key."""
    with pytest.raises(CatalogueError, match=message) as caught:
        entry(**fields)
    assert "number 1 (a:q4)" in str(caught.value)
