"""The log of a mask: which expert took which one's place, in order, and why.

A log that does not lead to the mask beside it is refused, so what is read there can be relied on. Who decides on a
swap is `specialists.builder.passes`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from specialists.errors import SpecialistError

MOST_TEXT: Final = 500  # characters of a name, a fingerprint, a reason


class MaskError(SpecialistError):
    """A mask that cannot be used. The message names the field (and the file, where there is one) and the mend."""

    code = "invalid_mask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """In `layer`, `added` took the place of `evicted`, for the reason `why`; scores are on `scale`, larger is better.

    A score is None where the pass has none to compare (a whitelisted expert need not beat what it replaces).
    """

    pass_name: str
    layer: int
    added: int
    evicted: int
    why: str
    scale: str = ""
    added_score: float | None = None
    evicted_score: float | None = None


def replay(kept: Mapping[int, Sequence[int]], swaps: Iterable[Swap]) -> dict[int, tuple[int, ...]]:
    """`kept` after `swaps`, in order. Raises MaskError for one that evicts what is not there or adds what is."""
    sets = {layer: set(ids) for layer, ids in kept.items()}
    for index, swap in enumerate(swaps):
        held = sets.get(swap.layer)
        if held is None or swap.evicted not in held or swap.added in held:
            raise MaskError(
                f"swaps[{index}]: layer {swap.layer} cannot take {swap.added} for {swap.evicted}; "
                "the log does not belong to these kept ids."
            )
        held.remove(swap.evicted)
        held.add(swap.added)
    return {layer: tuple(sorted(held)) for layer, held in sets.items()}


def undo(kept: Mapping[int, Sequence[int]], swaps: Sequence[Swap]) -> dict[int, tuple[int, ...]]:
    backwards = [replace(swap, added=swap.evicted, evicted=swap.added) for swap in reversed(swaps)]
    try:
        return replay(kept, backwards)
    except MaskError:
        raise MaskError(
            "swaps: the log does not lead to the kept ids; drop it or use the mask it belongs to."
        ) from None


_SWAP_NAMES: Final = {"pass_name": "pass"}  # a keyword in Python, the right word in the file
_FIELDS: Final = tuple(each.name for each in fields(Swap))


def swap_row(swap: Swap) -> dict[str, Any]:
    return {_SWAP_NAMES.get(name, name): getattr(swap, name) for name in _FIELDS}


def parse_swap(index: int, row: object) -> Swap:
    content = {**typed(f"swaps[{index}]", row, dict)}
    wanted = {_SWAP_NAMES.get(name, name): name for name in _FIELDS}
    if {*content} != {*wanted}:
        raise MaskError(f"swaps[{index}]: needs the fields {', '.join(wanted)}, and no others.")
    for name in ("layer", "added", "evicted"):
        if not is_int(content[name]):
            raise MaskError(f"swaps[{index}].{name}: {shown(content[name])} must be a whole number.")
    for name in ("pass", "why", "scale"):
        check_text(f"swaps[{index}].{name}", content[name])
    for name in ("added_score", "evicted_score"):
        if content[name] is not None and not isinstance(content[name], float) and not is_int(content[name]):
            raise MaskError(f"swaps[{index}].{name}: {shown(content[name])} must be a number or null.")
    return Swap(**{wanted[name]: value for name, value in content.items()})


def check_text(name: str, text: object) -> None:
    if not isinstance(text, str) or len(text) > MOST_TEXT or not text.isprintable():
        raise MaskError(f"{name}: {shown(text)} must be one line of at most {MOST_TEXT} characters.")


def is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def shown(value: object) -> str:
    text = ascii(value) if not isinstance(value, int) or abs(value) < 1 << 64 else "a very large number"
    return text if len(text) <= 60 else text[:57] + "..."


def typed(name: str, value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        said = "an object" if kind is dict else "a list"
        raise MaskError(f"{name}: {shown(value)} must be {said}.")
    return value
