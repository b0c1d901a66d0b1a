"""`coe build`: from a parent and an expert mask to a specialist's file and its companions."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from specialists.builder.terminal import (
    IdsOption,
    JsonOption,
    MaskOption,
    ParentOption,
    bytes_progress,
    ended_cleanly,
    report,
    usage_errors,
)

if TYPE_CHECKING:
    from specialists.builder.record import BuildRecord

ModeOption = Annotated[
    Literal["slice", "zero"],
    typer.Option("--mode", help="slice leaves dropped experts out; zero keeps every shape and zeroes them."),
]


def build(
    parent: ParentOption,
    mask: MaskOption,
    out: Annotated[Path, typer.Option("--out", help="The GGUF to write; its companions go beside it.")],
    mode: ModeOption = "slice",
    tag: Annotated[str | None, typer.Option("--tag", help="Its name in a college (default: the file's).")] = None,
    ids: IdsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cut a specialist out of its parent: GGUF, Modelfiles, manifest, card and report."""
    from specialists.builder.companions import checked_tag
    from specialists.builder.surgery import Mode, perform, prepare

    with usage_errors(), ended_cleanly():
        name = checked_tag(tag, out)
        surgery = prepare(parent, mask, out, mode=Mode(mode), ids=ids)
        with bytes_progress(f"writing {out.name}", surgery.plan.num_bytes, hidden=as_json) as advance:
            record = perform(surgery, tag=name, written_at=_now(), on_bytes=advance)
        report(record, as_json=as_json, table=_table(record, out))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _table(record: "BuildRecord", out: Path) -> Table:
    experts = record.experts
    table = Table(show_header=False, title=f"{record.tag} ({record.mode})")
    table.add_row("file", f"{escape(str(out))}, {record.model.num_bytes / 1e9:.3f} GB")
    table.add_row("parent", f"{escape(record.parent.name)}, {record.parent.num_bytes / 1e9:.3f} GB")
    table.add_row(
        "experts", f"{experts.kept} of {experts.in_parent} kept, {experts.used} used, {experts.layers} layers"
    )
    table.add_row("mask", f"{escape(record.mask.name)}, {record.mask.digest[:19]}…, {record.mask.num_swaps} swaps")
    table.add_row("SHA-256", record.model.sha256 or "")
    table.add_row(
        "time", f"{record.seconds:.1f} s, {record.model.num_bytes / 1e9 / max(record.seconds, 1e-9):.2f} GB/s"
    )
    table.add_row(
        "beside it", f"{escape(out.stem)}.Modelfile, .ollama.Modelfile, .manifest.json, .card.md, .build.report.html"
    )
    return table
