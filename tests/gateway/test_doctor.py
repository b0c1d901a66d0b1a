"""The doctor judges facts: each test changes one fact and looks at what is said of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.college import College, Entry
from gateway.doctor import Finding, Status, diagnose, is_fit
from gateway.machine import Binding, Machine, ask_binding, read_machine, try_port
from specialists.engine.protocol import EngineSpec
from specialists.pool.footprint import Footprint

GIB = 1024**3

HEALTHY = Machine(
    python=(3, 12, 1),
    compiler="/usr/bin/c++",
    binding=Binding(version="0.3.36"),
    gpus=(),
    port_error=None,
    open_files=65536,
    starter_weights=Path("SmolLM2.gguf"),
)


def footprint(num_bytes: int) -> Footprint:
    return Footprint(
        weights_bytes=num_bytes,
        full_cache_bytes=0,
        sliding_cache_bytes=0,
        compute_bytes=0,
        process_bytes=0,
        full_cells=0,
        sliding_cells=0,
    )


def entry(tag: str, *, footprint_bytes: int = GIB, unavailable: str | None = None) -> Entry:
    return Entry(
        tag=tag,
        domains=("general",),
        engine=EngineSpec(model_path=Path(f"{tag}.gguf"), context_tokens=2048),
        size_bytes=1000,
        footprint=None if unavailable else footprint(footprint_bytes),
        unavailable=unavailable,
    )


def college(*entries: Entry) -> College:
    entries = entries or (entry("general:q4"), entry("math:q4"))
    return College(path=Path("college.toml"), budget_bytes=2 * GIB, default="general:q4", entries=entries)


def told(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_a_healthy_machine_has_nothing_to_mend() -> None:
    """All is ok, and no mend is offered."""
    findings = diagnose(HEALTHY, college())

    assert {finding.status for finding in findings} == {Status.OK}
    assert [finding.mend for finding in findings if finding.mend] == []
    assert is_fit(findings)


@pytest.mark.parametrize(
    ("name", "machine", "status"),
    [
        ("python", replace(HEALTHY, python=(3, 10, 14)), Status.FAIL),
        ("llama.cpp", replace(HEALTHY, binding=Binding(error="no module")), Status.FAIL),
        ("compiler", replace(HEALTHY, compiler=None), Status.OK),
        ("compiler", replace(HEALTHY, compiler=None, binding=Binding(error="no module")), Status.FAIL),
        ("starter weights", replace(HEALTHY, starter_weights=None), Status.WARN),
        ("gpu", replace(HEALTHY, gpus=("RTX",)), Status.WARN),
        ("gpu", replace(HEALTHY, gpus=("RTX",), binding=Binding(version="1", gpu=True)), Status.OK),
        ("gpu", replace(HEALTHY, gpu_error="driver mismatch"), Status.WARN),
        ("port", replace(HEALTHY, port_error="Address already in use"), Status.FAIL),
        ("open files", replace(HEALTHY, open_files=256), Status.WARN),
        ("open files", replace(HEALTHY, open_files=-1), Status.OK),
    ],
)
def test_each_fault_of_the_machine_is_found(name: str, machine: Machine, status: Status) -> None:
    """It is judged as it deserves; whatever is not ok comes with a mend, and only a failure makes unfit."""
    findings = diagnose(machine, college())

    assert told(findings, name).status is status
    assert bool(told(findings, name).mend) is (status is not Status.OK)
    assert is_fit(findings) is (Status.FAIL not in {finding.status for finding in findings})


def test_a_college_that_cannot_be_read_is_one_failure() -> None:
    """Nothing is said of specialists that are not known."""
    findings = diagnose(HEALTHY, replace(college(), entries=(), error="default: no such tag"))

    assert told(findings, "college").status is Status.FAIL
    assert [finding.name for finding in findings if finding.name.startswith(("weights", "memory"))] == []


def test_missing_weights_are_fatal_for_the_default_alone() -> None:
    """Without the default nobody answers what nobody else should; without another, the rest serve."""
    gone = "math.gguf does not exist; put the weights there"
    other = diagnose(HEALTHY, college(entry("general:q4"), entry("math:q4", unavailable=gone)))
    default = diagnose(HEALTHY, college(entry("general:q4", unavailable=gone), entry("math:q4")))

    assert told(other, "weights of math:q4").status is Status.WARN
    assert told(default, "weights of general:q4").status is Status.FAIL
    assert told(other, "weights of math:q4").detail == "math.gguf does not exist"
    assert told(other, "weights of math:q4").mend == "put the weights there"


def test_what_is_given_otherwise_than_asked_for_is_a_warning() -> None:
    """A capped context is told with its mend, and nothing fails for it."""
    capped = replace(entry("math:q4"), notes=("context 9000 is more than the 4096 tokens; lower context",))
    findings = diagnose(HEALTHY, college(entry("general:q4"), capped))

    assert told(findings, "settings of math:q4").status is Status.WARN
    assert told(findings, "settings of math:q4").mend == "lower context"
    assert is_fit(findings)


def test_an_engine_beyond_the_budget_is_told_with_both_numbers() -> None:
    """What it needs and what there is; fatal when nothing else fits either."""
    large = entry("math:q4", footprint_bytes=3 * GIB)
    findings = diagnose(HEALTHY, college(entry("general:q4"), large))
    hopeless = diagnose(HEALTHY, college(large))

    assert told(findings, "memory").status is Status.WARN
    assert "3" in told(findings, "memory").detail
    assert "2" in told(findings, "memory").detail
    assert told(hopeless, "memory").status is Status.FAIL


def test_an_engine_beyond_the_ram_names_that_budget() -> None:
    """Raising the other one would be of no use."""
    found = replace(college(entry("general:q4")), ram_budget_bytes=GIB // 2)
    memory = told(diagnose(HEALTHY, found), "memory")

    assert memory.status is Status.FAIL
    assert "the budget of RAM is 512.0 MiB" in memory.detail
    assert memory.mend is not None
    assert memory.mend.startswith("raise COE_RAM_BUDGET")


def test_the_binding_is_asked_in_a_process_of_its_own() -> None:
    """What the child says is believed; a child that crashes or says nothing is an answer, not an exception."""
    assert ask_binding(("echo", '{"version": "9", "gpu": true}')) == Binding(version="9", gpu=True)
    assert ask_binding(("sh", "-c", "echo broken >&2; exit 3")).error == "broken"
    assert ask_binding(("sh", "-c", "kill -SEGV $$")).error is not None
    assert ask_binding(("no-such-program-anywhere",)).error is not None


def test_a_taken_port_is_noticed() -> None:
    """A port somebody listens on cannot be had, another one can."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert try_port("127.0.0.1", port) is not None
    assert try_port("127.0.0.1", 0) is None
    assert try_port("192.0.2.1", 0) is not None


def test_this_machine_can_be_read() -> None:
    """The facts of the machine that runs the tests are there, and among them a working binding."""
    machine = read_machine(host="127.0.0.1", port=0)

    assert machine.python >= (3, 11, 0)
    assert machine.binding.error is None
    assert machine.starter_weights is not None
