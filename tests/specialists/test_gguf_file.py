"""Reading GGUF headers: good files in full, hostile ones refused before anything large is allocated."""

import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specialists.ggml_types import GGML_TYPES
from specialists.gguf_file import GgufError, Skipped, read_header
from tests.pico import write_pico_gemma

NUM_WORDS = 5_000


def write_small(path: Path) -> Path:
    """A valid file with every kind of metadata and two tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.context_length", 2048)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_array("llama.attention.head_count_kv", [2, 4])
    writer.add_token_list([f"word{number}" for number in range(NUM_WORDS)])
    writer.add_array("tokenizer.ggml.scores", [0.5] * NUM_WORDS)
    writer.add_string("tokenizer.chat_template", "x" * 100_000)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), dtype=np.float32))
    writer.add_tensor("output_norm.weight", np.ones(3, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_small(tmp_path_factory.mktemp("gguf") / "small.gguf").read_bytes()


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def header(num_tensors: int, num_keys: int, *, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys)


def tensor(name: bytes, *, shape: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(name) + dimensions + struct.pack("<IQ", kind, offset)


def with_data(head: bytes, data_bytes: int = 64) -> bytes:
    return head + bytes(-len(head) % 32 + data_bytes)


def test_metadata_and_tensors_are_read(tmp_path: Path) -> None:
    """Scalars and short arrays come out as values, long ones as counts, tensors with place and size."""
    found = read_header(write_small(tmp_path / "small.gguf"))

    assert found.architecture == "llama"
    assert found.trained_context_tokens == 2048
    assert found.of_architecture("attention.head_count_kv") == (2, 4)
    assert found.metadata["tokenizer.ggml.add_bos_token"] is True
    assert found.metadata["tokenizer.ggml.tokens"] == Skipped("string", NUM_WORDS)
    assert found.metadata["tokenizer.ggml.scores"] == Skipped("f32", NUM_WORDS)
    assert found.metadata["tokenizer.chat_template"] == Skipped("string", 100_000)
    assert found.num_items("tokenizer.ggml.tokens") == NUM_WORDS
    embedding, norm = found.tensors
    assert (embedding.name, embedding.shape, embedding.num_bytes) == ("token_embd.weight", (32, 4), 512)
    assert (norm.shape, norm.num_bytes, norm.offset - embedding.offset) == ((3,), 12, 512)
    assert embedding.offset == found.data_offset
    assert found.tensor_bytes == 524


def test_it_agrees_with_the_common_reader(tmp_path: Path) -> None:
    """On a whole model every tensor has the offset, size and shape that the gguf package gives it."""
    path = write_pico_gemma(tmp_path / "pico.gguf")

    ours = {each.name: (each.offset, each.num_bytes, each.shape) for each in read_header(path).tensors}

    theirs = gguf.GGUFReader(path).tensors
    assert ours == {
        each.name: (int(each.data_offset), int(each.n_bytes), tuple(int(n) for n in each.shape)) for each in theirs
    }


def test_block_sizes_agree_with_the_gguf_package() -> None:
    """Each type that both know has the same packing, but for Q8_1, where the package counts an older block."""
    theirs = {kind.value: sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items() if kind.name != "Q8_1"}

    ours = {number: (kind.block_len, kind.block_bytes) for number, kind in GGML_TYPES.items()}
    assert {number: ours.get(number) for number in theirs} == theirs


def split_files(folder: Path) -> list[Path]:
    """A model in two parts of one tensor each."""
    paths = [folder / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for number, path in enumerate(paths):
        key = string(b"split.count") + struct.pack("<IH", 2, 2)
        path.write_bytes(with_data(header(1, 1) + key + tensor(b"t%d" % number)))
    return paths


def test_parts_of_a_split_model_are_summed(tmp_path: Path) -> None:
    """Naming the first part reads all of them."""
    first, second = split_files(tmp_path)

    found = read_header(first)

    assert [part.path for part in found.parts] == [first, second]
    assert found.tensor_bytes == 64


def test_a_split_model_needs_all_its_parts(tmp_path: Path) -> None:
    """A part that is missing, or naming another than the first, is an error that says which file is meant."""
    first, second = split_files(tmp_path)

    with pytest.raises(GgufError, match="name the one that ends in -00001-of-00002"):
        read_header(second)
    second.unlink()
    with pytest.raises(GgufError, match=r"m-00002-of-00002\.gguf: cannot be read \(No such file"):
        read_header(first)


NAME = b"blk.0.attn_q.weight"
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is not a GGUF file"),
    "other magic": (b"PK\x03\x04" + bytes(60), "is not a GGUF file"),
    "version 1": (header(0, 0, version=1) + bytes(32), "GGUF version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(32), "big-endian"),
    "tensor count": (header(2**63, 0) + bytes(64), r"claims \d+ tensors"),
    "key count": (header(0, 2**40) + bytes(64), r"claims \d+ metadata keys"),
    "key length": (header(0, 1) + struct.pack("<Q", 2**62) + bytes(64), "metadata key of"),
    "string length": (header(0, 1) + string(b"k") + struct.pack("<IQ", 8, 2**63) + bytes(64), "ends inside"),
    "string wraps": (header(0, 1) + string(b"k") + struct.pack("<IQ", 8, 2**64 - 8) + bytes(64), "ends inside"),
    "array length": (header(0, 1) + string(b"k") + struct.pack("<IIQ", 9, 6, 2**62) + bytes(64), "ends inside"),
    "strings": (header(0, 1) + string(b"k") + struct.pack("<IIQ", 9, 8, 2**60) + bytes(64), "cannot be there"),
    "nested array": (header(0, 1) + string(b"k") + struct.pack("<IIQ", 9, 9, 1) + bytes(64), "unsupported type"),
    "value type": (header(0, 1) + string(b"k") + struct.pack("<I", 77) + bytes(64), r"unknown type \(77\)"),
    "key twice": (header(0, 2) + 2 * (string(b"k") + struct.pack("<IB", 0, 1)) + bytes(64), "'k' twice"),
    "key not UTF-8": (header(0, 1) + string(b"\xff\xfe") + struct.pack("<IB", 0, 1) + bytes(9), "not UTF-8"),
    "alignment": (header(0, 1) + string(b"general.alignment") + struct.pack("<II", 4, 24), "a power of two"),
    "no dimensions": (with_data(header(1, 0) + tensor(NAME, shape=())), "0 dimensions"),
    "five dimensions": (with_data(header(1, 0) + tensor(NAME, shape=(1,) * 5)), "5 dimensions"),
    "empty dimension": (with_data(header(1, 0) + tensor(NAME, shape=(0, 8))), "cannot have"),
    "half a block": (with_data(header(1, 0) + tensor(NAME, shape=(33,), kind=8)), "Q8_0 cannot have"),
    "withdrawn type": (with_data(header(1, 0) + tensor(NAME, kind=4)), "unknown type 4"),
    "too large": (with_data(header(1, 0) + tensor(NAME, shape=(2**60, 2**60))), "truncated or corrupt"),
    "beyond the end": (with_data(header(1, 0) + tensor(NAME, offset=64)), "truncated or corrupt"),
    "offset wraps": (with_data(header(1, 0) + tensor(NAME, offset=2**64 - 32)), "truncated or corrupt"),
    "off alignment": (with_data(header(1, 0) + tensor(NAME, offset=4)), "off its alignment"),
    "overlap": (with_data(header(2, 0) + tensor(b"a", shape=(16,)) + tensor(b"b", offset=32), 128), "overlap"),
    "tensor twice": (with_data(header(2, 0) + tensor(b"a") + tensor(b"a", offset=32), 128), "tensor 'a' twice"),
    "NUL in a name": (with_data(header(1, 0) + tensor(b"a\0b")), "control characters"),
    "path as a name": (with_data(header(1, 0) + tensor(b"../../a")), "reads like a path"),
    "long name": (with_data(header(1, 0) + tensor(b"a" * 64)), "64 bytes"),
    "no name": (with_data(header(1, 0) + tensor(b"")), "0 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    """Each defect is found and named, with the file's name in front."""
    content, message = HOSTILE[name]
    path = tmp_path / "evil.gguf"
    path.write_bytes(content)

    with pytest.raises(GgufError, match=rf"^evil\.gguf: .*{message}"):
        read_header(path)


@pytest.mark.parametrize(
    "make",
    [lambda path: None, lambda path: path.mkdir(), os.mkfifo],
    ids=["missing", "folder", "pipe"],
)
def test_what_is_no_file_is_refused_without_blocking(make: Callable[[Path], object], tmp_path: Path) -> None:
    """A missing file, a folder and a named pipe (which would block a plain open) are errors at once."""
    path = tmp_path / "x.gguf"
    make(path)

    with pytest.raises(GgufError, match=r"cannot be read|not a regular file"):
        read_header(path)


def test_many_strings_cost_no_memory(tmp_path: Path) -> None:
    """A quarter of a million empty strings in 2 MB are walked over, not kept."""
    path = tmp_path / "strings.gguf"
    array = string(b"k") + struct.pack("<IIQ", 9, 8, 250_000) + bytes(2_000_000)
    path.write_bytes(header(0, 1) + array)

    tracemalloc.start()
    found = read_header(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found.metadata["k"] == Skipped("string", 250_000)
    assert peak_bytes < 1_000_000


def reads_or_refuses(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    tracemalloc.start()
    try:
        read_header(path)
    except GgufError:
        pass
    finally:
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < 4_000_000


fuzzing = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzzing
@given(st.data())
def test_a_truncated_file_is_read_or_refused(small: bytes, tmp_path: Path, data: st.DataObject) -> None:
    """Cut anywhere, a file gives a header or a GgufError, never another exception and never much memory."""
    reads_or_refuses(tmp_path / "cut.gguf", small[: data.draw(st.integers(0, len(small)))])


@fuzzing
@given(st.data())
def test_a_file_with_flipped_bytes_is_read_or_refused(small: bytes, tmp_path: Path, data: st.DataObject) -> None:
    """With bytes overwritten at its interesting places, likewise."""
    damaged = bytearray(small)
    tail = len(small) - 1200  # tensor table and data
    places = st.one_of(st.integers(0, 400), st.integers(tail, len(small) - 8))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 2**64 - 1)), min_size=1, max_size=4)):
        width = data.draw(st.sampled_from([1, 4, 8]))
        damaged[place : place + width] = value.to_bytes(8, "little")[:width]
    reads_or_refuses(tmp_path / "flipped.gguf", bytes(damaged))


@fuzzing
@given(st.binary(max_size=200), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_rubbish_behind_a_good_magic_is_refused(tmp_path: Path, body: bytes, tensors: int, keys: int) -> None:
    """Random bytes behind the magic, with any counts, likewise."""
    reads_or_refuses(tmp_path / "rubbish.gguf", header(tensors, keys) + body)
