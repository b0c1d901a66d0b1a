"""`coe mask`: from a profile, or from a mask in another format, to an expert mask and its report."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from specialists.builder.terminal import IdsOption, JsonOption, file_digest, report, usage_errors

if TYPE_CHECKING:
    from specialists.builder.mask_recipe import Made, Recipe
    from specialists.expert_mask import ExpertMask, Ids


def mask(
    out: Annotated[Path, typer.Option("--out", help="The mask file to write, such as math.mask.json.")],
    profile: Annotated[Path | None, typer.Option("--profile", help="What `coe profile` wrote.")] = None,
    domain: Annotated[
        list[str] | None, typer.Option("--domain", help="A domain of the profile, or NAME=WEIGHT; may be repeated.")
    ] = None,
    keep: Annotated[int | None, typer.Option("--keep", help="How many experts each layer keeps.")] = None,
    retain: Annotated[
        float | None,
        typer.Option("--retain", help="Instead: the fewest experts that hold this share in every layer, such as 0.99."),
    ] = None,
    utility: Annotated[
        str,
        typer.Option(
            "--utility",
            help="weight, frequency, rank-weighted, contribution, reap, wnorm-count; or a mixture such as "
            "0.7*contribution+0.3*frequency.",
        ),
    ] = "weight",
    aggregate: Annotated[
        str, typer.Option("--aggregate", help="Of several domains: max, mean, geomean, sum or pooled.")
    ] = "max",
    signal: Annotated[
        str,
        typer.Option("--signal", help="What retention is measured in (default: contribution if profiled, or weight)."),
    ] = "",
    whitelist: Annotated[
        bool, typer.Option("--whitelist/--no-whitelist", help="Keep experts that the gate puts first when they fire.")
    ] = False,
    whitelist_rank: Annotated[float, typer.Option("--whitelist-rank", help="Mean rank below which it does.")] = 2.0,
    whitelist_activations: Annotated[
        int, typer.Option("--whitelist-activations", help="Fewest activations for that to count.")
    ] = 10,
    reasoning: Annotated[
        str, typer.Option("--reasoning", help="A domain of reasoning traces whose experts may replace the weakest.")
    ] = "",
    reasoning_cap: Annotated[
        int, typer.Option("--reasoning-cap", help="Most swaps per layer (documents: 3 or 6).")
    ] = 3,
    protect_top: Annotated[int, typer.Option("--protect-top", help="Keep the best so many by --protect-by.")] = 0,
    protect_by: Annotated[
        str, typer.Option("--protect-by", help="A utility other than --utility; by the same one nothing changes.")
    ] = "",
    protect_extreme: Annotated[
        float,
        typer.Option("--protect-extreme", help="Keep experts whose outputs exceed their layer's median so many times."),
    ] = 0.0,
    source: Annotated[
        Path | None, typer.Option("--from", help="Instead of a profile: a mask or drop map to convert.")
    ] = None,
    ids: IdsOption = None,
    experts: Annotated[
        int | None,
        typer.Option("--experts", help="How many experts the parent has, where a plain map does not say it."),
    ] = None,
    page: Annotated[bool, typer.Option("--report/--no-report", help="Write NAME.report.html beside the mask.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Choose which experts a specialist keeps, and say how much of the domain they cover."""
    from specialists.builder.mask_recipe import Recipe, RecipeError

    with usage_errors():
        if source is not None:
            if profile is not None or domain:
                raise RecipeError("from: converts a mask as it is; leave --profile and --domain out.")
            _convert(source, out, ids=ids, experts=experts, as_json=as_json)
            return
        if profile is None:
            raise RecipeError("profile: name what `coe profile` wrote (--profile prof.npz).")
        recipe = Recipe(
            domains=tuple(parse_domain(each) for each in domain or ()),
            keep=keep,
            retain=retain,
            utility=utility,
            aggregation=aggregate,
            signal=signal,
            whitelist=whitelist,
            whitelist_rank=whitelist_rank,
            whitelist_activations=whitelist_activations,
            protect_top=protect_top,
            protect_by=protect_by,
            protect_extreme=protect_extreme,
            reasoning=reasoning,
            reasoning_cap=reasoning_cap,
        )
        made = _make(profile, recipe, out, page=page)
        report(_summary(made, out), as_json=as_json, table=_table(made, out))


def parse_domain(text: str) -> tuple[str, float]:
    """NAME or NAME=WEIGHT. Raises RecipeError."""
    from specialists.builder.mask_recipe import RecipeError

    name, _, weight = text.partition("=")
    try:
        return name, float(weight or 1)
    except ValueError:
        raise RecipeError(f"domain: {text[:60]!r} must be NAME or NAME=WEIGHT with a number.") from None


def _make(path: Path, recipe: "Recipe", out: Path, *, page: bool) -> "Made":
    from specialists.builder.errors import BuilderError
    from specialists.builder.histogram import ProfileError, read_profile
    from specialists.builder.mask_recipe import make_mask
    from specialists.builder.mask_report import mask_report
    from specialists.expert_mask import write_mask

    try:
        profile = read_profile(path)
        digest = file_digest(path)
        made = make_mask(
            profile, recipe, provenance={"made_by": "coe mask", "profile": path.name, "profile_digest": digest}
        )
    except ProfileError as error:
        raise BuilderError(str(error)) from error
    write_mask(made.mask, out)
    if page:
        inputs = {"profile": f"{path.name}, {digest}", "parent": profile.parent, "mask": made.mask.digest}
        inputs |= {f"corpus of {name}": profile.domain(name).corpus for name, _ in recipe.domains}
        mask_report(profile, recipe, made, inputs).write_beside(out)
    return made


def _convert(source: Path, out: Path, *, ids: "Ids | None", experts: int | None, as_json: bool) -> None:
    from specialists.expert_mask import read_mask, write_mask

    found = read_mask(source, num_experts=experts, ids=ids)
    write_mask(found, out)
    data = {"out": str(out), "digest": found.digest, "num_experts": found.num_experts, "kept": found.budgets}
    table = Table(show_header=False, title=out.name)
    table.add_row("read from", f"{source.name}, {found.provenance.get('read_from', 'a mask of ours')}")
    table.add_row(
        "experts", f"{_shown_budget(found)} of {found.num_experts} kept in each of {len(found.layers)} layers"
    )
    report(data, as_json=as_json, table=table)


def _summary(made: "Made", out: Path) -> dict[str, Any]:
    found = made.mask
    return {
        "out": str(out),
        "digest": found.digest,
        "domain": found.domain,
        "num_experts": found.num_experts,
        "keep": found.num_kept,
        "layers": list(found.layers),
        "metrics": dict(found.metrics),
        "swaps": dict(Counter(swap.pass_name for swap in found.swaps)),
        "notes": list(made.notes),
    }


def _table(made: "Made", out: Path) -> Table:
    found = made.mask
    table = Table(show_header=False, title=out.name)
    table.add_row(
        "experts", f"{_shown_budget(found)} of {found.num_experts} kept in each of {len(found.layers)} layers"
    )
    for name, each in made.after.items():
        least = each.least
        interval = "" if least.low is None or least.high is None else f" ({least.low:.2%} to {least.high:.2%})"
        layer = found.layers[each.layers.index(least)]
        table.add_row(
            f"{name}: {each.signal} retained",
            f"{each.mean:.2%} on average, least {least.retained:.2%}{interval} in layer {layer}",
        )
        if each.optimism is not None:
            table.add_row("", f"on new records of the domain expect {each.optimism:.2%} less")
    if made.stability is not None:
        table.add_row("stability", "Jaccard {:.3f} ({:.3f} to {:.3f}) between resamples".format(*made.stability))
    counts = Counter(swap.pass_name for swap in found.swaps)
    table.add_row("swaps", ", ".join(f"{count} by {name}" for name, count in counts.items()) or "none")
    for note in made.notes:
        table.add_row("note", note)
    return table


def _shown_budget(found: "ExpertMask") -> str:
    low, high = min(found.budgets.values()), max(found.budgets.values())
    return str(low) if low == high else f"{low} to {high}"
