"""`coe verify`: whether a specialist's file is its parent cut by its mask, in its bytes and in what it computes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from specialists.builder.profile_cli import computing_errors
from specialists.builder.terminal import (
    IdsOption,
    JsonOption,
    MaskOption,
    ParentOption,
    bytes_progress,
    ended_cleanly,
    progress_console,
    report,
    usage_errors,
)

if TYPE_CHECKING:
    from specialists.builder.verify import Verification


def verify(
    parent: ParentOption,
    mask: MaskOption,
    specialist: Annotated[Path, typer.Option("--specialist", help="The GGUF that was cut from the parent.")],
    text: Annotated[
        list[str],
        typer.Option("--text", help="Text to compute, FILE or DOMAIN=FILE, better none that was profiled. Repeat it."),
    ],
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=2, help="Tokens to compute of each text.")] = 4096,
    context: Annotated[int, typer.Option("--context", min=2, help="Tokens computed at once.")] = 512,
    ids: IdsOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the order of records and the resamples.")] = 0,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads (default: one a core).")] = None,
    page: Annotated[
        bool, typer.Option("--report/--no-report", help="Write NAME.verify.report.html beside the specialist.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Prove a specialist: bytes, finite norms, logits equal to the masked parent's; and its perplexity.

    Ends with 0 only if the file is sound and its logits are proven equal.
    """
    from specialists.builder.corpus import parse_corpora
    from specialists.builder.structure import check_structure
    from specialists.builder.verify import VerifySettings
    from specialists.builder.verify import verify as compute
    from specialists.builder.verify_report import as_data, build_report
    from specialists.engine.llama.blocks import is_finite
    from specialists.expert_mask import read_mask
    from specialists.gguf_file import read_header
    from specialists.gguf_fingerprint import fingerprint
    from specialists.moe_layout import layout

    with usage_errors(), computing_errors(), ended_cleanly():
        moe = layout(read_header(parent))
        identity = fingerprint(moe.header)
        chosen = read_mask(mask, num_experts=moe.num_experts, ids=ids)
        chosen.check_fits(num_experts=moe.num_experts, layers=moe.blocks, parent=identity)
        corpora = parse_corpora([each if "=" in each else f"text={each}" for each in text])
        header = read_header(specialist)
        with bytes_progress("comparing bytes", header.tensor_bytes, hidden=as_json) as advance:
            structure = check_structure(moe, chosen.kept, header, is_finite=is_finite, on_bytes=advance)
        settings = VerifySettings(
            context_tokens=context,
            max_tokens=max_tokens,
            threads=threads or len(os.sched_getaffinity(0)),
            seed=seed,
        )
        with _tokens_progress(max_tokens * len(corpora), hidden=as_json) as advance:
            found = compute(moe, chosen.kept, header, structure, corpora, settings, on_tokens=advance)
        inputs = {"parent": identity, "mask": chosen.digest, "specialist": fingerprint(header)}
        if page:
            build_report(found, inputs, specialist.name).write(specialist.with_suffix(".verify.report.html"))
        report(as_data(found, inputs), as_json=as_json, table=_table(found, specialist))
    if not found.is_well:
        raise typer.Exit(1)


@contextmanager
def _tokens_progress(total: int, *, hidden: bool) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = progress_console(hidden=hidden)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("computing tokens", total=total)
        yield lambda count: bar.advance(task, count)


def _table(found: "Verification", specialist: Path) -> Table:
    from specialists.builder.verify_report import rows

    table = Table(title=f"{specialist.name}: {'proven' if found.is_well else 'NOT proven'}", show_header=False)
    for row in rows(found):
        table.add_row(*row)
    return table
