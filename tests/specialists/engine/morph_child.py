"""A process that stops in the middle of a morph and says so, to be killed there."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from specialists.engine.frame import Frame, Weights
from tests.specialists.engine.frames import NUM_KEPT, WIDE, family_at, frame_of, loaded


@dataclass(frozen=True, slots=True)
class HaltingTensor:
    """A weight tensor whose writes end after the first half of the bytes, and never return."""

    tensor: Weights

    def write(self, source_address: int, offset: int, num_bytes: int) -> None:
        self.tensor.write(source_address, offset, num_bytes // 2)
        sys.stdout.write("half written\n")
        sys.stdout.flush()
        sys.stdin.readline()

    def read(self, offset: int, num_bytes: int) -> bytes:
        return self.tensor.read(offset, num_bytes)


def main() -> None:
    path = Path(sys.argv[1])
    family = family_at(path, WIDE, num_kept=NUM_KEPT)
    with loaded(family, "math") as found:
        frame = frame_of(found)
        tensors = [each._replace(weights=HaltingTensor(each.weights)) for each in frame.tensors]
        halting = Frame(tensors, frame.files, frame.held, serving=frame.serving)
        halting.morph("law", family.members["law"], clock=time.monotonic)


if __name__ == "__main__":
    main()
