"""Who is studied, and on what: the domains, their masks and random ones, and each domain's held-out text."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pocket.corpora import texts
from pocket.measuring import HeldOut, material
from specialists.expert_mask import ExpertMask, read_mask, write_mask

STUDIED = (
    "math", "physics", "chemistry", "biology", "health", "law", "history", "economics", "business", "philosophy",
    "python", "web",
)  # fmt: skip
REASONING = "reasoning"
PARENT, RANDOM = "parent", "random"


def mask_path(asked: argparse.Namespace, name: str) -> Path:
    return Path(asked.masks) / f"{name}.mask.json"


def random_mask(like: ExpertMask, seed: int) -> ExpertMask:
    """As many experts in each layer, drawn evenly."""
    rng = np.random.default_rng(seed)
    kept = {
        layer: tuple(sorted(rng.choice(like.num_experts, like.num_kept, replace=False).tolist())) for layer in like.kept
    }
    return ExpertMask(kept=kept, num_experts=like.num_experts, parent=like.parent, domain="random")


def held_out(asked: argparse.Namespace, name: str) -> HeldOut:
    found = texts(asked.work / "corpora", "held", name)
    order = np.random.default_rng(asked.seed).permutation(len(found))
    shuffled = [found[place] for place in order]
    return material(asked.parent, shuffled, records=asked.records, questions=asked.questions, seed=asked.seed)


def candidates(asked: argparse.Namespace) -> Iterator[tuple[str, Mapping[int, tuple[int, ...]] | None]]:
    """The parent, every specialist, and three random masks, with what each keeps."""
    yield PARENT, None
    masks = {name: read_mask(mask_path(asked, name)) for name in asked.domains}
    for name, mask in masks.items():
        yield name, mask.kept
    for number in range(3):
        chosen = random_mask(next(iter(masks.values())), asked.seed + number)
        write_mask(chosen, asked.work / f"{RANDOM}{number}.mask.json")
        yield f"{RANDOM}{number}", chosen.kept
