"""Profiling a real model: against numpy from its gate logits, against another implementation, and interrupted."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from specialists.builder.histogram import ProfileError
from specialists.builder.moe_graph import GateObserver, find_gates
from specialists.builder.profiler import ExpertProfiler
from specialists.engine.llama import Batch, ContextParams, LlamaLog, Model
from specialists.engine.llama.graph_hook import GraphError, GraphHook, GraphRecorder, GraphTensor, Node
from specialists.moe_layout import MoeLayout
from tests.pico import PACKED, SEPARATE, PicoShape, write_pico_gemma, write_pico_llama
from tests.pico_moe import write_pico_moe
from tests.specialists.builder.gemma4_oracle import FIXTURE, TOKENS, write_oracle_model
from tests.specialists.builder.loaded import Loaded

SENTENCES = [
    f"Record {number} says that expert {number * 7 % 8} knows it best. " * (number % 3 + 1) for number in range(12)
]
WRITERS: dict[str, Callable[[Path], Path]] = {
    "gemma4": write_pico_gemma,
    "gemma4 packed": lambda path: write_pico_gemma(path, PACKED),
    "gemma4 separate": lambda path: write_pico_gemma(path, SEPARATE),
    **{name: partial(write_pico_moe, architecture=name) for name in ("qwen3moe", "olmoe", "gpt-oss")},
}


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    loaded = Loaded(write_pico_gemma(tmp_path_factory.mktemp("parent") / "pico.gguf", PicoShape(scale_spread=0.3)))
    with closing(loaded.model):
        yield loaded


@pytest.fixture(params=WRITERS, scope="module")
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    loaded = Loaded(WRITERS[request.param](tmp_path_factory.mktemp("parent") / "pico.gguf"))
    with closing(loaded.model):
        yield loaded


class Nodes:
    """An observer that keeps copies of the nodes whose names begin so."""

    def __init__(self, *steps: str) -> None:
        self._steps = steps
        self.found: dict[str, NDArray[Any]] = {}

    def wants(self, tensor: GraphTensor) -> bool:
        return tensor.name.startswith(self._steps) and "(" not in tensor.name

    def observe(self, tensor: GraphTensor) -> bool:
        self.found[tensor.name] = tensor.read().copy()
        return True


def alone(model: Model, window: list[int], *steps: str) -> dict[str, NDArray[Any]]:
    """Nodes of one window computed by itself in a context of its own."""
    nodes = Nodes(*steps)
    params = ContextParams(num_cells=256, max_sequences=1, batch_tokens=len(window), threads=1)
    with closing(model.new_context(params, hook=GraphHook(nodes))) as context:
        batch = Batch(len(window))
        batch.add(window, position=0, sequence_id=0, logits="all")
        context.decode(batch)
    return nodes.found


def chosen(scores: NDArray[np.float32], ranks: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Choices and their normalised weights (token, rank), from gate logits (token, expert) in double precision.

    A softmax over all experts, then normalised, is the softmax over the chosen ones.
    """
    experts = np.argsort(-scores, axis=1, kind="stable")[:, :ranks]
    best = np.take_along_axis(scores.astype(np.float64), experts, 1)
    weights = np.exp(best - best[:, :1])
    return experts, weights / weights.sum(axis=1, keepdims=True)


class Both:
    """Two observers of one graph."""

    def __init__(self, first: GateObserver, second: Nodes) -> None:
        self._observers = (first, second)
        self._wanted: list[GateObserver | Nodes] = []

    def wants(self, tensor: GraphTensor) -> bool:
        self._wanted = [each for each in self._observers if each.wants(tensor)]
        return bool(self._wanted)

    def observe(self, tensor: GraphTensor) -> bool:
        wishes = [each.observe(tensor) for each in self._wanted]  # both are asked, whatever the first says
        return all(wishes)


def test_choices_and_weights_follow_from_the_gate_logits(loaded: Loaded) -> None:
    """For windows side by side in one batch, numpy finds the same from the gate logits of the same computation."""
    windows = [list(sentence.encode()) for sentence in SENTENCES[:9]]
    with closing(loaded.profiler()) as profiler:
        gates = profiler.gates
    observer = GateObserver(gates, ranks=loaded.layout.num_used, with_norms=False)
    nodes = Nodes("ffn_moe_logits", "ffn_moe_probs")
    batch = Batch(1024)
    for number, window in enumerate(windows):
        batch.add(window, position=0, sequence_id=number, logits="all")
    params = ContextParams(num_cells=1024, max_sequences=len(windows), batch_tokens=1024, threads=1)
    with closing(loaded.model.new_context(params, hook=GraphHook(Both(observer, nodes)))) as context:
        observer.begin(len(batch))
        context.decode(batch)
    trace = observer.trace()

    for layer, gate in enumerate(gates):
        # gpt-oss adds a bias to its logits, and llama.cpp then calls them probabilities
        scores = f"ffn_moe_probs-{gate.block}" if loaded.layout.header.architecture == "gpt-oss" else gate.logits
        experts, weights = chosen(nodes.found[scores][0, 0], loaded.layout.num_used)
        assert np.array_equal(trace.experts[layer], experts)
        normalised = trace.weights[layer] / trace.weights[layer].sum(axis=1, keepdims=True)
        np.testing.assert_allclose(normalised, weights, rtol=1e-5)


def test_packed_windows_do_not_see_each_other(loaded: Loaded) -> None:
    """Side by side and cut over batches, a window's gates choose as if it were alone, but for rounding."""
    windows = [list(sentence.encode()) for sentence in SENTENCES]
    experts: dict[int, list[NDArray[Any]]] = {}
    with closing(loaded.profiler()) as profiler:
        gates = profiler.gates
        for traced in profiler.traces(windows):
            for window in np.unique(traced.windows):
                experts.setdefault(int(window), []).append(traced.trace.experts[:, traced.windows == window])

    for number, window in enumerate(windows):
        together = np.concatenate(experts[number], axis=1)
        found = alone(loaded.model, window, "ffn_moe_topk")
        single = np.stack([found[gate.topk][0, 0] for gate in gates])
        assert together.shape == single.shape
        assert (together == single).mean() > 0.98


def test_contributions_are_the_norms_of_what_experts_add(loaded: Loaded) -> None:
    """‖w·f‖ is the norm of the weighted output, and w times the norm of the output before its weight."""
    window = list(SENTENCES[0].encode())
    with closing(loaded.profiler(batch_tokens=256)) as profiler:
        [traced] = profiler.traces([window])
        gates = profiler.gates
    found = alone(loaded.model, window, "ffn_moe_weighted", "ffn_moe_down")

    assert traced.trace.norms is not None
    for layer, gate in enumerate(gates):
        weighted = np.linalg.norm(found[gate.weighted][0].astype(np.float64), axis=2)
        np.testing.assert_allclose(traced.trace.norms[layer], weighted, rtol=1e-5)
        last = [name for name in found if name.startswith("ffn_moe_down") and name.endswith(f"-{gate.block}")][-1]
        outputs = np.linalg.norm(found[last][0].astype(np.float64), axis=2)
        np.testing.assert_allclose(traced.trace.norms[layer], outputs * np.abs(traced.trace.weights[layer]), rtol=1e-4)


def test_gemma_4_routes_as_in_transformers(tmp_path: Path) -> None:
    """Same choices, weights and contributions as over there, where the weights hold the expert's scale."""
    loaded = Loaded(write_oracle_model(tmp_path / "oracle.gguf"))
    expected = json.loads(FIXTURE.read_text())
    with closing(loaded.model), closing(loaded.profiler()) as profiler:
        [traced] = profiler.traces([list(TOKENS)])

    assert traced.trace.norms is not None
    for layer, theirs in enumerate(expected["layers"]):
        experts, scales = np.array(theirs["experts"]), np.array(theirs["scales"])
        assert np.array_equal(traced.trace.experts[layer], experts)
        np.testing.assert_allclose(
            traced.trace.weights[layer], np.array(theirs["factors"]) / scales[experts], atol=1e-4
        )
        np.testing.assert_allclose(traced.trace.norms[layer], theirs["norms"], atol=5e-3)  # llama.cpp tabulates GELU


def test_the_oracles_model_computes_the_oracles_logits(tmp_path: Path) -> None:
    """The two implementations agree on the whole model, so agreeing on the gates is no accident of one layer."""
    loaded = Loaded(write_oracle_model(tmp_path / "oracle.gguf"))
    with closing(loaded.model):
        found = alone(loaded.model, list(TOKENS), "result_output")

    expected = json.loads(FIXTURE.read_text())["last_logits"]
    np.testing.assert_allclose(found["result_output"][0, 0, -1], expected, atol=0.02)


def test_weights_only_is_the_same_but_for_the_norms(gemma: Loaded) -> None:
    """Leaving contributions out cuts the graph earlier and changes nothing else."""
    window = list(SENTENCES[3].encode())
    with closing(gemma.profiler(norms=False)) as short, closing(gemma.profiler()) as full:
        pairs = list(zip(short.traces([window]), full.traces([window]), strict=True))

    for lean, whole in pairs:
        assert lean.trace.norms is None
        assert np.array_equal(lean.trace.experts, whole.trace.experts)
        assert np.array_equal(lean.trace.weights, whole.trace.weights)


def test_a_dense_model_has_no_gates(tmp_path: Path) -> None:
    """Its graph is recorded, and there is nothing to find in it."""
    recorder = GraphRecorder()
    with closing(Model.load(write_pico_llama(tmp_path / "dense.gguf"), gpu_layers=0, log=LlamaLog())) as model:
        params = ContextParams(num_cells=64, max_sequences=1, batch_tokens=8, threads=1)
        with closing(model.new_context(params, hook=GraphHook(recorder))) as context:
            batch = Batch(8)
            batch.add([1, 2], position=0, sequence_id=0, logits="last")
            context.decode(batch)

    assert recorder.nodes
    assert find_gates(recorder.nodes) == []


def test_a_layer_without_a_step_is_named() -> None:
    """Another llama.cpp may build the layer otherwise; better an error than a profile of nothing."""
    nodes = [Node(f"{step}-4", "VIEW", (1,), ()) for step in ("ffn_moe_logits", "ffn_moe_argsort", "ffn_moe_topk")]

    with pytest.raises(GraphError, match="block 4 has no ffn_moe_weights"):
        find_gates(nodes)


def test_a_layout_of_other_layers_is_refused(gemma: Loaded) -> None:
    """The graph's layers and the file's tensors must be the same ones."""
    other = replace(gemma.layout, layers=gemma.layout.layers[:2])

    with pytest.raises(ProfileError, match="MoE layers"):
        ExpertProfiler(gemma.model, other, context_tokens=64, batch_tokens=64, threads=1, with_contributions=False)


def test_layouts_match_their_graphs(loaded: Loaded) -> None:
    """The blocks that the tensor table calls MoE are those that the graph has gates in."""
    moe: MoeLayout = loaded.layout
    with closing(loaded.profiler()) as profiler:
        assert tuple(gate.block for gate in profiler.gates) == moe.blocks
