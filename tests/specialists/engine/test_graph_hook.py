"""Watching llama.cpp's graph: what is seen is what is computed, what is written counts, and errors come out."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from specialists.engine.llama import Batch, Context, ContextParams, LlamaLog, Model
from specialists.engine.llama.graph_hook import GraphError, GraphHook, GraphRecorder, GraphTensor
from tests.pico import PACKED, write_pico_gemma

TOKENS = list(b"graphs are watched")


class Watcher:
    """An observer that calls `seen` with every node of one name."""

    def __init__(self, name: str, seen: Callable[[GraphTensor], bool | None]) -> None:
        self._name = name
        self._seen = seen

    def wants(self, tensor: GraphTensor) -> bool:
        return tensor.name == self._name

    def observe(self, tensor: GraphTensor) -> bool:
        return self._seen(tensor) is not False


@pytest.fixture
def hook() -> GraphHook:
    return GraphHook()


@pytest.fixture
def context(model: Model, hook: GraphHook) -> Iterator[Context]:
    params = ContextParams(num_cells=256, max_sequences=2, batch_tokens=64, threads=1)
    with closing(model.new_context(params, hook=hook)) as context:
        yield context


def decode(
    context: Context, tokens: list[int] = TOKENS, *, position: int = 0, sequence_id: int = 0
) -> NDArray[np.float32]:
    """Logits of all tokens, (token, vocabulary)."""
    batch = Batch(64)
    batch.add(tokens, position=position, sequence_id=sequence_id, logits="all")
    context.decode(batch)
    return np.stack([context.logits(index) for index in range(len(tokens))])


def test_a_recorder_lists_the_graph_and_its_weights(context: Context, hook: GraphHook) -> None:
    """Every node comes with its operation, its shape and what it reads; the weights are found by their file's names."""
    recorder = GraphRecorder()
    hook.observer = recorder
    decode(context)

    nodes = {node.name: node for node in recorder.nodes}
    assert nodes["ffn_moe_logits-3"].sources[0] == "blk.3.ffn_gate_inp.weight"
    assert nodes["ffn_moe_logits-3"].operation == "MUL_MAT"
    assert nodes["ffn_moe_topk-0"].shape == (1, 1, len(TOKENS), 2)
    assert recorder.weights["blk.2.ffn_down_exps.weight"].shape == (1, 8, 64, 32)
    assert recorder.weights["blk.2.ffn_down_exps.weight"].num_bytes == 8 * 64 * 32 * 4


def test_watching_changes_nothing(model: Model, context: Context, hook: GraphHook) -> None:
    """Logits with an observer that looks at every node equal those of an unwatched context."""
    params = ContextParams(num_cells=256, max_sequences=2, batch_tokens=64, threads=1)
    with closing(model.new_context(params)) as unwatched:
        expected = decode(unwatched)

    class Everything(GraphRecorder):
        def wants(self, tensor: GraphTensor) -> bool:
            super().wants(tensor)
            return True

    hook.observer = Everything()
    assert np.array_equal(decode(context), expected)


def test_what_is_read_is_what_was_computed(context: Context, hook: GraphHook) -> None:
    """The output node holds the logits that the context gives out."""
    found: list[NDArray[np.float32]] = []
    hook.observer = Watcher("result_output", lambda tensor: found.append(tensor.read().copy()))
    logits = decode(context)

    assert np.array_equal(found[0][0, 0], logits)


def test_what_is_written_counts(context: Context, hook: GraphHook) -> None:
    """With all gate logits of a layer made equal, its chosen experts get equal weights."""
    weights: list[NDArray[np.float32]] = []

    class Leveller:
        def wants(self, tensor: GraphTensor) -> bool:
            return tensor.name in ("ffn_moe_logits-1", "ffn_moe_weights_norm-1")

        def observe(self, tensor: GraphTensor) -> bool:
            if tensor.name == "ffn_moe_logits-1":
                tensor.write(np.zeros(tensor.shape, dtype=np.float32))
            else:
                weights.append(tensor.read().copy())
            return True

    hook.observer = Leveller()
    decode(context)

    assert np.allclose(weights[0], 0.5)


def test_a_graph_that_was_cut_off_leaves_the_cache_whole(context: Context, hook: GraphHook) -> None:
    """After a prompt whose graph was cut at the last layer's gate, the next token's logits are those without a cut."""
    decode(context, sequence_id=1)
    expected = decode(context, [65], position=len(TOKENS), sequence_id=1)

    hook.observer = Watcher("ffn_moe_weights_norm-3", lambda _tensor: False)
    decode(context)
    hook.observer = None

    assert np.array_equal(decode(context, [65], position=len(TOKENS)), expected)


def test_an_observers_error_comes_out_of_decode(context: Context, hook: GraphHook) -> None:
    """The decode it happened in raises it, and the one after that works."""

    def fail(_tensor: GraphTensor) -> bool:
        raise LookupError("seen enough")

    hook.observer = Watcher("ffn_moe_probs-2", fail)
    with pytest.raises(LookupError, match="seen enough"):
        decode(context)

    hook.observer = None
    context.remove(0, 0)
    assert np.isfinite(decode(context)).all()


@pytest.mark.parametrize("values", [np.zeros(3, dtype=np.float32), np.zeros((18, 8))])
def test_only_data_of_the_same_type_and_size_can_be_written(
    context: Context, hook: GraphHook, values: NDArray[np.float64]
) -> None:
    """Neither another size nor another type is cast in silence."""
    hook.observer = Watcher("ffn_moe_logits-0", lambda tensor: tensor.write(values))

    with pytest.raises(GraphError, match="ffn_moe_logits-0"):
        decode(context)


def test_packed_weights_are_bytes_not_numbers(tmp_path: Path) -> None:
    """A quantised tensor cannot be read as numbers, but its bytes can, and none beyond them."""
    path = write_pico_gemma(tmp_path / "packed.gguf", PACKED)
    recorder = GraphRecorder()
    with closing(Model.load(path, gpu_layers=0, log=LlamaLog())) as model:
        params = ContextParams(num_cells=64, max_sequences=1, batch_tokens=64, threads=1)
        with closing(model.new_context(params, hook=GraphHook(recorder))) as context:
            decode(context)
        packed = recorder.weights["blk.0.ffn_gate_up_exps.weight"]

        assert len(packed.read_bytes(0, packed.num_bytes)) == packed.num_bytes
        with pytest.raises(GraphError, match="packed"):
            packed.read()
        with pytest.raises(GraphError, match="bytes"):
            packed.read_bytes(packed.num_bytes - 1, 2)
