"""An engine process that tells what memory it takes: once it is loaded, and again before it is ended.

On a CPU that is its resident memory, as Linux has it; with a GPU what the driver says of its process, which takes too
long to be asked while somebody waits for the engine's room.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from specialists.engine.client import EngineClient
from specialists.engine.protocol import EngineInfo, EngineSpec
from specialists.pool.budget import KIB, MIB, Runner, run_command

_QUERY = ("nvidia-smi", "--query-compute-apps=pid,used_gpu_memory", "--format=csv,noheader,nounits")

Learn = Callable[[int, bool], None]
"""Bytes, and whether the engine has worked by then."""


class MeasuredEngine(EngineClient):
    """`read` gives a process's bytes, None where they cannot be told; `learn` is told them, in a thread."""

    def __init__(
        self,
        spec: EngineSpec,
        *,
        read: Callable[[int], int | None],
        learn: Learn,
        reads_at_end: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(spec, **options)
        self._read_bytes = read
        self._learn = learn
        self._reads_at_end = reads_at_end
        self._pid: int | None = None

    async def load(self, on_progress: Callable[[float], None], *, serving: str = "") -> EngineInfo:
        """See `protocol.Engine.load`."""
        info = await super().load(on_progress, serving=serving)
        self._pid = info.pid
        await asyncio.to_thread(self._measure, info.pid, has_worked=False)
        return info

    async def close(self) -> None:
        """See `protocol.Engine.close`."""
        pid, self._pid = self._pid, None
        try:
            if pid is not None and self._reads_at_end:
                await asyncio.to_thread(self._measure, pid, has_worked=True)
        finally:
            await super().close()

    def _measure(self, pid: int, *, has_worked: bool) -> None:
        taken_bytes = self._read_bytes(pid)
        if taken_bytes is not None:
            self._learn(taken_bytes, has_worked)


def resident_bytes(pid: int, *, root: Path = Path("/")) -> int | None:
    """RAM that a process has touched, mapped files included; None where it is gone, or this is not Linux."""
    try:
        status = (root / "proc" / str(pid) / "status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = status.partition("VmRSS:")[2].split()
    return int(found[0]) * KIB if found else None


def device_bytes(pid: int, *, run: Runner = run_command) -> int | None:
    """Memory of all GPUs that a process holds; None where the driver does not name it, as in most containers."""
    rows = [line.replace(",", " ").split() for line in (run(_QUERY) or "").splitlines()]
    held = [int(row[1]) for row in rows if len(row) == 2 and row[0] == str(pid) and row[1].isdigit()]
    return sum(held) * MIB if held else None
