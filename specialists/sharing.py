"""Which specialists of a college share an engine, and what that engine must be for all of them.

Those with the same weights on the same layers and one type of cache do, and so do families, whose engine is a frame:
masks of one size over one parent, and files that their digests show to be cut from one. An engine is as large as the
largest of those who share it wants it.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace

from specialists.engine.protocol import EngineSpec
from specialists.manifest import SpecialistManifest
from specialists.tensor_digests import DigestTable


def kin_of(table: DigestTable) -> Hashable:
    """Equal for files that are a family (`family.why_no_family`)."""
    counts = tuple(sorted((block, len(experts)) for block, experts in table.experts.items()))
    return (table.metadata, tuple(sorted(table.trunk.items())), counts)


def share_engines(specialists: Sequence[tuple[SpecialistManifest, Hashable]]) -> list[SpecialistManifest]:
    """Each specialist with the engine it shares. Beside it stands what its kin have in common, None for a loner.

    An unavailable specialist keeps its own, and nobody's is changed by it.
    """
    groups: dict[Hashable, list[EngineSpec]] = defaultdict(list)
    for manifest, kin in specialists:
        if manifest.unavailable is None:
            groups[_group(manifest.engine, kin)].append(manifest.engine)
    return [
        replace(manifest, engine=_shared(groups[_group(manifest.engine, kin)]))
        if manifest.unavailable is None
        else manifest
        for manifest, kin in specialists
    ]


def _group(spec: EngineSpec, kin: Hashable) -> Hashable:
    adapter = spec.adapter_path.resolve() if spec.adapter_path else None
    weights = spec.model_path.resolve() if kin is None else kin
    return (weights, adapter, spec.gpu_layers, spec.cpu_expert_layers, spec.cache_type)


def _shared(specs: Sequence[EngineSpec]) -> EngineSpec:
    """The largest that any of them wants. One file alone needs no frame; a mask always does."""
    is_one_file = len({spec.model_path.resolve() for spec in specs}) == 1
    members = [member for spec in specs for member in spec.family if member.mask_path is not None or not is_one_file]
    return replace(
        specs[0],
        context_tokens=max(spec.context_tokens for spec in specs),
        parallel=max(spec.parallel for spec in specs),
        threads=max((spec.threads for spec in specs if spec.threads is not None), default=None),
        family=tuple(members),
        parking_bytes=max(spec.parking_bytes for spec in specs) if members else 0,
    )
