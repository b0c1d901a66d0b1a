"""A college of specialists cut from one wide parent of random weights, for benches of swaps.

Served by the gateway as masked specialists; for servers that know only whole files each can be written as one.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.wide_parent import write_wide_parent
from specialists.builder.plan_writer import write_plan
from specialists.expert_mask import ExpertMask, write_mask
from specialists.family import Family, masked_family
from specialists.gguf_file import read_header
from specialists.moe_layout import MoeLayout, layout

NEAR, FAR = 0.09, 0.22  # of the slots differ: 1 − (1,114 + F·806) / 1,920 for the published near and far pairs
PLAIN = Path(__file__).with_name("plain.Modelfile")


@dataclass(frozen=True, slots=True)
class Relative:
    """A specialist that differs from `other` in `share` of the slots of every layer."""

    name: str
    other: str
    share: float


@dataclass(frozen=True, slots=True)
class WideFamily:
    """`college` is the file to serve; `family` knows what every morph has to move."""

    folder: Path
    parent: Path
    family: Family
    college: Path

    def write_files(self, names: Sequence[str]) -> Path:
        """A folder with each of these specialists as a GGUF of its own."""
        models = self.folder / "models"
        models.mkdir(exist_ok=True)
        for name in names:
            write_plan(self.family.plan(name), models / f"{name}.gguf", lambda _count: None)
        return models


def make_family(
    vocabulary: Path, folder: Path, *, first: str, relatives: Sequence[Relative], layers: int, kept: int, seed: int
) -> WideFamily:
    """Writes the parent (0.57 GB for each layer and 0.4 GB besides), the masks and the college file to `folder`."""
    parent = folder / "parent.gguf"
    write_wide_parent(vocabulary, parent, num_layers=layers, seed=seed)
    found = layout(read_header(parent))
    masks = {
        name: ExpertMask(kept=each, num_experts=found.num_experts, domain=name)
        for name, each in kept_experts(found, first, relatives, kept, seed).items()
    }
    for name, mask in masks.items():
        write_mask(mask, folder / f"{name}.mask.json")
    college = folder / "college.toml"
    college.write_text(_college_text(list(masks)), encoding="utf-8")
    return WideFamily(folder, parent, masked_family(found, masks), college)


def kept_experts(
    parent: MoeLayout, first: str, relatives: Sequence[Relative], kept: int, seed: int
) -> Mapping[str, Mapping[int, tuple[int, ...]]]:
    """Random experts for the first; each relative exchanges its share of them for others."""
    rng = random.Random(seed)
    everyone = range(parent.num_experts)
    masks: dict[str, dict[int, tuple[int, ...]]] = {
        first: {block: tuple(sorted(rng.sample(everyone, kept))) for block in parent.blocks}
    }
    for relative in relatives:
        count = round(relative.share * kept)
        masks[relative.name] = {}
        for block, ids in masks[relative.other].items():
            stays = rng.sample(ids, kept - count)
            fresh = rng.sample(sorted(set(everyone) - set(ids)), count)
            masks[relative.name][block] = tuple(sorted([*stays, *fresh]))
    return masks


def _college_text(names: Sequence[str]) -> str:
    head = f'[college]\nname = "wide"\ndefault = "{names[0]}"\n'
    return head + "".join(
        f'\n[[specialist]]\ntag = "{name}"\ndomains = ["general"]\nmodelfile = "{PLAIN.resolve()}"\n'
        f'parent = "parent.gguf"\nmask = "{name}.mask.json"\ncontext = 2048\nparallel = 4\nloop_guard = "off"\n'
        for name in names
    )
