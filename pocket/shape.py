"""The sizes of the pocket parent, as one value that a checkpoint stores and every stage reads.

Knows no torch and no GGUF.
"""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PocketShape:
    """Sizes in numbers of things; `sliding` says per layer whether its attention is windowed."""

    vocabulary: int = 4096
    width: int = 160
    sliding: tuple[bool, ...] = (True, True, True, False)
    window_tokens: int = 128
    heads: int = 4
    kv_heads: int = 2
    head_width: int = 32
    mlp_width: int = 192
    experts: int = 32
    experts_used: int = 4
    expert_width: int = 64
    context_tokens: int = 512
    rope_base: float = 1_000_000.0
    rope_base_sliding: float = 10_000.0
    softcap: float = 30.0
    epsilon: float = 1e-6

    @property
    def layers(self) -> int:
        return len(self.sliding)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "PocketShape":
        """TypeError for a field that there is not."""
        return cls(**{**fields, "sliding": tuple(fields["sliding"])})
