"""What a parent's gates did with a corpus: counts, weights and contributions by layer, expert and rank.

Sums only, so that two profiles of different records add up to the profile of both, in any order. For every array
there are also bootstrap replicates: in replicate b each record counts as often as a Poisson(1) draw says, which
resamples whole records without keeping them. The spread of a figure over the replicates is its uncertainty.

Axes: `layer` counts the MoE layers and `Profile.layers` gives their block indices; expert ids are local to a layer;
`rank` 0 is the gate's first choice. How the numbers come about is known to `profiler`, what they are worth to
`utility`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from specialists.builder.errors import BuilderError
from specialists.builder.npz_file import Expected, NpzFileError, NpzReader, write_npz

FORMAT: Final = "coe-profile/1"

_MOST_LAYERS, _MOST_EXPERTS, _MOST_RANKS, _MOST_REPLICATES, _MOST_DOMAINS = 1024, 4096, 64, 1024, 256
_MOST_BYTES: Final = 4 << 30
_MOST_META_BYTES: Final = 16 << 20


class ProfileError(BuilderError):
    """A profile cannot be read, or two of them do not belong together; the message names the field and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileShape:
    """How many layers, experts in each, ranks (experts used per token) and bootstrap replicates."""

    layers: int
    experts: int
    ranks: int
    replicates: int

    def axes(self, names: str) -> tuple[int, ...]:
        """The sizes of the axes named by their first letters: "ler" is (layer, expert, rank), "b" replicates."""
        sizes = {"l": self.layers, "e": self.experts, "r": self.ranks, "b": self.replicates}
        return tuple(sizes[name] for name in names)


# Each array's axes, as `ProfileShape.axes` reads them. Those called *_max are maxima, all others are sums.
_AXES: Final = MappingProxyType(
    {
        "count": "ler",
        "weight_sum": "ler",
        "num_tokens": "l",
        "contribution_sum": "le",
        "contribution_square_sum": "le",
        "contribution_max": "le",
        "output_norm_sum": "le",
        "output_norm_max": "le",
        "replicate_tokens": "bl",
        "replicate_count": "ble",
        "replicate_weight": "ble",
        "replicate_contribution": "ble",
    }
)
_WHOLE: Final = frozenset({"count", "num_tokens"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DomainProfile:
    """One domain's sums. f is an expert's output with its own scale (‖f‖ in the units of the residual stream),
    w the weight that the model multiplies it with.

    Weights in `weight_sum` are normalised: those of one token in one layer sum to 1 whatever the architecture does.
    `contribution_*` and `output_*` are zero unless the profile was made with contributions.
    """

    count: NDArray[np.int64]  # how often the expert was chosen at that rank
    weight_sum: NDArray[np.float64]
    num_tokens: NDArray[np.int64]
    contribution_sum: NDArray[np.float64]  # Σ ‖w·f‖ over the tokens routed to the expert
    contribution_square_sum: NDArray[np.float64]  # Σ ‖w·f‖²
    contribution_max: NDArray[np.float64]  # max ‖w·f‖
    output_norm_sum: NDArray[np.float64]  # Σ ‖f‖, without the gate's weight
    output_norm_max: NDArray[np.float64]  # max ‖f‖
    replicate_tokens: NDArray[np.float64]
    replicate_count: NDArray[np.float64]
    replicate_weight: NDArray[np.float64]
    replicate_contribution: NDArray[np.float64]
    num_records: int = 0
    num_skipped: int = 0  # conversations that the model's chat template refused
    corpus: str = ""  # digest of the text, "sha256:…"; empty once profiles of different files were added up
    curve: tuple[Mapping[str, Any], ...] = ()  # how stable the mask was after each increment, oldest first

    @classmethod
    def zeros(cls, shape: ProfileShape, *, corpus: str = "") -> Self:
        arrays: dict[str, Any] = {
            name: np.zeros(each.shape, dtype=each.dtype) for name, each in expected_arrays(shape).items()
        }
        return cls(**arrays, corpus=corpus)

    @property
    def shape(self) -> ProfileShape:
        layers, experts, ranks = self.count.shape
        return ProfileShape(layers=layers, experts=experts, ranks=ranks, replicates=len(self.replicate_tokens))

    @property
    def routed_tokens(self) -> NDArray[np.int64]:
        """[layer, expert]: tokens for which the expert was among the chosen, at any rank."""
        return np.asarray(self.count.sum(axis=2), dtype=np.int64)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in _AXES}

    def __add__(self, other: Self) -> Self:
        """The profile of both sets of records, which must not overlap. Raises ProfileError for other shapes."""
        if self.shape != other.shape:
            raise ProfileError(f"shape: {self.shape} and {other.shape} cannot be added; profile with equal settings.")
        mine, theirs = self.arrays(), other.arrays()
        summed = {
            name: np.maximum(mine[name], theirs[name]) if name.endswith("_max") else mine[name] + theirs[name]
            for name in mine
        }
        corpus = self.corpus if self.corpus == other.corpus else ""
        curve = (*self.curve, *other.curve)
        counts = {name: getattr(self, name) + getattr(other, name) for name in ("num_records", "num_skipped")}
        return replace(self, **summed, **counts, corpus=corpus, curve=curve)


def expected_arrays(shape: ProfileShape) -> dict[str, Expected]:
    """Type and shape of every array of a DomainProfile."""
    return {
        name: Expected(np.int64 if name in _WHOLE else np.float64, shape.axes(axes)) for name, axes in _AXES.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """Profiles of several domains of one parent.

    `layers` are the block indices of the MoE layers, in the order of the arrays' first axis. `parent` is the
    parent's fingerprint. `settings` says how it was made, as plain JSON values.
    """

    layers: tuple[int, ...]
    domains: Mapping[str, DomainProfile]
    parent: str
    architecture: str = ""
    has_contributions: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.domains:
            raise ProfileError("domains: a profile has at least one domain.")
        object.__setattr__(self, "domains", MappingProxyType(dict(self.domains)))
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))
        if {each.shape for each in self.domains.values()} != {self.shape} or self.shape.layers != len(self.layers):
            raise ProfileError("domains: differ in layers, experts, ranks or replicates; profile them together.")

    @property
    def shape(self) -> ProfileShape:
        return next(iter(self.domains.values())).shape

    @property
    def num_experts(self) -> int:
        return self.shape.experts

    def domain(self, name: str) -> DomainProfile:
        """Raises ProfileError for a domain that was not profiled."""
        if name not in self.domains:
            raise ProfileError(f"domain: {name[:80]!r} was not profiled; there are {', '.join(self.domains)}.")
        return self.domains[name]


def merge(first: Profile, second: Profile) -> Profile:
    """Domains of both; a domain in both is the sum of its records. Raises ProfileError when they do not match."""
    for name in ("parent", "layers", "has_contributions"):
        if getattr(first, name) != getattr(second, name):
            raise ProfileError(f"{name}: the profiles differ in it; merge profiles of one parent, made alike.")
    domains = dict(first.domains)
    for name, profile in second.domains.items():
        domains[name] = domains[name] + profile if name in domains else profile
    return replace(first, domains=domains)


def write_profile(profile: Profile, path: Path) -> None:
    """Write an .npz file without pickles; an existing one is replaced in one step. Raises OSError."""
    names = list(profile.domains)
    meta = {
        "format": FORMAT,
        "layers": list(profile.layers),
        "shape": {name: getattr(profile.shape, name) for name in ("layers", "experts", "ranks", "replicates")},
        "parent": profile.parent,
        "architecture": profile.architecture,
        "has_contributions": profile.has_contributions,
        "settings": dict(profile.settings),
        "domains": [
            {
                "name": name,
                "num_records": each.num_records,
                "num_skipped": each.num_skipped,
                "corpus": each.corpus,
                "curve": list(each.curve),
            }
            for name, each in profile.domains.items()
        ],
    }
    arrays = {
        f"{index}.{name}": array
        for index, domain in enumerate(names)
        for name, array in profile.domains[domain].arrays().items()
    }
    write_npz(path, arrays, json.dumps(meta, allow_nan=False))


def read_profile(path: Path) -> Profile:
    """A profile as `write_profile` left it. Raises ProfileError, whatever the file holds."""
    try:
        with NpzReader(path) as file:
            meta = _parse_meta(file.text(most_bytes=_MOST_META_BYTES))
            shape = _parse_shape(meta)
            described = _typed(meta, "domains", list)
            if not 0 < len(described) <= _MOST_DOMAINS:
                raise ProfileError(f"domains: {len(described)} of them; 1 to {_MOST_DOMAINS} are allowed.")
            _refuse_huge(shape, len(described))
            domains = {}
            for index, each in enumerate(described):
                name, domain = _read_domain(file, index, each, shape)
                if name in domains:
                    raise ProfileError(f"domains: {name[:80]!r} is there twice.")
                domains[name] = domain
            return Profile(
                layers=_parse_layers(meta, shape),
                domains=domains,
                parent=_typed(meta, "parent", str),
                architecture=_typed(meta, "architecture", str),
                has_contributions=_typed(meta, "has_contributions", bool),
                settings=_typed(meta, "settings", dict),
            )
    except NpzFileError as error:
        raise ProfileError(str(error)) from error
    except ProfileError as error:
        raise ProfileError(f"{path.name}: {error}") from error


def _read_domain(file: NpzReader, index: int, described: Any, shape: ProfileShape) -> tuple[str, DomainProfile]:
    if not isinstance(described, dict):
        raise ProfileError("domains: each is an object.")
    name = _typed(described, "name", str)
    arrays = {
        field_name: file.array(f"{index}.{field_name}", expected)
        for field_name, expected in expected_arrays(shape).items()
    }
    domain = DomainProfile(
        **arrays,
        num_records=_whole(described, "num_records", 0, 1 << 53),
        num_skipped=_whole(described, "num_skipped", 0, 1 << 53),
        corpus=_typed(described, "corpus", str),
        curve=tuple(point for point in _typed(described, "curve", list) if isinstance(point, dict)),
    )
    _check_sums(name, domain)
    return name, domain


def _check_sums(name: str, domain: DomainProfile) -> None:
    for field_name, array in domain.arrays().items():
        if not np.isfinite(array).all() or (array < 0).any():
            raise ProfileError(f"{name}.{field_name}: holds a negative number or none at all.")
    if (domain.count.sum(axis=1) != domain.num_tokens[:, None]).any():
        raise ProfileError(f"{name}.count: does not sum to num_tokens at each rank; the file is damaged.")


def _parse_meta(text: str) -> dict[str, Any]:
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"meta: is no JSON ({error}).") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise ProfileError(f"format: {FORMAT} is expected; make the profile anew with `coe profile`.")
    return meta


def _parse_shape(meta: Mapping[str, Any]) -> ProfileShape:
    shape = _typed(meta, "shape", dict)
    return ProfileShape(
        layers=_whole(shape, "layers", 1, _MOST_LAYERS),
        experts=_whole(shape, "experts", 1, _MOST_EXPERTS),
        ranks=_whole(shape, "ranks", 1, _MOST_RANKS),
        replicates=_whole(shape, "replicates", 0, _MOST_REPLICATES),
    )


def _refuse_huge(shape: ProfileShape, num_domains: int) -> None:
    num_bytes = num_domains * sum(each.num_bytes for each in expected_arrays(shape).values())
    if num_bytes > _MOST_BYTES:
        raise ProfileError(f"shape: would take {num_bytes} bytes; at most {_MOST_BYTES} are allowed.")


def _parse_layers(meta: Mapping[str, Any], shape: ProfileShape) -> tuple[int, ...]:
    layers: Sequence[Any] = _typed(meta, "layers", list)
    if any(type(layer) is not int or not 0 <= layer < _MOST_LAYERS for layer in layers):
        raise ProfileError("layers: block indices are expected.")
    if len(layers) != shape.layers or sorted(set(layers)) != list(layers):
        raise ProfileError("layers: as many ascending block indices as there are layers are expected.")
    return tuple(layers)


def _typed(meta: Mapping[str, Any], name: str, kind: type) -> Any:
    found = meta.get(name)
    if not isinstance(found, kind):
        raise ProfileError(f"{name}: {kind.__name__} is expected.")
    return found


def _whole(meta: Mapping[str, Any], name: str, low: int, high: int) -> int:
    found = meta.get(name)
    if type(found) is not int or not low <= found <= high:
        raise ProfileError(f"{name}: a whole number from {low} to {high} is expected.")
    return found
