"""Pages of a kept response's input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.openai.responses.paging import page_of
from specialists.errors import RequestRejected


def items(num: int) -> list[dict[str, str]]:
    return [{"id": f"i{n}"} for n in range(num)]


@given(num=st.integers(0, 40), limit=st.integers(1, 12), order=st.sampled_from(["asc", "desc"]))
def test_pages_one_after_the_other_are_the_whole_list(num: int, limit: int, order: str) -> None:
    """As the SDKs walk: while there is more, go on after the last id."""
    found: list[str] = []
    page = page_of(items(num), {"order": order, "limit": str(limit)})
    found += [item["id"] for item in page["data"]]
    while page["has_more"]:
        page = page_of(items(num), {"order": order, "limit": str(limit), "after": page["last_id"]})
        assert 1 <= len(page["data"]) <= limit
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        found += [item["id"] for item in page["data"]]

    expected = [item["id"] for item in items(num)]
    assert found == (expected if order == "asc" else expected[::-1])


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"order": "up"}, "order"),
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "٣"}, "limit"),
        ({"limit": ""}, "limit"),
        ({"after": "i9"}, "after"),
    ],
)
def test_a_query_that_means_nothing_is_refused_by_name(asked: dict[str, str], param: str) -> None:
    """Rather than answered with a page that nobody asked for."""
    with pytest.raises(RequestRejected) as caught:
        page_of(items(3), asked)
    assert caught.value.param == param
