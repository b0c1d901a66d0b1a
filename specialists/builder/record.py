"""What is written down about a built specialist: what it was made from, how, and what came out."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

FORMAT = "coe-specialist/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """A GGUF. `fingerprint` tells it from other models without reading all of it; `sha256` is of the whole file."""

    name: str
    num_bytes: int
    tensor_bytes: int
    fingerprint: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRecord:
    """The expert mask: `sha256` of its file, `digest` of what it keeps."""

    name: str
    sha256: str
    digest: str
    domain: str
    num_swaps: int
    metrics: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """Per MoE layer: how many the parent has, how many the mask keeps (at least), how many the model's table has."""

    in_parent: int
    kept: int
    in_model: int
    used: int
    layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRecord:
    """One build, from its inputs' digests to its output's."""

    format: str = FORMAT
    tag: str
    domains: tuple[str, ...]
    mode: str
    architecture: str
    experts: Experts
    parent: ModelRecord
    mask: MaskRecord
    model: ModelRecord
    seconds: float
    written_at: str
    software: str = f"college-of-experts {version('college-of-experts')}"
