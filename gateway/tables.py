"""How the commands show what they found: a table for people, plain data for machines; no decisions."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

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
            "kind": "embedding" if entry.makes_embeddings else "chat",
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
        domains = "(embeddings)" if entry.makes_embeddings else ", ".join(entry.domains)
        table.add_row(escape(name), domains, escape(entry.engine.model_path.name), size, status)
    return table


def served(listed: Sequence[dict[str, Any]]) -> Table:
    """What `/v1/models` of a gateway lists."""
    table = _table("model", "for", "owned by")
    for model in listed:
        kind = model["coe"].get("kind", "") if isinstance(model.get("coe"), dict) else ""
        table.add_row(*(escape(str(each)) for each in (model.get("id", ""), kind, model.get("owned_by", ""))))
    return table


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
