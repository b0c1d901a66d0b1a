"""How the commands show what they found: a table for people, plain data for machines; no decisions."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gateway.college import College
from gateway.doctor import Finding, Status
from specialists.pool.budget import format_bytes

_COLOUR = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}


def to_json(data: Any) -> str:
    return json.dumps(data, indent=2, default=asdict)


def model_rows(college: College) -> list[dict[str, Any]]:
    return [
        {
            "tag": entry.tag,
            "default": entry.tag == college.default,
            "domains": list(entry.domains),
            "file": str(entry.engine.model_path),
            "size_bytes": entry.size_bytes,
            "context_tokens": entry.engine.context_tokens,
            "available": entry.unavailable is None,
            "unavailable": entry.unavailable,
            "notes": list(entry.notes),
        }
        for entry in college.entries
    ]


def models(college: College) -> Table:
    table = _table("specialist", "domains", "weights", ">size", "status", title=str(college.path))
    for entry in college.entries:
        name = f"{entry.tag} (default)" if entry.tag == college.default else entry.tag
        size = "" if entry.size_bytes is None else format_bytes(entry.size_bytes)
        status = "[green]ready to load[/]" if entry.unavailable is None else f"[red]{escape(entry.unavailable)}[/]"
        status += "".join(f"[yellow]; {escape(note)}[/]" for note in entry.notes)
        table.add_row(escape(name), ", ".join(entry.domains), escape(entry.engine.model_path.name), size, status)
    return table


def served(listed: Sequence[dict[str, Any]]) -> Table:
    """What `/v1/models` of a gateway lists."""
    table = _table("model", "owned by")
    for model in listed:
        table.add_row(escape(str(model.get("id", ""))), escape(str(model.get("owned_by", ""))))
    return table


def plan_object(college: College) -> dict[str, Any]:
    engines = [
        {
            "file": str(spec.model_path),
            "context_tokens": spec.context_tokens,
            "parallel": spec.parallel,
            "specialists": [entry.tag for entry in sharing],
            "unavailable": sharing[0].unavailable,
            "footprint_bytes": sharing[0].footprint.total_bytes if sharing[0].footprint else None,
            "footprint": asdict(sharing[0].footprint) if sharing[0].footprint else None,
            "fits": college.fits(sharing[0]),
        }
        for spec, sharing in college.engines().items()
    ]
    return {"college": str(college.path), "budget_bytes": college.budget_bytes, "engines": engines}


def plan(college: College) -> Group:
    """One paragraph for each engine: its sum, whether it fits, and whom it serves."""
    paragraphs = [Text(_plan_title(college))]
    for spec, sharing in college.engines().items():
        first = sharing[0]
        heading = f"\n{spec.model_path.name}, {spec.context_tokens} tokens × {spec.parallel} conversations"
        paragraphs.append(Text(heading, style="bold"))
        if first.footprint is None:
            paragraphs.append(Text(f"  {first.unavailable}", style="red"))
        else:
            fits, style = ("fits", "green") if college.fits(first) else ("can never be loaded", "red")
            paragraphs.append(Text.assemble(f"  {first.footprint.explain()}: ", (fits, style)))
        paragraphs.append(Text(f"  serves {', '.join(entry.tag for entry in sharing)}"))
    return Group(*paragraphs)


def _plan_title(college: College) -> str:
    known = [sharing[0].footprint.total_bytes for sharing in college.engines().values() if sharing[0].footprint]
    budget = f"{college.path}: budget {format_bytes(college.budget_bytes)}"
    if len(known) < 2:
        return budget
    together = "fit at once" if sum(known) <= college.budget_bytes else "do not fit at once, so they take turns"
    return f"{budget}; all {len(known)} engines need {format_bytes(sum(known))} and {together}"


def findings(found: Sequence[Finding]) -> Table:
    table = _table("", "what", "found", "mend")
    for finding in found:
        status = f"[{_COLOUR[finding.status]}]{finding.status}[/]"
        table.add_row(status, escape(finding.name), escape(finding.detail), escape(finding.mend))
    return table


def _table(*columns: str, title: str | None = None) -> Table:
    """Columns whose name begins with > are aligned to the right. The first is never broken over lines."""
    table = Table(
        title=escape(title) if title else None, title_justify="left", title_style="", box=None, pad_edge=False
    )
    for column in columns:
        table.add_column(
            column.removeprefix(">"),
            justify="right" if column.startswith(">") else "left",
            overflow="fold",
            no_wrap=column == columns[0],
        )
    return table
