"""Which model files belong together: pair by pair, whether one frame could be both, and what a morph would move."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from specialists.expert_slots import plan_morph
from specialists.family import standalone_family, why_no_family
from specialists.moe_layout import MoeLayout
from specialists.tensor_digests import DigestTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinship:
    """Two files. `reason` is what keeps them from being a family, None where they are one.

    Of `num_experts` in all layers together `num_differing` have to be written, which moves `num_bytes`.
    """

    source: str
    target: str
    reason: str | None = None
    num_differing: int = 0
    num_experts: int = 0
    num_bytes: int = 0


def kinship(files: Sequence[tuple[MoeLayout, DigestTable]]) -> list[Kinship]:
    """Every pair of files, in their order. Raises MoeError for a model that cannot be in any family."""
    return [_compare(first, second) for first, second in combinations(files, 2)]


def _compare(first: tuple[MoeLayout, DigestTable], second: tuple[MoeLayout, DigestTable]) -> Kinship:
    source, target = (str(layout.header.path) for layout, _ in (first, second))
    reason = why_no_family(first[1], second[1])
    if reason is not None:
        return Kinship(source=source, target=target, reason=reason)
    family = standalone_family({"source": first, "target": second})
    plan = plan_morph(family.members["source"], family.members["target"])
    return Kinship(
        source=source,
        target=target,
        num_differing=len(plan.writes),
        num_experts=sum(len(experts) for experts in family.members["source"].values()),
        num_bytes=plan.num_bytes(family.bytes_per_expert),
    )
