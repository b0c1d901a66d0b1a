"""Planned files on disk: the right bytes by either way of copying, all of them announced."""

import hashlib
import threading
import tracemalloc
from pathlib import Path

import pytest

from specialists.builder.plan_writer import write_plan
from specialists.gguf_file import GgufError
from specialists.gguf_plan import FileRange, GgufPlan, Literal, Segment, Zeros


def plan_of(*segments: Segment) -> GgufPlan:
    return GgufPlan(segments=segments, tensors=(), data_offset=0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(bytes(range(256)) * 16)
    return path


def test_segments_are_written_in_order(source: Path, tmp_path: Path) -> None:
    """Literals, ranges and zeros, the last ones included; every byte is announced."""
    out, heard = tmp_path / "out", list[int]()
    plan = plan_of(Literal(b"head"), FileRange(source, 250, 10), Zeros(5), FileRange(source, 0, 3), Zeros(7))

    write_plan(plan, out, heard.append)

    data = source.read_bytes()
    assert out.read_bytes() == b"head" + data[250:260] + bytes(5) + data[:3] + bytes(7)
    assert sum(heard) == plan.num_bytes == 29


def test_a_source_that_shrank_is_an_error(source: Path, tmp_path: Path) -> None:
    """A copy that ends early is never passed off as a whole one."""
    with pytest.raises(GgufError, match="source: shrank while it was copied"):
        write_plan(plan_of(FileRange(source, 4000, 200)), tmp_path / "out")


@pytest.mark.parametrize("num_bytes", [0, 1, 9 << 20])
def test_the_digest_is_of_the_whole_file(num_bytes: int, tmp_path: Path) -> None:
    """Long segments pass in pieces, in order, and each is digested once."""
    source = tmp_path / "source"
    source.write_bytes(b"".join(number.to_bytes(4, "little") for number in range(num_bytes // 4 + 1)))
    plan = plan_of(Literal(b"head"), FileRange(source, 0, num_bytes), Zeros(5 << 20), Literal(b"x"), Zeros(1000))

    digest = write_plan(plan, tmp_path / "out")

    written = (tmp_path / "out").read_bytes()
    assert written == b"head" + source.read_bytes()[:num_bytes] + bytes(5 << 20) + b"x" + bytes(1000)
    assert digest == hashlib.sha256(written).hexdigest()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Whatever is copied, a few pieces are held at a time."""
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(200 << 20)

    tracemalloc.start()
    write_plan(plan_of(FileRange(source, 0, 200 << 20)), tmp_path / "out")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 32 << 20


def test_a_callers_error_ends_the_work(source: Path, tmp_path: Path) -> None:
    """Whatever is raised while progress is told comes out, and no thread is left waiting."""

    def interrupt(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_plan(plan_of(FileRange(source, 0, 4096)), tmp_path / "out", interrupt)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("ThreadPool")] == []
