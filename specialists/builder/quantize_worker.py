"""The child process of `coe quantize`: reads one job from standard input, reports on standard output, a line each.

A process of its own because llama.cpp cannot be interrupted and ends the process on what it did not expect.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

from specialists.engine.llama.quantizer import QuantizerError, quantize

_PROGRESS: Final = re.compile(r"\[\s*(\d+)/\s*(\d+)\]\s*(\S+)")


def main() -> int:
    """0 when the file was written; what went wrong is the last line that was said."""
    job = json.loads(sys.stdin.readline())
    importance = None if job["importance"] is None else dict(np.load(job["importance"]).items())
    try:
        quantize(
            Path(job["source"]),
            Path(job["out"]),
            type_name=job["type"],
            threads=job["threads"],
            may_requantize=job["may_requantize"],
            importance=importance,
            on_line=_hear,
        )
    except QuantizerError as error:
        _say({"said": str(error)})
        return 1
    return 0


def _hear(line: str) -> None:
    progress = _PROGRESS.search(line)
    if progress is not None:
        _say({"done": int(progress[1]), "total": int(progress[2]), "tensor": progress[3]})
    else:
        _say({"said": line.strip()})


def _say(message: dict[str, Any]) -> None:
    try:
        print(json.dumps(message), flush=True)  # noqa: T201  # standard output is the channel
    except BrokenPipeError:  # nobody waits for the file any more, and llama.cpp could not be told
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
