"""The study's figures as one Markdown page, written from its files and from nothing else.

A figure without an interval has none because it is a count, or the mean of a whole set.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from specialists.builder.measurements import PARENT, Measurements, read_measurements
from specialists.builder.significance import paired, welch
from specialists.builder.transfer import Ratio, paired_ratio


def results(folder: Path, domains: Sequence[str]) -> str:
    """The page for the study in `folder`. FileNotFoundError names the stage's file that is missing."""
    lines = ["# Figures of the pocket study", "", "Written by `python -m pocket.study results`; do not edit.", ""]
    for kind, title in (("tokens", "Next tokens"), ("cloze", "Cloze questions")):
        measured = read_measurements(folder / f"{kind}.csv")
        lines += [f"## {title}", "", *_home_table(measured, domains), "", *_tests(measured, domains), ""]
        name = "transfer" if kind == "tokens" else "transfer-cloze"
        lines += [*_figures(json.loads((folder / f"{name}.report.json").read_text(encoding="utf-8"))), ""]
    if (folder / "baselines.json").exists():
        found = json.loads((folder / "baselines.json").read_text(encoding="utf-8"))
        lines += ["## Held-out bits per byte", "", *_bits_table(found), ""]
    if (folder / "ablations.json").exists():
        rows = json.loads((folder / "ablations.json").read_text(encoding="utf-8"))
        lines += ["## Ablations", "", *_ablation_table(rows), ""]
    return "\n".join(lines)


def ratio(measured: Measurements, who: str, target: str) -> Ratio:
    mine, base = measured.scores[who, target], measured.scores[PARENT, target]
    return paired_ratio(mine.right.tolist(), base.right.tolist(), rng=np.random.default_rng(0))


def gap(measured: Measurements, target: str, others: Sequence[str]) -> Ratio:
    """y at home less the mean y of `others` on that domain, on the same records."""
    base, home = measured.scores[PARENT, target], measured.scores[target, target]
    theirs = np.mean([measured.scores[who, target].right for who in others], axis=0)
    return paired_ratio((home.right - theirs).tolist(), base.right.tolist(), rng=np.random.default_rng(0))


def _home_table(measured: Measurements, domains: Sequence[str]) -> Iterator[str]:
    """Each specialist at home, and by how much it beats random masks and the other domains' there."""
    yield "| domain | parent's accuracy | y at home (95 %) | less random masks | in σ | less other masks | in σ |"
    yield "|---|---|---|---|---|---|---|"
    drawn = [who for who in measured.specialists if who.startswith("random")]
    for target in domains:
        base, home = measured.scores[PARENT, target], ratio(measured, target, target)
        cells = [f"{base.right.sum() / base.num.sum():.3f}", f"{home.y:.3f} ({home.low:.3f} to {home.high:.3f})"]
        for others in (drawn, [who for who in domains if who != target]):
            found = gap(measured, target, others)
            cells += [f"{found.y:.3f} ({found.low:.3f} to {found.high:.3f})"]
            cells += [f"{found.y / found.sigma:.1f}" if found.sigma > 0 else "none"]
        yield f"| {target} | {' | '.join(cells)} |"


def _tests(measured: Measurements, domains: Sequence[str]) -> Iterator[str]:
    """Home against random and against the mean of the others, paired by target; and home against all visits."""
    homes = [ratio(measured, each, each).y for each in domains]
    visits = [[ratio(measured, who, target).y for who in domains if who != target] for target in domains]
    drawn = [who for who in measured.specialists if who.startswith("random")]
    chance = [float(np.mean([ratio(measured, who, target).y for who in drawn])) for target in domains]
    tests = {
        "home less the mean visitor, paired by target": paired(homes, [float(np.mean(each)) for each in visits]),
        "home less random masks, paired by target": paired(homes, chance),
        "home less visits, Welch": welch(homes, [y for each in visits for y in each]),
    }
    yield f"Mean y at home {np.mean(homes):.3f}, least {min(homes):.3f}."
    yield ""
    for name, found in tests.items():
        yield f"* {name}: {found.mean:.3f} ({found.low:.3f} to {found.high:.3f}), p = {found.p:.2g}"


def _figures(report: Mapping[str, Any]) -> Iterator[str]:
    """What `coe transfer` found: near against far, and what likeness foretells."""
    yield "| figure | value | 95 % | over |"
    yield "|---|---|---|---|"
    for each in _of_kind(report, "figures"):
        interval = "" if each.get("low") is None else f"{each['low']:.3f} to {each['high']:.3f}"
        yield f"| {each['name']} | {each['value']:.3f} | {interval} | {each.get('over', '')} |"


def _of_kind(content: Any, kind: str) -> list[dict[str, Any]]:
    """The list under the first key of that name, wherever it stands in the report."""
    if isinstance(content, dict):
        if isinstance(content.get(kind), list):
            return list(content[kind])
        content = list(content.values())
    for each in content if isinstance(content, list) else ():
        if found := _of_kind(each, kind):
            return found
    return []


def _bits_table(found: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    names = [*next(iter(found.values()))]
    yield f"| domain | {' | '.join(names)} |"
    yield "|---" * (1 + len(names)) + "|"
    for domain, each in found.items():
        yield f"| {domain} | {' | '.join(f'{each[name]:.3f}' for name in names)} |"


def _ablation_table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| what | choice | y at home (95 %) | nats per token | parent's | cloze |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        y = f"{row['y']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        nats = f"{row['nats']:.3f} | {row['parent_nats']:.3f}"
        yield f"| {row['group']} | {row['name']} | {y} | {nats} | {row['cloze']} |"
