"""`python -m specialists.engine.dry_run`: what an engine would allocate, worked out by llama.cpp without doing it.

Reads a Load message as JSON from standard input, prints the answer as JSON. A process of its own, because llama.cpp
ends the process it is in when it is asked for something it has not thought of, and because a GPU's driver keeps some
hundred megabytes for every process that ever looked at it. `planning` is its caller.
"""

import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path

import msgspec

from specialists.engine.llama import Context, LlamaLog
from specialists.engine.llama.allocation import AllocationsUnknown, allocations
from specialists.engine.loading import context_params, load_dry, read_family
from specialists.engine.messages import DryRun, DryRunFailed, Load, PlannedBuffer
from specialists.errors import SpecialistUnavailable
from specialists.gguf_file import read_header

_F32_BYTES = 4


def run(order: Load, log: LlamaLog) -> DryRun:
    """Raises SpecialistUnavailable, ModelTooLarge or AllocationsUnknown."""
    family = read_family(order)
    model = load_dry(order, family, log=log)
    context = model.new_context(context_params(order, window_tokens=model.window_tokens))
    buffers = [PlannedBuffer(**asdict(use)) for use in allocations(context)]
    if family is None:
        buffers = _mapped(buffers, read_header(Path(order.model_path)).tensor_bytes)
    size = model.vocabulary.size
    output_bytes = _num_copied_rows(order, context) * size * _F32_BYTES
    context.close()
    model.close()
    return DryRun(buffers=tuple(buffers), output_bytes=output_bytes, vocabulary_size=size)


def _num_copied_rows(order: Load, context: Context) -> int:
    """Rows of logits that are copied out, which llama.cpp's sum leaves out: one for each Sequence.

    Embeddings have them copied for every token, nobody wants them, by models that have any: those with a cache.
    """
    if order.pooling is None:
        return order.parallel
    return context.params.batch_tokens if context.has_cache else 0


def _mapped(buffers: list[PlannedBuffer], file_bytes: int) -> list[PlannedBuffer]:
    """Weights of a mapped file are in RAM once, also where a tensor has two uses (embedding and output)."""
    return [
        msgspec.structs.replace(each, weights_bytes=min(each.weights_bytes, file_bytes)) if each.is_host else each
        for each in buffers
    ]


def main() -> None:
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    answer: DryRun | DryRunFailed
    try:
        answer = run(order, LlamaLog(logging.getLogger("dry_run").debug))
    except (SpecialistUnavailable, AllocationsUnknown) as error:
        answer = DryRunFailed(str(error))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    sys.stdout.buffer.flush()
    os._exit(0)  # llama.cpp may log when it is unloaded, to a Python that is gone


if __name__ == "__main__":
    main()
