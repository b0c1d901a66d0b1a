"""`coe inspect`: a readable table of a GGUF, an expert mask or a profile."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from specialists.builder.terminal import IdsOption, JsonOption, report, usage_errors

if TYPE_CHECKING:
    from specialists.builder.inspection import GgufSummary, MaskSummary, ProfileSummary, Summary

ExpertsOption = Annotated[
    int | None, typer.Option("--experts", help="How many experts a layer has, for a plain map of ids.", min=1)
]


def inspect(
    file: Annotated[Path, typer.Argument(help="A .gguf (of a split model the first part), a mask or a profile.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor of a GGUF as well.")] = False,
    experts: ExpertsOption = None,
    ids: IdsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a GGUF, an expert mask or a profile holds."""
    from specialists.builder.inspection import inspect as look

    with usage_errors():
        summary = look(file, num_experts=experts, ids=ids)
        report(summary, as_json=as_json, table=_tables(summary, with_tensors=tensors))


def _tables(summary: "Summary", *, with_tensors: bool) -> Group:
    if summary.kind == "gguf":
        return Group(*_gguf(summary, with_tensors))  # type: ignore[arg-type]  # its kind says which it is
    return Group(*(_mask(summary) if summary.kind == "mask" else _profile(summary)))  # type: ignore[arg-type]


def _gguf(found: "GgufSummary", with_tensors: bool) -> Iterable[Table]:
    parts = f" in {found.parts} parts" if found.parts > 1 else ""
    facts = {
        "architecture": found.architecture,
        "size": f"{_size(found.num_bytes)}{parts}, tensors {_size(found.tensor_bytes)}",
        "format": f"GGUF {found.version}, aligned to {found.alignment} bytes",
        "fingerprint": found.fingerprint,
    }
    yield _pairs(found.name, {**facts, **_experts(found)})
    yield _pairs("Metadata", found.metadata)
    groups = ((each.name, str(each.num_tensors), _size(each.num_bytes), ", ".join(each.types)) for each in found.groups)
    yield _rows("Tensors by kind", ("kind", "tensors", "size", "types"), groups)
    if with_tensors:
        rows = (
            (each.name, " × ".join(map(str, each.shape)), each.type, _size(each.num_bytes)) for each in found.tensors
        )
        yield _rows("Tensors", ("name", "shape (fastest axis first)", "type", "size"), rows)


def _experts(found: "GgufSummary") -> Mapping[str, str]:
    experts = found.experts
    if experts is None:
        return {"experts": "none" if found.not_cut_because is None else f"cannot be cut: {found.not_cut_because}"}
    groups = f", in {experts.num_groups} groups" if experts.num_groups > 1 else ""
    each = ", ".join(f"{role} {num_bytes:,}" for role, num_bytes in experts.bytes_per_expert.items())
    return {
        "experts": f"{experts.num_experts}, {experts.num_used} used for each token{groups}",
        "MoE layers": f"{len(experts.layers)} (blocks {experts.layers[0]} to {experts.layers[-1]})",
        "all experts": _size(experts.expert_bytes),
        "bytes of one expert": each,
    }


def _mask(found: "MaskSummary") -> Iterable[Table]:
    low, high = min(map(len, found.kept.values())), max(map(len, found.kept.values()))
    facts = {
        "domain": found.domain or "not stated",
        "keeps": f"{low if low == high else f'{low} to {high}'} of {found.num_experts} experts in each of "
        f"{len(found.kept)} layers",
        "parent": found.parent or "not stated",
        "digest": found.digest,
        "swaps": str(found.num_swaps),
    }
    yield _pairs(found.name, {**facts, **{name: str(value) for name, value in found.metrics.items()}})
    rows = ((str(layer), str(len(ids)), " ".join(map(str, ids))) for layer, ids in found.kept.items())
    yield _rows("Kept experts", ("layer", "kept", "ids"), rows)


def _profile(found: "ProfileSummary") -> Iterable[Table]:
    facts = {
        "parent": found.parent,
        "shape": f"{len(found.layers)} MoE layers × {found.num_experts} experts, {found.num_used} used for each token",
        "contributions": "measured" if found.has_contributions else "not measured",
    }
    yield _pairs(found.name, facts)
    rows = (
        (name, f"{each['records']:,}", f"{each['tokens']:,}", each["corpus"]) for name, each in found.domains.items()
    )
    yield _rows("Domains", ("domain", "records", "tokens", "corpus"), rows)


def _pairs(title: str, pairs: Mapping[str, Any]) -> Table:
    table = Table(show_header=False, title=escape(title), title_justify="left")
    for name, value in pairs.items():
        table.add_row(escape(name), escape(str(value)))
    return table


def _rows(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def _size(num_bytes: int) -> str:
    """In the largest unit that leaves a number of one to four digits before the point."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.2f} {unit}"
    return f"{num_bytes} B"
