"""What choosing otherwise does to a specialist: one table, each row a recipe, measured on held-out text at home.

Every row is the pooled accuracy of the domains' specialists at home over the parent's on the same records, with a
paired bootstrap. For a general prune (one mask for all domains) it is that one model on all of them.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocket.college import REASONING, held_out, random_mask
from pocket.measuring import HeldOut, Scores, opened
from pocket.merging import write_merged
from specialists.builder.histogram import Profile, read_profile
from specialists.builder.mask_recipe import Recipe, make_mask
from specialists.builder.transfer import paired_ratio
from specialists.expert_mask import ExpertMask

ABLATED = ("math", "law", "biology", "python", "history", "economics")
UTILITIES = ("weight", "frequency", "rank-weighted", "contribution", "reap", "wnorm-count")
SIZES = (500, 1_000, 2_000, 4_000, 8_000, 16_000)  # tokens of a corpus


@dataclass(frozen=True, slots=True)
class Row:
    """`masks` by domain, or one under "" for all. `mode` as in `coe build`. `files` are models made otherwise."""

    group: str
    name: str
    masks: Mapping[str, ExpertMask] = field(default_factory=dict)
    mode: str = "slice"
    files: Mapping[str, Path] = field(default_factory=dict)


def ablate(asked: argparse.Namespace) -> None:
    profile = read_profile(asked.work / "profile.npz")
    domains = tuple(name for name in ABLATED if name in asked.domains)
    held = {name: held_out(asked, name) for name in domains}
    with opened(asked.parent, threads=asked.threads) as scorer:
        base = {name: scorer.score(each) for name, each in held.items()}
    found = [figures(row, _scores(row, held, asked), base) for row in rows(profile, domains, asked)]
    (asked.out / "ablations.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _scores(row: Row, held: Mapping[str, HeldOut], asked: argparse.Namespace) -> dict[str, Scores]:
    if "" in row.masks:
        with opened(asked.parent, row.masks[""].kept, mode=row.mode, threads=asked.threads) as scorer:
            return {name: scorer.score(each) for name, each in held.items()}
    found = {}
    for name, each in held.items():
        kept = row.masks[name].kept if row.masks else None
        with opened(row.files.get(name, asked.parent), kept, mode=row.mode, threads=asked.threads) as scorer:
            found[name] = scorer.score(each)
    return found


def figures(row: Row, mine: Mapping[str, Scores], base: Mapping[str, Scores]) -> dict[str, object]:
    """y pooled over domains with its 95 % interval, nats per token, and the share of cloze questions right."""

    def joined(scores: Mapping[str, Scores], field: str) -> list[float]:
        return [float(value) for name in base for value in getattr(scores[name], field)]

    y = paired_ratio(joined(mine, "right"), joined(base, "right"), rng=np.random.default_rng(0))
    tokens = sum(joined(base, "num"))
    said = {
        "group": row.group,
        "name": row.name,
        **{key: round(value, 4) for key, value in y._asdict().items()},
        "nats": round(sum(joined(mine, "loss")) / tokens, 4),
        "parent_nats": round(sum(joined(base, "loss")) / tokens, 4),
        "cloze": round(float(np.mean(joined(mine, "cloze"))), 4) if joined(base, "cloze") else None,
    }
    print(json.dumps(said), flush=True)  # noqa: T201 - a script's progress
    return said


def rows(profile: Profile, domains: tuple[str, ...], asked: argparse.Namespace) -> Iterator[Row]:
    """All recipes. The first is what the college is made with."""
    keep, experts = asked.keep, profile.shape.experts

    def each(**changed: object) -> dict[str, ExpertMask]:
        return {name: _mask(profile, (name,), {"keep": keep, **changed}) for name in domains}

    passes = {"whitelist": True, "whitelist_rank": 1.0, "reasoning": REASONING}
    yield Row("passes", "whitelist and 3 reasoning swaps", each(**passes))
    yield Row("passes", "none", each())
    yield Row("passes", "whitelist", each(whitelist=True, whitelist_rank=1.0))
    yield Row("passes", "6 reasoning swaps", each(reasoning=REASONING, reasoning_cap=6))
    drawn = random_mask(next(iter(each().values())), asked.seed)
    yield Row("baseline", "random mask", {"": drawn})
    others = dict(zip(domains, [*each().values()][1:] + [*each().values()][:1], strict=True))
    yield Row("baseline", "another domain's mask", others)
    merged = {
        name: write_merged(asked.parent, asked.work / f"merged-{name}.gguf", _use(profile, name), keep)
        for name in domains
    }
    yield Row("baseline", f"{experts} experts merged into {keep}", files=merged)
    yield Row("mode", "zero instead of slice", each(), mode="zero")
    for name in UTILITIES:
        yield Row("utility", name, each(utility=name))
    for quarter in (1, 2, 3, 4, 5, 6, 7, 8):
        yield Row("K", f"{experts * quarter // 8} of {experts}", each(keep=experts * quarter // 8))
    for share in (0.77, 0.85):
        for how in ("max", "mean", "geomean"):
            general = _mask(profile, domains, {"keep": round(share * experts), "aggregation": how})
            yield Row("general prune", f"{how}, {share:.0%} kept", {"": general})
    yield from _by_size(domains, asked)


def _use(profile: Profile, name: str) -> NDArray[np.float64]:
    """How often each expert was chosen: (layers, experts)."""
    return profile.domain(name).count.sum(2).astype(np.float64)


def _by_size(domains: tuple[str, ...], asked: argparse.Namespace) -> Iterator[Row]:
    """Masks from ever more text, and from as much as the stopping rule wanted."""
    choices = [(f"{size} tokens", ("--max-tokens", size)) for size in SIZES]
    choices.append(("until stable", ("--until-stable", "--keep", asked.keep, "--increment", 1024)))
    for name, options in choices:
        out = asked.work / f"profile-{name.replace(' ', '-')}.npz"
        if not out.exists():
            _profile(asked, domains, out, options)
        smaller = read_profile(out)
        taken = max(int(smaller.domain(each).num_tokens.max()) for each in domains)
        masks = {each: _mask(smaller, (each,), {"keep": asked.keep}) for each in domains}
        yield Row("corpus", name if "tokens" in name else f"{name} (at most {taken} tokens)", masks)


def _profile(asked: argparse.Namespace, domains: tuple[str, ...], out: Path, options: tuple[object, ...]) -> None:
    folder = asked.work / "corpora" / "train"
    corpora = [word for name in domains for word in ("--corpus", f"{name}={folder / f'{name}.jsonl'}")]
    fixed = ("--parent", asked.parent, "--out", out, "--context", 256, "--threads", asked.threads, "--no-report")
    command = (sys.executable, "-m", "gateway.cli", "profile", *corpora, *fixed, *options)
    subprocess.run([str(word) for word in command], check=True)  # noqa: S603 - our own commands


def _mask(profile: Profile, domains: tuple[str, ...], recipe: dict[str, object]) -> ExpertMask:
    wanted = Recipe(domains=tuple((name, 1.0) for name in domains), **recipe)  # type: ignore[arg-type]
    return make_mask(profile, wanted).mask
