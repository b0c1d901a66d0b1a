"""Engines that tell what memory they take."""

from pathlib import Path

import pytest

from gateway.measured_engine import MeasuredEngine, device_bytes, resident_bytes
from specialists.engine.protocol import EngineSpec
from specialists.pool.budget import MIB
from tests.pico import write_pico_gemma


@pytest.mark.anyio
async def test_an_engine_is_measured_loaded_and_before_it_ends(tmp_path: Path) -> None:
    """Twice, of the process itself while it lives; a second close measures nothing."""
    learnt: list[tuple[int, bool]] = []
    spec = EngineSpec(model_path=write_pico_gemma(tmp_path / "pico.gguf"), context_tokens=256, threads=1)
    engine = MeasuredEngine(spec, read=resident_bytes, learn=lambda taken, worked: learnt.append((taken, worked)))
    await engine.load(lambda _share: None)
    await engine.close()
    await engine.close()

    assert [worked for _, worked in learnt] == [False, True]
    assert all(16 * MIB < taken < 1024 * MIB for taken, _ in learnt)


@pytest.mark.anyio
async def test_what_cannot_be_told_is_not_learnt(tmp_path: Path) -> None:
    """No reading, no lesson; and where reading takes long nobody waits for it at the end."""
    asked: list[int] = []

    def read(pid: int) -> None:
        asked.append(pid)

    def learn(taken: int, worked: bool) -> None:
        raise AssertionError("there was nothing to learn")

    spec = EngineSpec(model_path=write_pico_gemma(tmp_path / "pico.gguf"), context_tokens=256, threads=1)
    engine = MeasuredEngine(spec, read=read, learn=learn, reads_at_end=False)
    info = await engine.load(lambda _share: None)
    await engine.close()

    assert asked == [info.pid]


def test_resident_memory_is_what_linux_says(tmp_path: Path) -> None:
    """In bytes; None of a process that is gone, or that has no memory of its own."""
    for pid, text in ((7, "Name:\tengine\nVmRSS:\t   2048 kB\n"), (8, "Name:\tkthread\n")):
        (tmp_path / "proc" / str(pid)).mkdir(parents=True)
        (tmp_path / "proc" / str(pid) / "status").write_text(text)

    assert resident_bytes(7, root=tmp_path) == 2 * MIB
    assert resident_bytes(8, root=tmp_path) is None
    assert resident_bytes(9, root=tmp_path) is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [("12, 300\n7, 1024\n7, 512\n", 1536 * MIB), ("12, 300\n", None), ("7, [N/A]\n", None), ("", None), (None, None)],
)
def test_a_gpus_memory_is_what_the_driver_says_of_the_process(said: str | None, expected: int | None) -> None:
    """Summed over GPUs; None where the driver does not name it."""
    assert device_bytes(7, run=lambda command: said) == expected
