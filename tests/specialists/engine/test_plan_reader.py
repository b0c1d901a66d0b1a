"""Planned files, read as if they lay on disk, by Python and by C."""

import ctypes
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specialists.engine.llama.virtual_file import VirtualFile
from specialists.engine.plan_reader import PlanReader
from specialists.gguf_plan import FileRange, GgufPlan, Literal, Segment, Zeros

SOURCE = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "source.bin"
    path.write_bytes(SOURCE)
    return path


def plan_of(source: Path, pieces: list[tuple[str, int, int]]) -> tuple[GgufPlan, bytes]:
    """A plan of (kind, offset, length) pieces, and the bytes that it stands for."""
    segments: list[Segment] = []
    content = b""
    for kind, offset, length in pieces:
        if kind == "file":
            segments.append(FileRange(source, offset, length))
            content += SOURCE[offset : offset + length]
        elif kind == "literal":
            segments.append(Literal(SOURCE[offset : offset + length]))
            content += SOURCE[offset : offset + length]
        else:
            segments.append(Zeros(length))
            content += bytes(length)
    return GgufPlan(segments=tuple(segments), tensors=(), data_offset=0), content


pieces = st.lists(
    st.tuples(st.sampled_from(["file", "literal", "zeros"]), st.integers(0, 5000), st.integers(1, 3000)),
    min_size=1,
    max_size=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(pieces, st.lists(st.tuples(st.integers(0, 25000), st.integers(0, 9000)), max_size=6))
def test_any_part_of_a_plan_reads_as_the_whole_does(
    source: Path, given_pieces: list[tuple[str, int, int]], parts: list[tuple[int, int]]
) -> None:
    """Wherever a read begins and ends, it gives those bytes, and fewer only at the end of the file."""
    plan, content = plan_of(source, given_pieces)
    with PlanReader(plan) as reader:
        for offset, length in parts:
            target = bytearray(length)
            count = reader.read_into(offset, memoryview(target))
            assert target[:count] == content[offset : offset + length]
            assert count == len(content[offset : offset + length])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(pieces, st.lists(st.tuples(st.integers(0, 25000), st.integers(1, 9000)), max_size=6))
def test_c_reads_the_same_bytes(
    source: Path, given_pieces: list[tuple[str, int, int]], parts: list[tuple[int, int]]
) -> None:
    """fseek and fread on the stream agree with the content, from the beginning and from the end."""
    plan, content = plan_of(source, given_pieces)
    library = ctypes.CDLL(None)
    library.fread.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    library.fread.restype = ctypes.c_size_t
    library.fseeko.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
    with VirtualFile(plan) as file:
        for offset, length in parts:
            offset = min(offset, len(content))
            buffer = ctypes.create_string_buffer(length)
            assert library.fseeko(file.pointer, *((offset, 0) if length % 2 else (offset - len(content), 2))) == 0
            count = library.fread(buffer, 1, length, file.pointer)
            assert buffer.raw[:count] == content[offset : offset + length]
        assert library.fseeko(file.pointer, -1, 0) == -1


def test_a_source_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    """The missing bytes are not read as zeros, neither by Python nor, with the reason kept, by C."""
    source = tmp_path / "source.bin"
    source.write_bytes(SOURCE)
    plan, _ = plan_of(source, [("file", 0, 5000)])
    library = ctypes.CDLL(None)
    library.fread.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    with PlanReader(plan) as reader, VirtualFile(plan) as file:
        source.write_bytes(SOURCE[:100])
        with pytest.raises(OSError, match="became shorter"):
            reader.read_into(0, memoryview(bytearray(200)))
        library.fread(ctypes.create_string_buffer(200), 200, 1, file.pointer)
        assert "became shorter" in str(file.error)


def test_a_missing_source_is_told_when_it_is_opened(tmp_path: Path) -> None:
    """Not only when its bytes are wanted."""
    plan, _ = plan_of(tmp_path / "nowhere.bin", [("file", 0, 10)])
    for opens in (PlanReader, VirtualFile):
        with pytest.raises(FileNotFoundError):
            opens(plan)
