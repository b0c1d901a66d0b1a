"""From a Load message to weights and the sizes of their context: what an engine does first, and what a dry run repeats.

A dry run is only worth something if it asks llama.cpp for exactly what the engine will, so both come here.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from specialists.engine.batch_scheduler import SCORED_TOKENS
from specialists.engine.frame_loading import LoadedFrame, load_frame, write_trunk
from specialists.engine.llama import ContextParams, LlamaLog, Model, computes_on_gpu
from specialists.engine.llama.virtual_file import can_open
from specialists.engine.messages import Load
from specialists.engine.protocol import Pooling
from specialists.errors import SpecialistUnavailable
from specialists.expert_mask import MaskError
from specialists.family import Family, read_masked_family, read_standalone_family
from specialists.gguf_cursor import GgufError
from specialists.gguf_plan import GgufPlan
from specialists.tensor_digests import DigestError

BATCH_TOKENS = 512
TEXTS_AT_ONCE = 16

OnProgress = Callable[[float], None]


def read_family(order: Load) -> Family | None:
    """The family that is asked for, if any. Raises SpecialistUnavailable."""
    masks = {member.name: Path(member.mask_path) for member in order.family if member.mask_path is not None}
    files = {member.name: Path(member.model_path) for member in order.family if member.model_path is not None}
    try:
        if masks:
            return read_masked_family(Path(order.model_path), masks)
        return read_standalone_family(files) if files else None
    except (GgufError, MaskError, DigestError, OSError) as error:
        raise SpecialistUnavailable(f"{order.serving} cannot be loaded as one of its family: {error}") from error


def load_weights(
    order: Load, family: Family | None, *, on_progress: OnProgress, log: LlamaLog, clock: Callable[[], float]
) -> LoadedFrame:
    """The model that is asked for. Raises SpecialistUnavailable or ModelTooLarge."""
    gpu_layers, cpu_expert_layers = order.gpu_layers, order.cpu_expert_layers
    if family is not None:
        return load_frame(
            family,
            order.serving,
            gpu_layers=gpu_layers,
            cpu_expert_layers=cpu_expert_layers,
            on_progress=on_progress,
            log=log,
            clock=clock,
        )
    model = Model.load(
        Path(order.model_path),
        gpu_layers=gpu_layers,
        cpu_expert_layers=cpu_expert_layers,
        adapter_path=Path(order.adapter_path) if order.adapter_path else None,
        on_progress=on_progress,
        log=log,
    )
    return LoadedFrame(model, None)


def load_dry(order: Load, family: Family | None, *, log: LlamaLog) -> Model:
    """The same model without memory for its weights; an adapter is left out. Raises as `load_weights`."""
    gpu_layers, cpu_expert_layers = order.gpu_layers, order.cpu_expert_layers
    if family is None:
        path = Path(order.model_path)
        return Model.load(path, gpu_layers=gpu_layers, cpu_expert_layers=cpu_expert_layers, is_dry=True, log=log)
    plan, name = family.plan(order.serving), order.serving
    if can_open():
        return Model.load_plan(
            plan, name=name, gpu_layers=gpu_layers, cpu_expert_layers=cpu_expert_layers, is_dry=True, log=log
        )
    with tempfile.TemporaryDirectory(prefix="coe-plan-") as folder:
        path = Path(folder) / "trunk.gguf"
        write_hollow(plan, path)
        return Model.load(path, gpu_layers=gpu_layers, cpu_expert_layers=cpu_expert_layers, is_dry=True, log=log)


def write_hollow(plan: GgufPlan, path: Path) -> None:
    """Write a planned file's header and tensor table, with holes for all of its data."""
    write_trunk(plan, path, frozenset(info.name for info in plan.tensors))


def context_params(order: Load, *, window_tokens: int) -> ContextParams:
    """The sizes of an engine's context; `window_tokens` is the model's sliding window, 0 without one."""
    if order.pooling is not None:
        return _embedding_params(order, order.pooling)
    return ContextParams(
        num_cells=order.context_tokens * order.parallel,
        max_sequences=order.parallel,
        # In a pool every token attends over everybody's cells, masked: on a CPU 13 % slower with eight short
        # conversations. With sliding windows few layers do, and the pool holds more conversations.
        unified=window_tokens > 0 or computes_on_gpu(order.gpu_layers),
        batch_tokens=BATCH_TOKENS,
        max_outputs=order.parallel + SCORED_TOKENS,
        threads=order.threads,
        cache_type=order.cache_type,
    )


def _embedding_params(order: Load, pooling: Pooling) -> ContextParams:
    """A text has to be computed in one go: what sees it in both directions cannot do otherwise, and a mean over parts
    would be none."""
    num_tokens = max(BATCH_TOKENS, order.context_tokens)
    return ContextParams(
        num_cells=num_tokens,
        max_sequences=TEXTS_AT_ONCE,
        batch_tokens=num_tokens,
        threads=order.threads,
        pooling=pooling,
    )
