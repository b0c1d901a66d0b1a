"""Which experts of each layer a specialist keeps, and the file that says so.

Expert ids are local to their layer: expert 5 of block 0 and expert 5 of block 1 have nothing in common. A mask is
only as good as the parent it was made for, so the file carries the parent's fingerprint, where the mask came from,
and every swap that changed it after the first selection. Reading is bounded: a hostile file costs one clear error.

How scores are computed, how tensors are cut and how a parent is fingerprinted is not known here.

Three kinds of file are read, and what their ids mean is never guessed from the numbers:

1. ours, `{"format": "coe-mask/1", "kept": {"0": [ids]}, …}`;
2. `expert_drop_metadata.json`, whose `per_layer_keep` and `per_layer_drop` say it themselves (and must agree);
3. plain `{"0": [ids], …}`, in which kept and dropped ids look alike: the caller says which (`ids=`), or else the
   file's name does, by the word "mask", "keep" or "kept" against "drop", "dropped"; otherwise it is refused.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, Self

from specialists.bounded_json import JsonFileError, read_json, write_text
from specialists.swap_log import (
    MOST_TEXT,
    MaskError,
    Swap,
    check_text,
    is_int,
    parse_swap,
    replay,
    shown,
    swap_row,
    typed,
    undo,
)

__all__ = ["ExpertMask", "Ids", "MaskError", "Swap", "parse_mask", "read_mask", "replay", "write_mask"]

FORMAT: Final = "coe-mask/1"
Ids = Literal["kept", "dropped"]

_MOST_LAYERS: Final = 1024
_MOST_EXPERTS: Final = 4096  # llama.cpp itself stops at 512
_FIELDS: Final = frozenset(
    {"format", "digest", "domain", "num_experts", "parent", "provenance", "metrics", "kept", "swaps"}
)
_KEPT_WORDS: Final = frozenset({"mask", "masks", "keep", "kept"})
_DROPPED_WORDS: Final = frozenset({"drop", "drops", "dropped"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertMask:
    """`kept` maps each MoE block's index to the ascending ids of the experts that stay, of `num_experts` each.

    `parent` is the fingerprint of the file the mask was made for, "" when unknown. `provenance` says what it was
    made from and how, `metrics` how well it covers it; both hold plain JSON values. `swaps` is in order of time:
    `replay` of it on `before_swaps()` gives `kept`. Raises MaskError when any of that does not hold together.
    """

    kept: Mapping[int, tuple[int, ...]]
    num_experts: int
    domain: str = ""
    parent: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    swaps: tuple[Swap, ...] = ()

    def __post_init__(self) -> None:
        _check_count(self.num_experts)
        if not 0 < len(self.kept) <= _MOST_LAYERS:
            raise MaskError(f"kept: has {len(self.kept)} layers; a mask has 1 to {_MOST_LAYERS}.")
        for layer, ids in self.kept.items():
            _check_layer(layer, ids, self.num_experts)
        for name in ("domain", "parent"):
            check_text(name, getattr(self, name))
        kept = {layer: tuple(self.kept[layer]) for layer in sorted(self.kept)}
        object.__setattr__(self, "kept", MappingProxyType(kept))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))
        object.__setattr__(self, "metrics", MappingProxyType(dict(self.metrics)))
        undo(kept, self.swaps)

    def __hash__(self) -> int:
        return hash(self.digest)

    @classmethod
    def of_dropped(cls, dropped: Mapping[int, Iterable[int]], num_experts: int, **rest: Any) -> Self:
        """The mask that keeps everything but `dropped`."""
        _check_count(num_experts)
        out = {layer: _sorted_unique(f"dropped[{layer}]", ids, num_experts) for layer, ids in dropped.items()}
        kept = {layer: _without(num_experts, ids) for layer, ids in out.items()}
        return cls(kept=kept, num_experts=num_experts, **rest)

    @property
    def layers(self) -> tuple[int, ...]:
        """Block indices, ascending."""
        return tuple(self.kept)

    @property
    def dropped(self) -> dict[int, tuple[int, ...]]:
        return {layer: _without(self.num_experts, ids) for layer, ids in self.kept.items()}

    @property
    def budgets(self) -> dict[int, int]:
        """How many experts each layer keeps."""
        return {layer: len(ids) for layer, ids in self.kept.items()}

    @property
    def is_uniform(self) -> bool:
        return len(set(self.budgets.values())) == 1

    @property
    def num_kept(self) -> int:
        """K. Raises MaskError when layers differ: a GGUF has one `expert_count` for all of them."""
        if not self.is_uniform:
            low, high = min(self.budgets.values()), max(self.budgets.values())
            raise MaskError(f"kept: layers keep from {low} to {high} experts; a GGUF needs the same number in each.")
        return len(next(iter(self.kept.values())))

    @property
    def digest(self) -> str:
        """Of what is kept and of nothing else: equal for masks that cut alike, wherever they come from."""
        content = {"num_experts": self.num_experts, "kept": {str(layer): ids for layer, ids in self.kept.items()}}
        return "sha256:" + hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    def before_swaps(self) -> dict[int, tuple[int, ...]]:
        """What the first selection kept."""
        return undo(self.kept, self.swaps)

    def with_swaps(self, swaps: Sequence[Swap]) -> Self:
        """This mask after further `swaps`, which join its log. Raises MaskError for one that does not apply."""
        return replace(self, kept=replay(self.kept, swaps), swaps=(*self.swaps, *swaps))

    def check_fits(self, *, num_experts: int, layers: Iterable[int], parent: str = "") -> None:
        """Raises MaskError unless the mask is for a parent of that shape (and fingerprint, where both are known)."""
        if self.num_experts != num_experts:
            raise MaskError(f"num_experts: the mask is for {self.num_experts} experts, the parent has {num_experts}.")
        missing, unknown = sorted({*layers} - {*self.kept}), sorted({*self.kept} - {*layers})
        if missing or unknown:
            what = f"lacks the parent's MoE layers {missing}" if missing else f"has layers {unknown}, the parent none"
            raise MaskError(f"kept: the mask {what}; make it from a profile of this parent.")
        if parent and self.parent and parent != self.parent:
            raise MaskError(f"parent: the mask was made for {self.parent}, this file is {parent}; profile it anew.")


def _without(num_experts: int, ids: Iterable[int]) -> tuple[int, ...]:
    out = set(ids)
    return tuple(expert for expert in range(num_experts) if expert not in out)


def _check_count(num_experts: int) -> None:
    if not is_int(num_experts) or not 1 <= num_experts <= _MOST_EXPERTS:
        raise MaskError(f"num_experts: {shown(num_experts)} must be a whole number from 1 to {_MOST_EXPERTS}.")


def _check_layer(layer: int, ids: Sequence[int], num_experts: int) -> None:
    if not is_int(layer) or not 0 <= layer < _MOST_LAYERS:
        raise MaskError(f"kept: {shown(layer)} is no block index; from 0 to {_MOST_LAYERS - 1} is expected.")
    if not ids:
        raise MaskError(f"kept[{layer}]: keeps no expert; every layer needs at least one.")
    if _sorted_unique(f"kept[{layer}]", ids, num_experts) != tuple(ids):
        raise MaskError(f"kept[{layer}]: ids must ascend.")


def _sorted_unique(name: str, ids: Iterable[int], num_experts: int) -> tuple[int, ...]:
    seen: set[int] = set()
    for expert in ids:
        if not is_int(expert) or not 0 <= expert < num_experts:
            raise MaskError(f"{name}: {shown(expert)} is no expert id; from 0 to {num_experts - 1} is expected.")
        if expert in seen:
            raise MaskError(f"{name}: names expert {expert} twice; name each once.")
        seen.add(expert)
    return tuple(sorted(seen))


def read_mask(path: Path, *, num_experts: int | None = None, ids: Ids | None = None) -> ExpertMask:
    """The mask in any of the three kinds of file (see the module).

    `num_experts` is needed for a plain map, which does not say it, and checked against files that do. `ids` says
    what a plain map lists, and is refused where the file contradicts it. Raises MaskError.
    """
    try:
        content = read_json(path)
    except JsonFileError as error:
        raise MaskError(str(error)) from error
    try:
        return parse_mask(content, num_experts=num_experts, ids=ids, name=path.name)
    except MaskError as error:
        raise MaskError(f"{path.name}: {error}") from error


def parse_mask(content: Any, *, num_experts: int | None = None, ids: Ids | None = None, name: str = "") -> ExpertMask:
    """As `read_mask`, from parsed JSON. `name` is the file's, which may say what a plain map's ids mean."""
    if not isinstance(content, dict):
        raise MaskError("a JSON object is expected.")
    if "format" in content:
        mask = _parse_ours(content)
    elif "per_layer_keep" in content or "per_layer_drop" in content:
        mask = _parse_metadata(content, num_experts)
    else:
        return _parse_plain(content, num_experts, ids or _said_by_name(name))
    if ids == "dropped":
        raise MaskError("the file says itself which experts are kept; leave out that its ids are dropped ones.")
    if num_experts not in (None, mask.num_experts):
        raise MaskError(f"num_experts: the mask is for {mask.num_experts} experts, {num_experts} were asked for.")
    return mask


def write_mask(mask: ExpertMask, path: Path) -> None:
    """Writes our own format, one line per layer and swap; an existing file is replaced in one step."""
    head = {
        "format": FORMAT,
        "digest": mask.digest,
        "domain": mask.domain,
        "num_experts": mask.num_experts,
        "parent": mask.parent,
        "provenance": dict(mask.provenance),
        "metrics": dict(mask.metrics),
    }
    lines = [f" {_json(key)}: {_json(value)}" for key, value in head.items()]
    rows = [f"  {_json(str(layer))}: {_json(ids)}" for layer, ids in mask.kept.items()]
    lines.append(' "kept": {\n' + ",\n".join(rows) + "\n }")
    lines.append(' "swaps": [' + ",".join(f"\n  {_json(swap_row(swap))}" for swap in mask.swaps) + "\n ]")
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MaskError(f"provenance, metrics or swaps: cannot be written as JSON ({error}).") from error


def _parse_ours(content: dict[str, Any]) -> ExpertMask:
    if content["format"] != FORMAT:
        raise MaskError(f"format: {shown(content['format'])} is not {FORMAT}; make the mask anew with `coe mask`.")
    unknown = sorted({*content} - _FIELDS)
    if unknown:
        raise MaskError(f"{shown(unknown[0])} is no field of {FORMAT}.")
    mask = ExpertMask(
        kept=_layers("kept", content.get("kept")),
        num_experts=content.get("num_experts", 0),
        domain=content.get("domain", ""),
        parent=content.get("parent", ""),
        provenance=typed("provenance", content.get("provenance", {}), dict),
        metrics=typed("metrics", content.get("metrics", {}), dict),
        swaps=tuple(parse_swap(n, row) for n, row in enumerate(typed("swaps", content.get("swaps", []), list))),
    )
    if content.get("digest", mask.digest) != mask.digest:
        raise MaskError(
            "digest: does not match the kept ids; the file was changed by hand. Remove the digest if so meant."
        )
    return mask


def _parse_metadata(content: dict[str, Any], num_experts: int | None) -> ExpertMask:
    """`expert_drop_metadata.json` as published with pruned checkpoints."""
    count = content.get("original_experts", num_experts)
    if count is None:
        raise MaskError("original_experts: is missing; give the number of experts (--experts).")
    provenance = {"read_from": "expert_drop_metadata", "base_model": str(content.get("base_model", ""))[:MOST_TEXT]}
    found: list[ExpertMask] = []
    if "per_layer_keep" in content:
        kept = _layers("per_layer_keep", content["per_layer_keep"])
        found.append(ExpertMask(kept=kept, num_experts=count, provenance=provenance))
    if "per_layer_drop" in content:
        dropped = _layers("per_layer_drop", content["per_layer_drop"])
        found.append(ExpertMask.of_dropped(dropped, count, provenance=provenance))
    if found[0].kept != found[-1].kept:
        raise MaskError("per_layer_keep: does not fit per_layer_drop; one of them must go.")
    if content.get("target_experts", found[0].num_kept) != found[0].num_kept:
        raise MaskError(f"target_experts: is {shown(content['target_experts'])}, but {found[0].num_kept} are kept.")
    return found[0]


def _parse_plain(content: dict[str, Any], num_experts: int | None, ids: Ids | None) -> ExpertMask:
    layers = _layers("the map", content)
    if ids is None:
        raise MaskError(
            "does not say whether its ids are kept or dropped ones: say which (--ids kept or --ids dropped)."
        )
    if num_experts is None:
        raise MaskError("does not say of how many experts its ids are: give their number (--experts).")
    provenance = {"read_from": f"plain map of {ids} ids"}
    if ids == "dropped":
        return ExpertMask.of_dropped(layers, num_experts, provenance=provenance)
    kept = {layer: _sorted_unique(f"kept[{layer}]", found, num_experts) for layer, found in layers.items()}
    return ExpertMask(kept=kept, num_experts=num_experts, provenance=provenance)


def _said_by_name(name: str) -> Ids | None:
    words = {*re.findall(r"[a-z]+", name.lower())}
    says_kept, says_dropped = bool(words & _KEPT_WORDS), bool(words & _DROPPED_WORDS)
    if says_kept == says_dropped:
        return None
    return "kept" if says_kept else "dropped"


def _layers(name: str, content: object) -> dict[int, tuple[int, ...]]:
    """The map's blocks, by number; their ids are checked by whoever knows how many experts there are."""
    rows = typed(name, content, dict)
    if not 0 < len(rows) <= _MOST_LAYERS:
        raise MaskError(f"{name}: has {len(rows)} layers; 1 to {_MOST_LAYERS} are expected.")
    for key in rows:
        if not re.fullmatch(r"0|[1-9][0-9]{0,3}", key):
            raise MaskError(f'{name}: {shown(key)} is no block index; expected is the like of {{"0": [0, 5, …]}}.')
    return {int(key): tuple(typed(f"{name}[{key}]", row, list)) for key, row in rows.items()}
