"""How much memory the specialists may take, when nobody said; and sizes as people write them.

`default_memory_budget` is a pure function of a reading. `read_memory` takes the reading: of the GPUs through
`nvidia-smi` (no driver is loaded into this process), of the RAM through /proc and the cgroup that confines us.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KIB, MIB, GIB, TIB = (1 << 10, 1 << 20, 1 << 30, 1 << 40)

_UNITS: Final[Mapping[str, int]] = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
    "tib": TIB,
}
_SIZE = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]{0,3})\s*", re.ASCII)
_RAM_SHARE: Final = 0.75  # the rest is for the gateway, the engines' own needs and everybody else
_RAM_SHARE_WITH_PARKING: Final = 0.9  # without a GPU, where parked conversations have room beside the memory budget
_PARKING_ROOM: Final = 1.2  # of that budget, where somebody set a larger one
_DEVICE_MARGIN_BYTES: Final = 768 * MIB  # driver context and workspaces of an engine; no header tells them
_QUERY = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
_QUERY_SECONDS: Final = 5.0

Runner = Callable[[Sequence[str]], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReading:
    """Bytes that are free right now; `device_free_bytes` is the sum over the GPUs, None without any."""

    device_free_bytes: int | None
    ram_available_bytes: int


def default_memory_budget(reading: MemoryReading) -> int:
    """Bytes to plan with: free device memory less a margin, or without a GPU a share of the available RAM."""
    if reading.device_free_bytes is not None:
        return max(0, reading.device_free_bytes - _DEVICE_MARGIN_BYTES)
    return int(reading.ram_available_bytes * _RAM_SHARE)


def default_ram_budget(reading: MemoryReading, budget_bytes: int) -> int:
    """Bytes of RAM for what no GPU holds and for parked conversations, beside a memory budget of so many bytes.

    With a GPU a share of the available RAM. Without one the memory budget is of RAM itself, and more is only for
    parked conversations.
    """
    if reading.device_free_bytes is not None:
        return int(reading.ram_available_bytes * _RAM_SHARE)
    return max(int(reading.ram_available_bytes * _RAM_SHARE_WITH_PARKING), int(budget_bytes * _PARKING_ROOM))


def parse_bytes(text: str) -> int:
    """Bytes of a size such as "15GiB", "512 MB", "1.5GiB" or plain "1073741824". Raises ValueError."""
    found = _SIZE.fullmatch(text)
    unit = _UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise ValueError(f"{text[:40]!r} is not a size; write it like 15GiB, 512MB or a plain number of bytes")
    whole, _, fraction = found[1].partition(".")
    scale: int = 10 ** len(fraction)
    return int(whole) * unit + int(fraction or "0") * unit // scale


def format_bytes(num_bytes: int) -> str:
    """A size for people, in the largest binary unit that keeps it at 1 or above: "9.9 GiB"."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if abs(num_bytes) >= unit:
            return f"{num_bytes / unit:.1f} {name}"
    return f"{num_bytes} bytes"


def run_command(command: Sequence[str]) -> str | None:
    """What a command prints; None when it does not exist, fails or takes longer than 5 s."""
    try:
        done = subprocess.run(  # noqa: S603  # the command line is this module's own, no part of it comes from outside
            command, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout


def read_memory(
    *,
    run: Runner = run_command,
    root: Path = Path("/"),
    environment: Mapping[str, str] = os.environ,
) -> MemoryReading:
    """Take a reading. `root` is where /proc and /sys/fs/cgroup are looked for."""
    return MemoryReading(
        device_free_bytes=_device_free(run, environment.get("CUDA_VISIBLE_DEVICES")),
        ram_available_bytes=_ram_available(root),
    )


def _device_free(run: Runner, visible: str | None) -> int | None:
    """Free bytes of the GPUs an engine would see; None without any."""
    if visible is not None and (not visible.strip() or visible.strip().startswith("-1")):
        return None
    command = [*_QUERY, f"--id={visible.strip()}"] if visible else list(_QUERY)
    printed = run(command)
    if printed is None:
        return None
    free = [int(line) * MIB for line in printed.split() if line.isascii() and line.isdigit()]
    return sum(free) if free else None


def _ram_available(root: Path) -> int:
    of_machine = _meminfo_available(root / "proc" / "meminfo")
    return max(0, min([of_machine, *_cgroup_rooms(root)]))


def _meminfo_available(meminfo: Path) -> int:
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * KIB
    # Not Linux: half of the memory that is installed is a guess on the safe side.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _cgroup_rooms(root: Path) -> Iterable[int]:
    """For each cgroup that limits us, version 1 or 2, the bytes left in it."""
    mounted = root / "sys" / "fs" / "cgroup"
    for line in _lines(root / "proc" / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _rooms_upwards(mounted, path, ("memory.max", "memory.current", "inactive_file"))
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _rooms_upwards(mounted / "memory", path, names)


def _rooms_upwards(mounted: Path, path: str, names: tuple[str, str, str]) -> Iterable[int]:
    """The room in a cgroup and in each above it; a container may see only the top of the tree."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    limit_name, usage_name, reclaimable_key = names
    for depth in range(len(parts), -1, -1):
        folder = mounted.joinpath(*parts[:depth])
        limit, usage = _number(folder / limit_name), _number(folder / usage_name)
        if limit is not None and usage is not None:
            yield limit - usage + _reclaimable(folder / "memory.stat", reclaimable_key)


def _reclaimable(stat: Path, key: str) -> int:
    """Page cache counted as usage that the kernel gives back before it refuses anybody."""
    for line in _lines(stat):
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0


def _number(file: Path) -> int | None:
    """The number in a file; None when there is no such file or it says "max"."""
    text = "".join(_lines(file)).strip()
    return int(text) if text.isdigit() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
