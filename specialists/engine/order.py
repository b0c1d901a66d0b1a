"""What an engine process is told to load, made from what the pool wants: the same for serving and for planning."""

import os

from specialists.engine.messages import Load, Member
from specialists.engine.protocol import CacheType, EngineSpec, FamilyMember


def load_order(spec: EngineSpec, *, serving: str = "") -> Load:
    """`spec` as a message; of a family it begins as `serving` ("": the first)."""
    return Load(
        model_path=str(spec.model_path),
        adapter_path=str(spec.adapter_path) if spec.adapter_path else None,
        gpu_layers=spec.gpu_layers,
        context_tokens=spec.context_tokens,
        parallel=spec.parallel,
        threads=spec.threads or len(os.sched_getaffinity(0)),
        family=tuple(_as_message(member) for member in spec.family),
        serving=(serving or spec.family[0].name) if spec.family else "",
        parking_bytes=spec.parking_bytes,
        cpu_expert_layers=spec.cpu_expert_layers,
        cache_type=spec.cache_type or CacheType.F16,
        pooling=spec.pooling,
    )


def _as_message(member: FamilyMember) -> Member:
    paths = (member.mask_path, member.model_path)
    return Member(member.name, *(str(path) if path is not None else None for path in paths))
