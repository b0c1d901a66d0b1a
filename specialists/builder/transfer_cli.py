"""`coe transfer`: how alike specialists are, what they are worth on each other's domains, and the table of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from specialists.builder.terminal import JsonOption, file_digest, report, usage_errors

if TYPE_CHECKING:
    from specialists.builder.transfer_study import Evidence, Study
    from specialists.expert_mask import ExpertMask


def transfer(
    mask: Annotated[
        list[str] | None, typer.Option("--mask", help="NAME=FILE of each specialist's mask; a domain or tag as name.")
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option("--measured", help="CSV of specialist,target,record,num,right,loss; the parent among them."),
    ] = None,
    profile: Annotated[
        Path | None, typer.Option("--profile", help="The profile behind the masks, for Agg-cos of utilities.")
    ] = None,
    utility: Annotated[str, typer.Option("--utility", help="Which of the profile's utilities that takes.")] = "weight",
    parent: Annotated[
        Path | None, typer.Option("--parent", help="The parent GGUF, for Agg-cos of the experts' weights.")
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option("--corpus", help="DOMAIN=FILE for each mask; near and far are told by these texts' words."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Where to write the table for the supervisor; its report goes beside it.")
    ] = Path("transfer.json"),
    resamples: Annotated[
        int, typer.Option("--resamples", min=100, max=100_000, help="For intervals and tests.")
    ] = 2000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of those.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare masks pair by pair, and with measurements study what their likeness foretells."""
    import numpy as np

    from specialists.bounded_json import write_text
    from specialists.builder.json_text import to_json
    from specialists.builder.transfer_report import transfer_report, transfer_table
    from specialists.builder.transfer_study import run_study

    with usage_errors():
        masks, inputs = _read_masks(mask or ())
        evidence = _evidence(masks, inputs, measured, profile, utility, parent, corpus or ())
        study = run_study(masks, evidence, rng=np.random.default_rng(seed), resamples=resamples)
        if measured is not None:
            said = [f"{name}: {value}" for name, value in inputs.items()]
            said.append(
                f"sigma: paired bootstrap of {resamples} resamples over records, seed {seed}, parent's error included"
            )
            write_text(out, to_json(transfer_table(study, said)) + "\n")
        paths = transfer_report(study, inputs, resamples=resamples).write_beside(out)
        report(_summary(study, out if measured else None, paths.html), as_json=as_json, table=_table(study, paths.html))


def _read_masks(given: "tuple[str, ...] | list[str]") -> "tuple[dict[str, ExpertMask], dict[str, str]]":
    from specialists.builder.transfer import TransferError
    from specialists.expert_mask import read_mask

    masks: dict[str, ExpertMask] = {}
    inputs: dict[str, str] = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not (name and equals and path) or name in masks:
            raise TransferError(
                f"mask: {each[:80]!r}: NAME=FILE is expected, each name once, such as math=math.mask.json."
            )
        masks[name] = read_mask(Path(path))
        inputs[f"mask of {name}"] = masks[name].digest
    return masks, inputs


def _evidence(
    masks: "dict[str, ExpertMask]",
    inputs: dict[str, str],
    measured: Path | None,
    profile: Path | None,
    utility: str,
    parent: Path | None,
    corpora: "tuple[str, ...] | list[str]",
) -> "Evidence":
    """Reads what was given and notes the digests of it in `inputs`."""
    import numpy as np

    from specialists.builder.measurements import read_measurements
    from specialists.builder.transfer_study import Evidence
    from specialists.builder.weight_grams import down_projection_grams
    from specialists.engine.llama.blocks import numbers

    for name, path in (("measured", measured), ("profile", profile)):
        if path is not None and path.is_file():
            inputs[name] = f"{path.name}, {file_digest(path)}"
    return Evidence(
        measured=None if measured is None else read_measurements(measured),
        utilities=None if profile is None else _utilities(profile, utility, masks),
        grams=None if parent is None else np.stack(list(down_projection_grams(parent, numbers))),
        similarity=_similarity(corpora, masks, inputs) if corpora else None,
    )


def _utilities(path: Path, name: str, masks: "dict[str, ExpertMask]") -> dict[str, Any]:
    """Of the domains that a mask is named after, or was made for."""
    from specialists.builder.histogram import ProfileError, read_profile
    from specialists.builder.transfer import TransferError
    from specialists.builder.utility import utility

    try:
        profile = read_profile(path)
    except ProfileError as error:
        raise TransferError(str(error)) from error
    found = {}
    for key, mask in masks.items():
        domain = key if key in profile.domains else mask.domain
        if domain in profile.domains:
            found[key] = utility(name, profile.domains[domain]).values
    return found


def _similarity(given: "tuple[str, ...] | list[str]", masks: "dict[str, ExpertMask]", inputs: dict[str, str]) -> Any:
    from specialists.builder.corpus import Chat, parse_corpora
    from specialists.builder.domain_similarity import similarity
    from specialists.builder.transfer import TransferError

    corpora = {each.domain: each for each in parse_corpora(given)}
    if {*corpora} != {*masks}:
        odd = sorted({*corpora} ^ {*masks})
        raise TransferError(
            f"corpus: one for each mask, named alike, is expected; {', '.join(odd)} has no counterpart."
        )
    inputs |= {f"corpus of {name}": each.digest for name, each in corpora.items()}

    def texts(name: str) -> Any:
        for index in range(len(corpora[name])):
            record = corpora[name].read(index)
            yield (
                "\n".join([*(m.content for m in record.messages), record.answer])
                if isinstance(record, Chat)
                else record.text
            )

    return similarity({name: texts(name) for name in masks})


def _summary(study: "Study", out: Path | None, page: Path) -> dict[str, Any]:
    return {
        "out": None if out is None else str(out),
        "report": str(page),
        "names": study.names,
        "num_common": study.num_common,
        "pairs": [_plain_pair(pair) for pair in study.pairs],
        "predictors": study.predictors,
        "near_far": study.near_far,
        "home_other": study.home_other,
        "composite": study.composite,
    }


def _plain_pair(pair: Any) -> dict[str, Any]:
    ratios = {name: None if (found := getattr(pair, name)) is None else found._asdict() for name in ("y", "y_loss")}
    plain = ("visitor", "target", "arm", "f_score", "jaccard", "agg_cos", "weight_cos", "similarity", "num", "accuracy")
    return {name: getattr(pair, name) for name in plain} | ratios


def _table(study: "Study", page: Path) -> Table:
    from specialists.builder.report import shown
    from specialists.builder.transfer_report import study_figures

    table = Table(show_header=False, title="transfer")
    overlaps = sorted(study.visiting, key=lambda pair: -pair.f_score)
    table.add_row("pairs", f"{len(study.visiting)} visiting, {study.num_common} expert slots common to all masks")
    for name, pair in (("most alike", overlaps[0]), ("least alike", overlaps[-1])):
        table.add_row(name, f"{pair.visitor} and {pair.target}, F-score {pair.f_score:.3f}")
    for figure in study_figures(study, 0) if study.predictors or study.near_far else ():
        interval = "" if figure.low is None else f" ({shown(figure.low)} to {shown(figure.high)})"
        table.add_row(figure.name, f"{shown(figure.value)}{interval}")
    table.add_row("report", str(page))
    return table
