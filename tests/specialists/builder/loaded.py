"""A parent that is loaded, for tests that profile it."""

from pathlib import Path

from specialists.builder.profiler import ExpertProfiler
from specialists.engine.llama import LlamaLog, Model
from specialists.gguf_file import read_header
from specialists.moe_layout import layout


class Loaded:
    """A model with its layout; whoever loads it closes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = Model.load(path, gpu_layers=0, log=LlamaLog())
        self.layout = layout(read_header(path))

    def profiler(self, *, batch_tokens: int = 64, context_tokens: int = 256, norms: bool = True) -> ExpertProfiler:
        return ExpertProfiler(
            self.model,
            self.layout,
            context_tokens=context_tokens,
            batch_tokens=batch_tokens,
            threads=1,
            with_contributions=norms,
        )
