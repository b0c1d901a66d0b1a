"""Runs windows of tokens through a parent and watches its gates.

One context, several windows side by side in each decode; nothing is sampled. Which text is run, in which order, and
what becomes of the traces is not known here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from specialists.builder.histogram import ProfileError
from specialists.builder.moe_graph import GateNodes, GateObserver, GateTrace, find_gates
from specialists.builder.packing import plan_batches
from specialists.engine.llama import Batch, ContextParams, Model
from specialists.engine.llama.graph_hook import GraphHook, GraphRecorder
from specialists.moe_layout import MoeLayout

NUM_SLOTS: Final = 16
_CELL_BLOCK: Final = 256  # llama.cpp rounds a cache up to this many cells


@dataclass(frozen=True, slots=True)
class Traced:
    """One decode's trace; `windows` says for each of its tokens which window it belongs to."""

    trace: GateTrace
    windows: NDArray[np.intp]


class ExpertProfiler:
    """Watches the gates of one model. Close it before the model. Raises ProfileError if they are not as expected."""

    def __init__(
        self,
        model: Model,
        layout: MoeLayout,
        *,
        context_tokens: int,
        batch_tokens: int,
        threads: int,
        with_contributions: bool,
    ) -> None:
        recorder = GraphRecorder()
        self._hook = GraphHook(recorder)
        self._context = model.new_context(
            context_params(context_tokens=context_tokens, batch_tokens=batch_tokens, threads=threads), hook=self._hook
        )
        self._batch = Batch(batch_tokens)
        self._decode_one(model.vocabulary.bos if model.vocabulary.bos >= 0 else 0)
        self.gates = find_gates(recorder.nodes)
        _check(self.gates, layout)
        self._observer = GateObserver(self.gates, ranks=layout.num_used, with_norms=with_contributions)

    def traces(self, windows: Sequence[Sequence[int]]) -> Iterator[Traced]:
        """A trace of each decode that computing these windows takes; together they cover every token once."""
        batch_tokens = self._context.params.batch_tokens
        self._hook.observer = self._observer
        for batch in plan_batches([len(window) for window in windows], batch_tokens=batch_tokens, num_slots=NUM_SLOTS):
            self._batch.clear()
            for piece in batch:
                tokens = windows[piece.window][piece.start : piece.end]
                self._batch.add(tokens, position=piece.start, sequence_id=piece.slot, logits="all")
            self._observer.begin(len(self._batch))
            self._context.decode(self._batch)
            for piece in batch:
                if piece.is_last:
                    self._context.remove(piece.slot, 0)
            owners = [np.full(piece.end - piece.start, piece.window) for piece in batch]
            yield Traced(self._observer.trace(), np.concatenate(owners))

    def close(self) -> None:
        self._context.close()

    def _decode_one(self, token: int) -> None:
        self._batch.add([token], position=0, sequence_id=0, logits="last")
        self._context.decode(self._batch)
        self._context.remove(0, 0)


def context_params(*, context_tokens: int, batch_tokens: int, threads: int) -> ContextParams:
    """Room for one unfinished window and a whole batch, whatever the windows are."""
    cells = -(-(context_tokens + batch_tokens) // _CELL_BLOCK) * _CELL_BLOCK
    return ContextParams(num_cells=cells, max_sequences=NUM_SLOTS, batch_tokens=batch_tokens, threads=threads)


def _check(gates: list[GateNodes], layout: MoeLayout) -> None:
    found, expected = tuple(gate.block for gate in gates), layout.blocks
    if found != expected:
        raise ProfileError(
            f"{layout.header.path.name}: its graph has MoE layers {found}, its tensors are those of {expected}; "
            "this architecture cannot be profiled yet"
        )
