"""`coe family`: whether model files can share a frame, and what a morph from one to another would move."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from specialists.builder.terminal import JsonOption, bytes_progress, refuse, report, usage_errors

if TYPE_CHECKING:
    from specialists.kinship import Kinship
    from specialists.moe_layout import MoeLayout
    from specialists.tensor_digests import DigestTable


def family(
    files: Annotated[list[Path], typer.Argument(help="Two or more GGUF files of mixture-of-experts models.")],
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep each file's digests beside it; a college then morphs between them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say whether files were cut from one parent, and how many bytes a morph would move. Exits with 0 when all were."""
    from specialists.kinship import kinship

    if len(files) < 2:
        refuse("two or more files are needed, to compare them")
    with usage_errors():
        found = kinship([_digested(path, keep=keep, hidden=as_json) for path in files])
        report(found, as_json=as_json, table=_table(found))
    raise typer.Exit(0 if all(each.reason is None for each in found) else 1)


def _digested(path: Path, *, keep: bool, hidden: bool) -> "tuple[MoeLayout, DigestTable]":
    """The file's table, from beside it or made anew."""
    from specialists.gguf_file import read_header
    from specialists.moe_layout import layout
    from specialists.tensor_digests import digest_tensors, read_table, write_table

    found = layout(read_header(path))
    table = read_table(found.header)
    if table is None:
        with bytes_progress(f"reading {path.name}", found.header.tensor_bytes, hidden=hidden) as advance:
            table = digest_tensors(found, on_bytes=advance)
    if keep:
        write_table(table, path)
    return found, table


def _table(found: "list[Kinship]") -> Table:
    table = Table("from", "to", "one family", "experts that differ", "bytes of a morph")
    for each in found:
        answer = "yes" if each.reason is None else f"no: {each.reason}"
        experts = f"{each.num_differing} of {each.num_experts}" if each.reason is None else ""
        table.add_row(each.source, each.target, answer, experts, f"{each.num_bytes / 1e6:,.1f} MB" if experts else "")
    return table
