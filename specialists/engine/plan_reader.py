"""Reads a planned GGUF at any place, as if it lay on disk."""

import os
from bisect import bisect_right
from pathlib import Path
from typing import Self

from specialists.gguf_plan import FileRange, GgufPlan, Literal, Segment


class PlanReader:
    """The bytes of a plan; a context manager. Raises OSError when a file that it draws on cannot be opened."""

    def __init__(self, plan: GgufPlan) -> None:
        self.num_bytes = plan.num_bytes
        self._starts: list[int] = []
        self._segments: list[Segment] = []
        for start, segment in plan.placed():
            self._starts.append(start)
            self._segments.append(segment)
        self._descriptors: dict[Path, int] = {}
        try:
            for path in {segment.path for segment in self._segments if isinstance(segment, FileRange)}:
                self._descriptors[path] = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def read_into(self, offset: int, target: memoryview) -> int:
        """Fill `target` (bytes) from `offset` on; returns how many there were, fewer only at the end of the file.

        Raises OSError when a file fails or has become shorter than the plan says.
        """
        done = 0
        while done < len(target) and offset + done < self.num_bytes:
            done += self._read_some(offset + done, target[done:])
        return done

    def _read_some(self, offset: int, target: memoryview) -> int:
        """At least one byte, at most to the end of the segment that `offset` is in."""
        index = bisect_right(self._starts, offset) - 1
        segment, inside = self._segments[index], offset - self._starts[index]
        target = target[: segment.num_bytes - inside]
        match segment:
            case FileRange(path, start):
                read = os.preadv(self._descriptors[path], [target], start + inside)
                if read == 0:
                    raise OSError(f"{path.name} became shorter while it was read")
                return read
            case Literal(data):
                target[:] = data[inside : inside + len(target)]
            case _:
                target[:] = bytes(len(target))
        return len(target)
