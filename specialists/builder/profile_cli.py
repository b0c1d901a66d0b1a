"""`coe profile`: which experts of a parent a corpus uses, and how much they say."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from specialists.builder.terminal import (
    JsonOption,
    ParentOption,
    ended_cleanly,
    progress_console,
    refuse,
    report,
    usage_errors,
)

if TYPE_CHECKING:
    from specialists.builder.profile_report import DomainSummary
    from specialists.builder.profile_run import ProfileProgress

_GROUP_TOKENS = 4096  # the state can be saved each time so many were computed


def profile(
    parent: ParentOption,
    corpus: Annotated[
        list[str],
        typer.Option("--corpus", help="DOMAIN=FILE: JSON lines of text or conversations, or plain text. Repeat it."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The profile to write, such as prof.npz.")],
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Stop a domain after so many tokens (default: all of it).")
    ] = None,
    context: Annotated[
        int, typer.Option("--context", help="Window in tokens; longer records are cut into several.")
    ] = 1024,
    batch: Annotated[int, typer.Option("--batch", help="Tokens computed at once.")] = 512,
    contributions: Annotated[
        bool, typer.Option("--contributions/--no-contributions", help="Also measure what the experts say: ‖w·f‖.")
    ] = True,
    generate: Annotated[
        int, typer.Option("--generate", help="Let the model answer first, in at most so many tokens; 0: never.")
    ] = 0,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, help="Of those answers; 0 takes the likeliest.")
    ] = 0.6,
    until_stable: Annotated[
        bool, typer.Option("--until-stable", help="Stop a domain once more text would hardly change the mask.")
    ] = False,
    keep: Annotated[
        int | None, typer.Option("--keep", help="K of the masks whose stability is judged (default: half, at most 64).")
    ] = None,
    signal: Annotated[
        Literal["weight", "count", "contribution"],
        typer.Option("--signal", help="What those masks are ranked by."),
    ] = "weight",
    jaccard: Annotated[
        float, typer.Option("--jaccard", help="Stable from this expected Jaccard index of two resamples' masks on.")
    ] = 0.95,
    increment: Annotated[
        int, typer.Option("--increment", min=1, help="Fewest tokens between two looks at the stability.")
    ] = 4096,
    replicates: Annotated[int, typer.Option("--replicates", help="Bootstrap resamples of the records.")] = 32,
    shuffle: Annotated[
        bool, typer.Option("--shuffle/--no-shuffle", help="Take records in a random order, the same for a seed.")
    ] = True,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the order, the resamples and the answers.")] = 0,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads (default: one a core).")] = None,
    gpu_layers: Annotated[int, typer.Option("--gpu-layers", help="Layers on the GPU; -1: as many as it takes.")] = -1,
    flush_seconds: Annotated[
        float, typer.Option("--flush-seconds", min=0, help="Save the state so often, for a run that is interrupted.")
    ] = 30.0,
    page: Annotated[
        bool, typer.Option("--report/--no-report", help="Write NAME.report.html beside the profile.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Run a corpus through a parent and sum up what its gates choose. Interrupted, the same command goes on."""
    from specialists.builder.corpus import parse_corpora
    from specialists.builder.histogram import ProfileError
    from specialists.builder.profile_report import build_report, default_keep, summarise
    from specialists.builder.profile_run import ProfileRun, ProfileSettings
    from specialists.builder.stability import StabilityRule
    from specialists.engine.llama import LlamaLog, Model
    from specialists.gguf_file import read_header
    from specialists.moe_layout import layout

    with usage_errors(), computing_errors(), ended_cleanly():
        moe = layout(read_header(parent))
        rule = StabilityRule(
            keep=default_keep(moe.num_experts) if keep is None else keep,
            signal=signal,
            jaccard=jaccard,
            increment_tokens=increment,
        )
        if signal == "contribution" and not contributions:
            raise ProfileError("signal: contribution is not measured with --no-contributions.")
        settings = ProfileSettings(
            context_tokens=context,
            batch_tokens=batch,
            group_tokens=min(increment, _GROUP_TOKENS) if until_stable else _GROUP_TOKENS,
            max_tokens=max_tokens,
            with_contributions=contributions,
            generate_tokens=generate,
            temperature=temperature,
            stability=rule if until_stable else None,
            replicates=replicates,
            shuffle=shuffle,
            seed=seed,
        )
        corpora = parse_corpora(corpus)
        run = ProfileRun(moe, corpora, out, settings, clock=time.monotonic, flush_seconds=flush_seconds)
        resumed = run.resume()
        started = time.monotonic()
        with (
            _bar(len(corpora), hidden=as_json) as show,
            closing(Model.load(parent, gpu_layers=gpu_layers, log=LlamaLog())) as model,
        ):
            made = run.run(model, threads=threads or len(os.sched_getaffinity(0)), on_progress=show)
        summaries = summarise(made, rule, until_stable=until_stable)
        if page:
            build_report(made, summaries, rule, parent.name).write_beside(out)
        data = {
            "profile": str(out),
            "parent": made.parent,
            "resumed": resumed,
            "seconds": time.monotonic() - started,
            "domains": summaries,
        }
        report(data, as_json=as_json, table=_table(out, summaries, rule.keep))


@contextmanager
def computing_errors() -> Iterator[None]:
    """What llama.cpp could not compute becomes one line and exit code 1."""
    from specialists.engine.llama import DecodeFailed, NoCacheRoom

    try:
        yield
    except (DecodeFailed, NoCacheRoom) as error:
        refuse(f"llama.cpp could not compute the text: {error or 'its cache is full'}; try a smaller --context", code=1)


@contextmanager
def _bar(num_domains: int, *, hidden: bool) -> Iterator[Callable[["ProfileProgress"], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[speed]}"))
    tokens: dict[str, int] = {}
    first: list[tuple[float, int]] = []  # when the first group was done, and how much was done before this run
    console = progress_console(hidden=hidden)
    shown = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)
    with shown as bar:
        task = bar.add_task("loading the parent", total=1000 * num_domains, speed="")

        def show(progress: "ProfileProgress") -> None:
            now, completed = time.monotonic(), int(1000 * (progress.domains_done + progress.share))
            tokens[progress.domain] = progress.tokens
            if not first:
                first.append((now, sum(tokens.values())))
                bar.reset(task, completed=completed)
            speed = (sum(tokens.values()) - first[0][1]) / max(now - first[0][0], 1e-9)
            bar.update(
                task,
                description=f"{progress.domain} ({progress.tokens:,} tokens)",
                completed=completed,
                speed=f"{speed:,.0f} tokens/s" if speed else "",
            )

        yield show


def _table(out: Path, summaries: Sequence["DomainSummary"], keep: int) -> Table:
    table = Table(title=f"{out}: Jaccard index of two resamples' masks of {keep} experts")
    for name in ("domain", "records", "tokens", "entropy, nats", "Jaccard index", "stable"):
        table.add_column(name, justify="left" if name == "domain" else "right")
    for each in summaries:
        state = each.state
        table.add_row(
            each.domain,
            f"{each.records:,}" + (f" ({each.skipped:,} refused)" if each.skipped else ""),
            f"{each.tokens:,}",
            f"{state.entropy:.3f} ({state.entropy_low:.3f} to {state.entropy_high:.3f})",
            f"{state.jaccard:.3f} ({state.jaccard_low:.3f} to {state.jaccard_high:.3f})",
            "" if each.settled is None else "yes" if each.settled else "not yet",
        )
    return table
