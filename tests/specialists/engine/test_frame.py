"""Frames: after any morph a model is, to the last bit, what a fresh load of that specialist would be."""

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from specialists.engine.expert_files import ExpertFiles, Piece, SourceChanged
from specialists.engine.frame import Frame, SlotTensor, Weights
from specialists.engine.frame_loading import LoadedFrame
from specialists.engine.frame_service import FrameService
from specialists.engine.llama import LlamaLog, Model
from specialists.engine.messages import MorphRefused
from specialists.expert_slots import EMPTY
from specialists.family import Family, standalone_family
from specialists.gguf_file import read_header
from specialists.moe_layout import layout
from specialists.tensor_digests import digest_tensors
from tests.pico import PicoShape
from tests.specialists.engine.frames import (
    NUM_KEPT,
    WIDE,
    context_of,
    decode,
    family_of,
    frame_of,
    fresh_logits,
    loaded,
    logits,
    packed,
    tokens,
    written,
)

SHAPES = {
    "F32, 24 of 40 experts": (WIDE, NUM_KEPT),
    "Q4_K and Q8_0": (packed("Q4_K", "Q8_0"), 4),
    "Q4_0, gate and up apart": (packed("Q4_0", "Q4_0", fused=False), 5),
    "F16": (packed("F16", "F16"), 4),
}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family_of(tmp_path_factory.mktemp("family") / "parent.gguf", WIDE, num_kept=NUM_KEPT)


@pytest.fixture
def math(family: Family) -> Iterator[LoadedFrame]:
    with loaded(family, "math") as found:
        yield found


def become(found: LoadedFrame, family: Family, name: str) -> None:
    frame_of(found).morph(name, family.members[name], clock=time.monotonic)


@pytest.mark.parametrize(("shape", "num_kept"), SHAPES.values(), ids=SHAPES)
def test_after_a_chain_of_morphs_logits_equal_a_fresh_loads(tmp_path: Path, shape: PicoShape, num_kept: int) -> None:
    """Whatever types, shapes and number of slots: the difference is 0.0 at every step, and steps do differ."""
    family = family_of(tmp_path / "parent.gguf", shape, num_kept=num_kept)
    expected = {name: fresh_logits(family, name) for name in family.members}

    with loaded(family, "math") as found:
        for name in ("law", "code", "math", "code", "law"):
            become(found, family, name)
            assert np.array_equal(logits(found.model), expected[name])

    assert not np.array_equal(expected["math"], expected["law"])
    assert not np.array_equal(expected["math"], expected["code"])


def test_the_familys_first_specialist_is_the_builders_file(family: Family, tmp_path: Path, math: LoadedFrame) -> None:
    """Served without ever being written, it computes exactly what the written file does."""
    path = written(family.plan("math"), tmp_path / "math.gguf")
    model = Model.load(path, gpu_layers=0, log=LlamaLog())

    assert np.array_equal(logits(model), logits(math.model))
    model.close()


def test_files_of_one_parent_morph_into_each_other(family: Family, tmp_path: Path) -> None:
    """Specialists in files of their own, known by their digests: to and fro, each is what its file is."""
    files = {}
    for name in ("law", "math"):
        file = layout(read_header(written(family.plan(name), tmp_path / f"{name}.gguf")))
        files[name] = (file, digest_tensors(file))
    kin = standalone_family(files)
    expected = {name: fresh_logits(kin, name) for name in kin.members}

    with loaded(kin, "law") as found:
        for name in ("math", "law", "math"):
            become(found, kin, name)
            assert np.array_equal(logits(found.model), expected[name])
    model = Model.load(tmp_path / "law.gguf", gpu_layers=0, log=LlamaLog())
    assert np.array_equal(logits(model), expected["law"])
    model.close()


def test_a_morph_moves_the_bytes_that_were_planned(family: Family, math: LoadedFrame) -> None:
    """Only experts that the two do not share are written, each with its gate row and scale."""
    frame = frame_of(math)
    plan = frame.plan(family.members["law"])
    missing = sum(
        len(set(family.members["law"][block]) - set(experts)) for block, experts in family.members["math"].items()
    )

    done = frame.morph("law", family.members["law"], clock=time.monotonic)

    assert (done.num_writes, done.num_bytes) == (missing, plan.num_bytes(family.bytes_per_expert))
    assert 0 < missing < len(family.members["math"]) * NUM_KEPT / 4
    assert (frame.serving, frame.held) == ("law", family.members["law"])


def test_cells_of_a_specialist_stay_valid_while_another_is_served(family: Family, math: LoadedFrame) -> None:
    """A conversation that is left for another specialist's and taken up again goes on as if nothing had been."""
    first, then = tokens(150), tokens(30, seed=1)
    results = []
    for detour in ("law", "math"):
        with context_of(math.model) as context:
            become(math, family, "math")
            decode(context, 0, first)
            become(math, family, detour)
            decode(context, 1, tokens(90, seed=2))
            become(math, family, "math")
            results.append(decode(context, 0, then, start=len(first)))

    undisturbed, returned = results[1], results[0]
    assert np.array_equal(undisturbed, returned)


@dataclass(frozen=True, slots=True)
class BreakingTensor:
    """A weight tensor that breaks off after so many writes to all of its kind."""

    tensor: Weights
    writes_left: list[int]

    def write(self, source_address: int, offset: int, num_bytes: int) -> None:
        if self.writes_left[0] == 0:
            raise MemoryError("as good as any")
        self.writes_left[0] -= 1
        self.tensor.write(source_address, offset, num_bytes)

    def read(self, offset: int, num_bytes: int) -> bytes:
        return self.tensor.read(offset, num_bytes)


def breaking(frame: Frame, *, after_writes: int) -> Frame:
    """The same slots, held alike, of which only so many can be written before an error."""
    left = [after_writes]
    tensors = [each._replace(weights=BreakingTensor(each.weights, left)) for each in frame.tensors]
    return Frame(tensors, frame.files, frame.held, serving=frame.serving)


@pytest.mark.parametrize("after_writes", [0, 1, 7])
def test_a_morph_that_breaks_off_serves_nobody_until_the_next_one_succeeds(
    family: Family, math: LoadedFrame, after_writes: int
) -> None:
    """The frame knows which slots it cannot trust, says so when it is checked, and writes all of them again."""
    broken = breaking(frame_of(math), after_writes=after_writes)
    with pytest.raises(MemoryError):
        broken.morph("law", family.members["law"], clock=time.monotonic)

    assert broken.serving is None
    assert EMPTY in [expert for experts in broken.held.values() for expert in experts]
    assert not broken.check(num_slots=1000, seed=0).is_sound

    mended = Frame(frame_of(math).tensors, frame_of(math).files, broken.held)
    mended.morph("code", family.members["code"], clock=time.monotonic)
    assert mended.serving == "code"
    assert np.array_equal(logits(math.model), fresh_logits(family, "code"))


def test_the_host_is_told_of_a_morph_that_broke_off(family: Family, math: LoadedFrame) -> None:
    """The answer is a refusal with the reason, and nobody is served; a refusal beforehand changes nobody."""
    broken = FrameService(breaking(frame_of(math), after_writes=3), family, clock=time.monotonic)
    beats: list[None] = []

    def beat() -> None:
        beats.append(None)

    assert isinstance(broken.morph("physics", on_write=beat), MorphRefused)
    assert (broken.serving, beats) == ("math", [])
    refused = broken.morph("law", on_write=beat)
    assert isinstance(refused, MorphRefused)
    assert "broke off (MemoryError" in refused.reason
    assert (broken.serving, len(beats)) == (None, 3)


def test_a_process_killed_in_mid_morph_leaves_nothing_behind(family: Family) -> None:
    """SIGKILL between two writes: the parent file is untouched, and the next load is as fresh as ever."""
    path = family.layouts[0].header.path
    before, expected = hashlib.sha256(path.read_bytes()).digest(), fresh_logits(family, "law")
    command = [sys.executable, "-m", "tests.specialists.engine.morph_child", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = child.stdout.readline()
        child.kill()

    assert said == "half written\n"
    assert hashlib.sha256(path.read_bytes()).digest() == before
    assert np.array_equal(fresh_logits(family, "law"), expected)


def test_a_parent_that_was_written_to_is_not_read_any_more(tmp_path: Path) -> None:
    """A morph from a file that changed is refused before anything is touched; the frame serves what it served."""
    family = family_of(tmp_path / "parent.gguf", packed("Q4_0", "Q8_0"), num_kept=4)
    with loaded(family, "math") as found:
        path = family.layouts[0].header.path
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        with path.open("r+b") as file:
            file.write(data)

        with pytest.raises(SourceChanged, match=r"parent\.gguf was changed"):
            become(found, family, "law")
        assert frame_of(found).serving == "math"


def test_a_check_finds_a_slot_that_is_not_what_it_should_be(math: LoadedFrame) -> None:
    """One changed byte in the model's memory is found and named; the same sample of sound slots has one digest."""
    frame = frame_of(math)
    sound = frame.check(num_slots=1000, seed=3)
    assert (sound.is_sound, sound.digest) == (True, frame.check(num_slots=1000, seed=3).digest)

    tensor, wrong = frame.tensors[0], np.zeros(1, dtype=np.uint8)
    tensor.weights.write(wrong.ctypes.data, 2 * tensor.bytes_per_slot, 1)

    found = frame.check(num_slots=1000, seed=3)
    assert found.digest != sound.digest
    assert found.mismatches == (f"slot 2 of {tensor.name} is not what it should be",)


@dataclass
class RecordingFiles(ExpertFiles):
    """The family's files, and which pieces were asked to be read ahead."""

    asked: list[Piece] = field(default_factory=list)

    def __init__(self, family: Family) -> None:
        super().__init__(family.layouts)
        self.asked = []

    def read_ahead(self, pieces: Iterator[Piece]) -> None:  # type: ignore[override]
        self.asked += pieces


def test_reading_ahead_asks_for_what_a_morph_would_move(family: Family, math: LoadedFrame) -> None:
    """No byte more: the pieces are those of the plan, and neighbours are asked for in one."""
    tensors: Sequence[SlotTensor] = frame_of(math).tensors
    with RecordingFiles(family) as files:
        frame = Frame(tensors, files, family.members["math"], serving="math")
        frame.read_ahead(family.members["law"])
        plan = frame.plan(family.members["law"])

        assert sum(piece.num_bytes for piece in files.asked) == plan.num_bytes(family.bytes_per_expert)
        assert len(files.asked) <= len(plan.writes) * len(family.layouts[0].layers[0].tensors)
