"""An engine process that dies, as by SIGKILL, when the first tensor of its first morph is half written."""

import os
import signal

from specialists.engine.__main__ import main
from specialists.engine.frame_service import FrameService
from specialists.engine.llama.tensors import WeightTensor

whole_morph, whole_write = FrameService.morph, WeightTensor.write


def half_write(tensor: WeightTensor, source_address: int, offset: int, num_bytes: int) -> None:
    whole_write(tensor, source_address, offset, num_bytes // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def half_morph(*args: object, **options: object) -> object:
    WeightTensor.write = half_write  # type: ignore[assignment, method-assign]
    return whole_morph(*args, **options)  # type: ignore[arg-type]


if __name__ == "__main__":
    FrameService.morph = half_morph  # type: ignore[assignment, method-assign]
    main()
