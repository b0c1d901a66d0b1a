"""Room in the two memories that engines are planned into: what there is, what one takes, what is lacking.

One is what `COE_MEMORY_BUDGET` is of: a GPU's memory, or without one RAM. The other is the host's RAM: what of an
engine is left there, and what its parked conversations may take beside that. Without a GPU an engine counts in both.
"""

from collections.abc import Iterable
from dataclasses import dataclass

NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of the memory budget's memory (`device_bytes`) and of RAM."""

    device_bytes: int = 0
    ram_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """Of the memory it is mainly in."""
        return self.device_bytes or self.ram_bytes

    def holds(self, need: "Room") -> bool:
        return need.device_bytes <= self.device_bytes and need.ram_bytes <= self.ram_bytes

    def at_least(self, other: "Room") -> "Room":
        """The larger of both, memory by memory."""
        return Room(max(self.device_bytes, other.device_bytes), max(self.ram_bytes, other.ram_bytes))

    def __add__(self, other: "Room") -> "Room":
        return Room(self.device_bytes + other.device_bytes, self.ram_bytes + other.ram_bytes)

    def __sub__(self, other: "Room") -> "Room":
        return Room(self.device_bytes - other.device_bytes, self.ram_bytes - other.ram_bytes)


NOTHING = Room()


def total(rooms: Iterable[Room]) -> Room:
    return sum(rooms, start=NOTHING)
