"""Writes docs/compatibility.md from the tables: `python -m tests.gateway.sdk_types.page`."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.gateway.sdk_types.answers import EVENTS, NULLS, OLLAMAS_OWN, OPENAIS_OWN
from tests.gateway.sdk_types.methods import NOT_OLLAMAS, NOT_OPENAIS
from tests.gateway.sdk_types.table import Call, Treatment
from tests.gateway.sdk_types.tables import OLLAMA, OPENAI

PAGE = Path(__file__).resolve().parents[3] / "docs" / "compatibility.md"
_FORM = re.compile(r"([^\[]+)\[([^\]]+)\](.*)")

INTRODUCTION = """\
# Compatibility with the two Python SDKs

What `openai` {openai} and `ollama` {ollama} can send, and what becomes of it here. This page is made from the tables in
`tests/gateway/sdk_types/` by `python -m tests.gateway.sdk_types.page`. The tests there read the fields out of the
SDKs, so none is missing, and send each through the SDK's own client to see that it is treated as the table says:

* **honoured**: it reaches the engine or shapes the answer, as far as the remark says;
* **accepted, without effect**: a 200, the same answer as without it;
* **refused by name**: a 400 that names the field. Nothing is computed.

In `messages[user].content[text].text` the brackets name one form of several, by its `role` or `type`; a path that ends
earlier stands for all that is under it. A field that an SDK does not have is ignored, but for those that
[api.md](api.md) and [ollama.md](ollama.md) name. Answers are read strictly: every field that an SDK's type has to have
is there, and each has its type.
"""


def page() -> str:
    """The whole page."""
    versions = {name: version(name) for name in ("openai", "ollama")}
    parts = [
        INTRODUCTION.format(**versions),
        "## OpenAI\n",
        *map(_call, OPENAI),
        "### Answers\n",
        "Fields that the SDK's types do not have:\n",
        _facts(OPENAIS_OWN),
        "Null where the SDK's types know none:\n",
        _facts(NULLS),
        "Events of a streamed response: " + _listed(EVENTS) + ".\n",
        "### Not here\n",
        "A 404, or a 405 where the path has another use: " + _listed(NOT_OPENAIS) + ".\n",
        "## Ollama\n",
        *map(_call, OLLAMA),
        "### Answers\n",
        "Fields that the SDK's types do not have:\n",
        _facts(OLLAMAS_OWN),
        "### Not here\n",
        "A 404: " + _listed(NOT_OLLAMAS) + ". `web_search` and `web_fetch` ask ollama.com, whoever the host is.\n",
    ]
    return "\n".join(parts)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _facts(facts: Mapping[str, str]) -> str:
    return _table(("field", "what it is"), ((f"`{name}`", text) for name, text in facts.items()))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _call(call: Call) -> str:
    title = f"### `{call.name}`: `{call.route}`\n"
    if not call.rows:
        return f"{title}\nNo fields.\n"
    return f"{title}\n" + _table(("here", "fields", "remark"), _lines(call))


def _lines(call: Call) -> Iterator[Sequence[str]]:
    """What is treated alike, for the same reason, in one line."""
    for treatment in Treatment:
        alike: dict[str, list[str]] = {}
        for row in call.rows:
            if row.treatment is treatment:
                alike.setdefault(row.note, []).append(row.path)
        for note, paths in alike.items():
            yield str(treatment), _listed(_joined(paths)), note


def _joined(paths: Sequence[str]) -> Iterator[str]:
    """Paths that differ in their first form alone are one."""
    forms: dict[tuple[str, str], list[str]] = {}
    for path in paths:
        found = _FORM.fullmatch(path)
        before, form, after = found.groups() if found else (path, "", "")
        forms.setdefault((before, after), []).append(form)
    for (before, after), names in forms.items():
        yield f"{before}[{', '.join(names)}]{after}" if names != [""] else before


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
