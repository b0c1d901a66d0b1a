"""How much of an engine is said to lie on the GPU."""

from pathlib import Path

import pytest

from gateway.memory import device_share
from specialists.engine.protocol import EngineSpec
from specialists.pool.budget import MemoryReading
from tests.pico import write_pico_llama

GPU = MemoryReading(device_free_bytes=2**34, ram_available_bytes=2**34)
NO_GPU = MemoryReading(device_free_bytes=None, ram_available_bytes=2**34)


@pytest.mark.parametrize(
    ("reading", "gpu_layers", "share"),
    [(GPU, -1, 1.0), (GPU, 0, 0.0), (GPU, 1, 1 / 3), (GPU, 99, 1.0), (NO_GPU, -1, 0.0), (NO_GPU, 2, 0.0)],
)
def test_layers_decide(tmp_path: Path, reading: MemoryReading, gpu_layers: int, share: float) -> None:
    """Two layers and the output make three parts; without a GPU nothing lies on one."""
    path = write_pico_llama(tmp_path / "m.gguf")

    spec = EngineSpec(model_path=path, context_tokens=64, gpu_layers=gpu_layers)
    assert device_share(spec, reading) == pytest.approx(share)


def test_a_file_that_cannot_be_read_has_no_layers(tmp_path: Path) -> None:
    """Nor does asking fail."""
    spec = EngineSpec(model_path=tmp_path / "gone.gguf", context_tokens=64, gpu_layers=1)
    assert device_share(spec, GPU) == 0.0
