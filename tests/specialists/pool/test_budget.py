"""The default budget, the readings it is made from, and sizes as people write them."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.pool.budget import (
    GIB,
    MIB,
    MemoryReading,
    default_memory_budget,
    format_bytes,
    parse_bytes,
    read_memory,
    run_command,
)


def machine(root: Path, files: dict[str, str]) -> Path:
    """A root folder with /proc and /sys/fs/cgroup as given; 8 GiB available unless said otherwise."""
    for name, text in {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8388608 kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def no_gpu(_command: Sequence[str]) -> str | None:
    return None


def test_a_gpu_decides_the_budget() -> None:
    """With a GPU the budget is its free memory less the margin, however much RAM there is."""
    reading = MemoryReading(device_free_bytes=16 * GIB, ram_available_bytes=2 * GIB)

    assert default_memory_budget(reading) == 16 * GIB - 768 * MIB
    assert default_memory_budget(MemoryReading(device_free_bytes=100, ram_available_bytes=GIB)) == 0


def test_without_a_gpu_ram_decides() -> None:
    """Three quarters of what is available."""
    assert default_memory_budget(MemoryReading(device_free_bytes=None, ram_available_bytes=8 * GIB)) == 6 * GIB


def test_ram_is_what_the_kernel_calls_available(tmp_path: Path) -> None:
    """Without a cgroup's limit MemAvailable is the reading."""
    root = machine(tmp_path, {"proc/self/cgroup": "0::/\n"})

    reading = read_memory(run=no_gpu, root=root, environment={})

    assert reading == MemoryReading(device_free_bytes=None, ram_available_bytes=8 * GIB)


@pytest.mark.parametrize(
    ("files", "expected_bytes"),
    [
        ({"memory.max": f"{2 * GIB}\n", "memory.current": f"{GIB}\n"}, GIB),
        ({"memory.max": f"{2 * GIB}", "memory.current": f"{GIB}", "memory.stat": "inactive_file 1048576"}, GIB + MIB),
        ({"memory.max": "max\n", "memory.current": f"{GIB}\n"}, 8 * GIB),
        ({"memory.max": f"{GIB}", "memory.current": f"{2 * GIB}"}, 0),
        (
            {"app/memory.max": f"{3 * GIB}", "app/memory.current": "0", "memory.max": f"{GIB}", "memory.current": "0"},
            GIB,
        ),
        ({"app/memory.max": f"{3 * GIB}", "app/memory.current": "0"}, 3 * GIB),
    ],
)
def test_a_version_2_cgroup_confines(tmp_path: Path, files: dict[str, str], expected_bytes: int) -> None:
    """The tightest limit from our cgroup upwards counts, less usage that cannot be reclaimed."""
    placed = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    root = machine(tmp_path, {"proc/self/cgroup": "0::/app\n", **placed})

    assert read_memory(run=no_gpu, root=root, environment={}).ram_available_bytes == expected_bytes


def test_a_version_1_cgroup_confines(tmp_path: Path) -> None:
    """The memory controller's own tree is read, and its way of saying "no limit" is none."""
    tree = "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n",
        f"{tree}/docker/abc/memory.limit_in_bytes": f"{3 * GIB}\n",
        f"{tree}/docker/abc/memory.usage_in_bytes": f"{2 * GIB}\n",
        f"{tree}/docker/abc/memory.stat": f"cache 5\ntotal_inactive_file {GIB}\n",
        f"{tree}/memory.limit_in_bytes": "9223372036854771712\n",
        f"{tree}/memory.usage_in_bytes": "0\n",
    }
    root = machine(tmp_path, files)

    assert read_memory(run=no_gpu, root=root, environment={}).ram_available_bytes == 2 * GIB


def test_elsewhere_half_of_the_memory_is_taken(tmp_path: Path) -> None:
    """Without /proc the reading is still a positive number of bytes."""
    assert read_memory(run=no_gpu, root=tmp_path, environment={}).ram_available_bytes > 0


@pytest.mark.parametrize(
    ("printed", "expected_bytes"),
    [("15360\n", 15 * GIB), ("1024\n2048\n", 3 * GIB), ("[N/A]\n", None), ("", None), (None, None)],
)
def test_device_memory_is_summed(tmp_path: Path, printed: str | None, expected_bytes: int | None) -> None:
    """Free memory of all GPUs in MiB, one to a line; anything else means there is none to count on."""
    reading = read_memory(run=lambda _command: printed, root=machine(tmp_path, {}), environment={})

    assert reading.device_free_bytes == expected_bytes


@pytest.mark.parametrize(
    ("visible", "asked"), [("0,2", ["--id=0,2"]), ("GPU-8a", ["--id=GPU-8a"]), ("", None), ("-1", None)]
)
def test_hidden_gpus_do_not_count(tmp_path: Path, visible: str, asked: list[str] | None) -> None:
    """CUDA_VISIBLE_DEVICES narrows the question, or makes it pointless."""
    commands: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> str:
        commands.append(command)
        return "1024\n"

    environment = {"CUDA_VISIBLE_DEVICES": visible}
    reading = read_memory(run=run, root=machine(tmp_path, {}), environment=environment)

    assert [command[3:] for command in commands] == ([asked] if asked else [])
    assert reading.device_free_bytes == (GIB if asked else None)


def test_commands_that_fail_say_nothing() -> None:
    """A command that does not exist, or ends badly, reads as None; one that works as what it printed."""
    assert run_command(["no-such-command-anywhere"]) is None
    assert run_command([sys.executable, "-c", "raise SystemExit(3)"]) is None
    assert run_command([sys.executable, "-c", "print(5)"]) == "5\n"


@pytest.mark.parametrize(
    ("text", "expected_bytes"),
    [
        ("15GiB", 15 * GIB),
        ("512MB", 512_000_000),
        (" 1.5 gib ", 1_610_612_736),
        ("1073741824", GIB),
        ("0", 0),
        ("10 b", 10),
        ("0.000000001TB", 1000),
    ],
)
def test_sizes_are_read(text: str, expected_bytes: int) -> None:
    """Binary and decimal units in any case, fractions, and plain bytes."""
    assert parse_bytes(text) == expected_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "1e9", "15G", "1,5GiB", "1 2", "nan", "٣MB", "9" * 30])
def test_other_sizes_name_the_mend(text: str) -> None:
    """What is no size, or could be read in two ways, is refused with an example."""
    with pytest.raises(ValueError, match="write it like 15GiB, 512MB"):
        parse_bytes(text)


@given(st.integers(0, 2**60))
def test_a_formatted_size_reads_back_to_what_it_shows(num_bytes: int) -> None:
    """parse(format(n)) is n to within the one decimal that is shown."""
    shown = format_bytes(num_bytes).replace("bytes", "B")

    assert abs(parse_bytes(shown) - num_bytes) <= num_bytes * 0.051
