"""One page of a list, as OpenAI's clients ask for it: `order`, `limit`, and the id that it comes after."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from specialists.errors import RequestRejected

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100


def page_of(items: Sequence[Mapping[str, Any]], asked: Mapping[str, str]) -> dict[str, Any]:
    """`items` in the order in which they were said, each with an `id`; `asked` the query. Raises RequestRejected."""
    listed = list(items) if _order(asked.get("order", "desc")) == "asc" else list(reversed(items))
    if (after := asked.get("after")) is not None:
        ids = [item["id"] for item in listed]
        if after not in ids:
            raise RequestRejected(f"There is no item {after[:64]!r} in this list.", param="after")
        listed = listed[ids.index(after) + 1 :]
    limit = _limit(asked.get("limit", str(DEFAULT_LIMIT)))
    page, ends = listed[:limit], ("", "")
    if page:
        ends = page[0]["id"], page[-1]["id"]
    has_more = len(listed) > len(page)
    return {"object": "list", "data": page, "first_id": ends[0], "last_id": ends[1], "has_more": has_more}


def _order(value: str) -> str:
    if value not in ("asc", "desc"):
        raise RequestRejected(f"order is {value[:64]!r}; it can be asc or desc.", param="order")
    return value


def _limit(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 9 and 1 <= int(value) <= MAX_LIMIT):
        raise RequestRejected(f"limit is {value[:64]!r}; it can be 1 to {MAX_LIMIT}.", param="limit")
    return int(value)
