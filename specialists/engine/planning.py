"""Asks llama.cpp, in a process of its own, what an engine would allocate. Never imports llama.cpp itself."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from specialists.engine.messages import DryRun, DryRunFailed, Load

_COMMAND: Final = (sys.executable, "-m", "specialists.engine.dry_run")
_PATIENCE_SECONDS: Final = 120.0  # a vocabulary of a quarter of a million entries takes three
_ENVIRONMENT: Final = {"GGML_NO_BACKTRACE": "1"}  # a crash is an answer; a debugger's report of it takes seconds


class PlanUnknown(Exception):
    """The dry run gave no answer; the message says why."""


def plan_allocations(
    order: Load, *, command: Sequence[str] = _COMMAND, patience_seconds: float = _PATIENCE_SECONDS
) -> DryRun:
    """What an engine with this order would allocate; takes 1 to 4 s. Raises PlanUnknown, whatever went wrong."""
    try:
        done = subprocess.run(  # noqa: S603  # our own interpreter and module
            command,
            input=msgspec.json.encode(order),
            capture_output=True,
            timeout=patience_seconds,
            check=False,
            env={**_ENVIRONMENT, **os.environ},
        )
    except subprocess.TimeoutExpired:
        raise PlanUnknown(f"the dry run gave no answer in {patience_seconds:g} s") from None
    except OSError as error:
        raise PlanUnknown(f"the dry run could not be started: {error}") from error
    try:
        answer = msgspec.json.decode(done.stdout, type=DryRun | DryRunFailed)
    except msgspec.DecodeError:
        raise PlanUnknown(f"the dry run ended with {done.returncode}: {_last_line(done.stderr)}") from None
    if isinstance(answer, DryRunFailed):
        raise PlanUnknown(answer.reason)
    return answer


def _last_line(said: bytes) -> str:
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"
