"""What a file of ours holds, summed up for `coe inspect`: a GGUF, an expert mask or a profile.

Each summary is plain data, for a table and for JSON alike. Which kind a file is shows in its first bytes; its name
does not matter. Whether a GGUF's tensors hold sensible numbers is not looked at.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from specialists.expert_mask import Ids, read_mask
from specialists.ggml_types import GGML_TYPES
from specialists.gguf_file import GgufHeader, Skipped, TensorInfo, Value, read_header
from specialists.gguf_fingerprint import fingerprint
from specialists.moe_layout import MoeError, MoeLayout, layout

_KINDS: Final = (  # the first that matches decides
    ("embeddings and output", re.compile(r"token_embd|^output\.|position_embd")),
    ("norms and scales", re.compile(r"norm|layer_output_scale|rope_freqs")),
    ("gates", re.compile(r"ffn_gate_inp\.|exp_probs_b")),
    ("experts", re.compile(r"_exps\.")),
    ("attention", re.compile(r"attn_")),
    ("shared and dense feed-forward", re.compile(r"ffn_")),
    ("other", re.compile(r"")),
)
_ARRAY: Final = 9
_SHOWN_CHARACTERS: Final = 100
_READ_CHARACTERS: Final = 1000
_SHOWN_ITEMS: Final = 40


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Tensors of one kind: how many, how many bytes, and of which ggml types."""

    name: str
    num_tensors: int
    num_bytes: int
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One tensor, its shape in ggml's order."""

    name: str
    shape: tuple[int, ...]
    type: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertSummary:
    """The mixture of experts of a model. Bytes are of one expert in one layer, by what its tensors do."""

    num_experts: int
    num_used: int
    num_groups: int
    layers: tuple[int, ...]
    expert_bytes: int
    bytes_per_expert: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufSummary:
    """A model file. `experts` is None for a dense model; `not_cut_because` says why a mixture cannot be cut."""

    kind: str
    name: str
    parts: int
    version: int
    architecture: str
    num_bytes: int
    tensor_bytes: int
    alignment: int
    fingerprint: str
    metadata: Mapping[str, str]
    groups: tuple[TensorGroup, ...]
    tensors: tuple[TensorRow, ...]
    experts: ExpertSummary | None
    not_cut_because: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSummary:
    """An expert mask: how many experts each layer keeps, and where the mask comes from."""

    kind: str
    name: str
    domain: str
    digest: str
    parent: str
    num_experts: int
    kept: Mapping[int, tuple[int, ...]]
    num_swaps: int
    metrics: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSummary:
    """A profile: per domain its records, tokens and corpus digest."""

    kind: str
    name: str
    parent: str
    layers: tuple[int, ...]
    num_experts: int
    num_used: int
    has_contributions: bool
    domains: Mapping[str, Mapping[str, Any]]


Summary = GgufSummary | MaskSummary | ProfileSummary


def inspect(path: Path, *, num_experts: int | None = None, ids: Ids | None = None) -> Summary:
    """Raises GgufError, MaskError or ProfileError for a file that is wrong, OSError for one that cannot be read.

    `num_experts` and `ids` are for plain maps, which say neither.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(b"PK"):
        return _profile(path)
    if magic[:1] in (b"{", b"[", b"\xef", b" ", b"\n"):
        return _mask(path, num_experts, ids)
    return summarise(read_header(path))


def summarise(header: GgufHeader) -> GgufSummary:
    """A model file, from its header."""
    experts, reason = _experts(header)
    return GgufSummary(
        kind="gguf",
        name=header.path.name,
        parts=len(header.parts),
        version=header.version,
        architecture=header.architecture,
        num_bytes=sum(part.file_bytes for part in header.parts),
        tensor_bytes=header.tensor_bytes,
        alignment=header.alignment,
        fingerprint=fingerprint(header),
        metadata={key: shown(value, header.records[key].kind) for key, value in header.metadata.items()},
        groups=tensor_groups(header),
        tensors=tuple(_row(info) for part in header.parts for info in part.tensors),
        experts=experts,
        not_cut_because=reason,
    )


def tensor_groups(header: GgufHeader) -> tuple[TensorGroup, ...]:
    """All tensors of a model by kind; kinds that it has none of are left out."""
    by_kind: dict[str, list[TensorInfo]] = {name: [] for name, _ in _KINDS}
    for part in header.parts:
        for info in part.tensors:
            by_kind[_kind(info.name)].append(info)
    return tuple(_group(name, tensors) for name, tensors in by_kind.items() if tensors)


def shown(value: Value, kind: int) -> str:
    """A metadata value of GGUF type `kind` in one short line."""
    if isinstance(value, Skipped):
        return f"{value.count:,} {value.kind} items" if kind == _ARRAY else f"{value.count:,} bytes of text"
    if isinstance(value, tuple):
        items = ", ".join(str(item) for item in value[:_SHOWN_ITEMS])
        return f"[{items}{', …' if len(value) > _SHOWN_ITEMS else ''}]"
    text = "".join(each if each.isprintable() else " " for each in str(value)[:_READ_CHARACTERS])
    line = " ".join(text.split())
    is_cut = len(line) > _SHOWN_CHARACTERS or len(text) == _READ_CHARACTERS
    return f"{line[:_SHOWN_CHARACTERS]}…" if is_cut else line


def _experts(header: GgufHeader) -> tuple[ExpertSummary | None, str | None]:
    if not header.integer("expert_count"):
        return None, None
    try:
        return _expert_summary(layout(header)), None
    except MoeError as error:
        return None, error.what


def _expert_summary(found: MoeLayout) -> ExpertSummary:
    first = found.layers[0]
    return ExpertSummary(
        num_experts=found.num_experts,
        num_used=found.num_used,
        num_groups=found.num_groups,
        layers=found.blocks,
        expert_bytes=found.expert_bytes,
        bytes_per_expert={role.value: tensor.bytes_per_expert for role, tensor in first.tensors.items()},
    )


def _kind(name: str) -> str:
    return next(kind for kind, pattern in _KINDS if pattern.search(name))


def _group(name: str, tensors: Iterable[TensorInfo]) -> TensorGroup:
    listed = list(tensors)
    types = sorted({GGML_TYPES[info.ggml_type].name for info in listed})
    return TensorGroup(name, len(listed), sum(info.num_bytes for info in listed), tuple(types))


def _row(info: TensorInfo) -> TensorRow:
    return TensorRow(info.name, info.shape, GGML_TYPES[info.ggml_type].name, info.num_bytes)


def _mask(path: Path, num_experts: int | None, ids: Ids | None) -> MaskSummary:
    mask = read_mask(path, num_experts=num_experts, ids=ids)
    return MaskSummary(
        kind="mask",
        name=path.name,
        domain=mask.domain,
        digest=mask.digest,
        parent=mask.parent,
        num_experts=mask.num_experts,
        kept=mask.kept,
        num_swaps=len(mask.swaps),
        metrics=mask.metrics,
    )


def _profile(path: Path) -> ProfileSummary:
    from specialists.builder.histogram import read_profile

    profile = read_profile(path)
    return ProfileSummary(
        kind="profile",
        name=path.name,
        parent=profile.parent,
        layers=profile.layers,
        num_experts=profile.num_experts,
        num_used=profile.shape.ranks,
        has_contributions=profile.has_contributions,
        domains={
            name: {"records": each.num_records, "tokens": int(each.num_tokens.max()), "corpus": each.corpus}
            for name, each in profile.domains.items()
        },
    )
