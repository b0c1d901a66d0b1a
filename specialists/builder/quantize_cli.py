"""`coe quantize`: a smaller file of the same model, through llama.cpp's quantiser."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from specialists.builder.terminal import JsonOption, ended_cleanly, progress_console, report, usage_errors

if TYPE_CHECKING:
    from specialists.builder.quantize import QuantizeRecord


def quantize(
    model: Annotated[Path, typer.Argument(help="The GGUF to pack; of a split one the first part.")],
    out: Annotated[Path, typer.Option("--out", help="The GGUF to write; a report goes beside it.")],
    type_name: Annotated[str, typer.Option("--type", help="The file type, such as Q4_K_M or Q8_0.")] = "Q4_K_M",
    imatrix: Annotated[
        Path | None, typer.Option("--imatrix", help="An importance matrix, as llama-imatrix writes it.")
    ] = None,
    parent: Annotated[
        Path | None, typer.Option("--parent", help="The parent that the matrix was made for, if it was.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="The mask that the model was cut with, to cut the matrix alike.")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads (default: all).", min=1)] = None,
    requantize: Annotated[
        bool, typer.Option("--requantize", help="Accept a model that is packed already, at a further loss.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Pack a model's tensors into fewer bits with llama.cpp's quantiser."""
    from specialists.builder.quantize import QuantizeJob
    from specialists.builder.quantize import quantize as run

    job = QuantizeJob(
        source=model,
        out=out,
        type=type_name,
        imatrix=imatrix,
        parent=parent,
        mask=mask,
        threads=threads or os.cpu_count() or 1,
        may_requantize=requantize,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with usage_errors(), ended_cleanly():
        console = progress_console(hidden=as_json)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(type_name, total=None)
            record = run(
                job, on_tensor=lambda done, total, name: bar.update(task, completed=done, total=total, description=name)
            )
        report(record, as_json=as_json, table=_table(record, out))


def _table(record: "QuantizeRecord", out: Path) -> Table:
    table = Table(show_header=False, title=f"{escape(record.model.name)} ({record.type})")
    table.add_row("file", f"{escape(str(out))}, {record.model.num_bytes / 1e9:.3f} GB")
    table.add_row("from", f"{escape(record.source.name)}, {record.source.num_bytes / 1e9:.3f} GB")
    table.add_row("importance matrix", "none" if record.imatrix is None else f"sha256:{record.imatrix}")
    table.add_row("fingerprint", record.model.fingerprint)
    return table
