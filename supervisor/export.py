"""Writes a BERT encoder as an int8 ONNX graph and a word table beside it.

The table (word pieces × width, int8 with one scale per row) is looked up outside the graph: that keeps each file
under 20 MB and the table needs no dequantised copy in memory. The graph takes summed word and position vectors of
one text, without padding, and gives the unit mean of the last layer. It is built from ONNX Runtime's fused operators
directly, so no optimiser pass stands between what is written here and what runs. Needs `onnx`; serving does not.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from supervisor.quantized import quantize_rows

Weights = Mapping[str, NDArray[np.float32]]

OPSET = 17
MAX_POSITIONS = 128
BLOCK = 128
INT8_ACTIVATIONS = 4  # ONNX Runtime's accuracy level of that name
GRAPH_FILE = "encoder.onnx"
WORDS_FILE = "words.npz"


def export_encoder(weights: Weights, directory: Path, *, num_heads: int, int8: bool = True) -> None:
    """`weights` is the encoder's state dict (Hugging Face names, no prefix). Writes encoder.onnx and words.npz."""
    _write_words(weights, directory / WORDS_FILE, int8=int8)
    onnx.save(_model(weights, num_heads), str(directory / GRAPH_FILE))
    if int8:
        quantize_graph(directory / GRAPH_FILE, directory / GRAPH_FILE)


def quantize_graph(source: Path, target: Path) -> None:
    """Writes the float graph `source` as int8 to `target` (which may be the same file).

    The feed-forward products, whose inputs have outliers, get a scale per block of 128 inputs on both sides; everything
    else one scale per output channel and one per tensor of activations. Seven bits for the latter keep the products of
    chips without VNNI from saturating: the same numbers everywhere.
    """
    halfway = target.with_suffix(".halfway.onnx")
    onnx.save(_with_blockwise_products(onnx.load(str(source))), str(halfway))
    quantize_dynamic(
        halfway,
        target,
        per_channel=True,
        reduce_range=True,
        op_types_to_quantize=["MatMul", "Attention"],
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": TensorProto.FLOAT},  # types do not pass through fused operators
    )
    halfway.unlink()


def _with_blockwise_products(model: onnx.ModelProto) -> onnx.ModelProto:
    constants = {constant.name: constant for constant in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.output[0].endswith((".wide", ".narrow")):
            matrix = numpy_helper.to_array(constants.pop(node.input[1]))
            values, scales = _blocks(matrix)
            names = [f"{node.output[0]}.blocks", f"{node.output[0]}.scales"]
            constants |= {
                name: numpy_helper.from_array(value, name) for name, value in zip(names, (values, scales), strict=True)
            }
            nodes.append(_blockwise_product(node.input[0], names, node.output[0], matrix.shape))
        else:
            nodes.append(node)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants.values())
    return model


def _blocks(matrix: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(outputs, blocks, BLOCK) bytes around 128, and (outputs, blocks) scales."""
    inputs, outputs = matrix.shape
    blocks = matrix.T.reshape(outputs, inputs // BLOCK, BLOCK)
    scales = np.maximum(np.abs(blocks).max(axis=2) / 127, 1e-12).astype(np.float32)
    return (np.rint(blocks / scales[..., None]) + 128).astype(np.uint8), scales


def _blockwise_product(states: str, names: list[str], output: str, shape: tuple[int, ...]) -> onnx.NodeProto:
    return helper.make_node(
        "MatMulNBits",
        [states, *names],
        [output],
        name=f"{output}:MatMulNBits",
        domain="com.microsoft",
        K=shape[0],
        N=shape[1],
        bits=8,
        block_size=BLOCK,
        accuracy_level=INT8_ACTIVATIONS,
    )


def _write_words(weights: Weights, file: Path, *, int8: bool) -> None:
    words = weights["embeddings.word_embeddings.weight"]
    positions = weights["embeddings.position_embeddings.weight"][:MAX_POSITIONS]
    positions = positions + weights["embeddings.token_type_embeddings.weight"][0]
    table = quantize_rows(words) if int8 else (words, np.ones(len(words), np.float32))
    np.savez(file, values=table[0], scales=table[1], positions=positions.astype(np.float32))


class _Graph:
    """Collects nodes and initialisers; `add` returns the name of the node's first output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(
        self, kind: str, name: str, inputs: list[str], *, domain: str = "", **attributes: float | int | list[int]
    ) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"{name}:{kind}", domain=domain, **attributes))
        return name


def _model(weights: Weights, num_heads: int) -> onnx.ModelProto:
    graph = _Graph()
    width = weights["embeddings.LayerNorm.weight"].shape[0]
    gain = graph.constant("embed.gain", weights["embeddings.LayerNorm.weight"])
    shift = graph.constant("embed.shift", weights["embeddings.LayerNorm.bias"])
    states = graph.add("LayerNormalization", "embed", ["sums", gain, shift], axis=-1, epsilon=1e-12)
    num_layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
    for layer in range(num_layers):
        states = _add_layer(graph, weights, layer, states, num_heads)
    mean = graph.add("ReduceMean", "mean", [states], axes=[1], keepdims=0)
    graph.add("LpNormalization", "vector", [mean], axis=-1, p=2)
    proto = helper.make_graph(
        graph.nodes,
        "encoder",
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, [1, "tokens", width])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, width])],
        graph.constants,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(proto, opset_imports=opsets, ir_version=8)


def _add_layer(graph: _Graph, weights: Weights, layer: int, states: str, num_heads: int) -> str:
    own = f"encoder.layer.{layer}."
    at = f"layer{layer}."
    parts = [own + f"attention.self.{part}" for part in ("query", "key", "value")]
    joined = graph.constant(at + "qkv", np.concatenate([weights[f"{part}.weight"].T for part in parts], axis=1))
    joined_bias = graph.constant(at + "qkv.bias", np.concatenate([weights[f"{part}.bias"] for part in parts]))
    seen = graph.add(
        "Attention", at + "seen", [states, joined, joined_bias], domain="com.microsoft", num_heads=num_heads
    )
    out = _add_product(graph, weights, own + "attention.output.dense", at + "out", seen)
    states = _add_norm(graph, weights, own + "attention.output", at + "attended", out, states)
    wide = _add_product(graph, weights, own + "intermediate.dense", at + "wide", states)
    wide_bias = graph.constant(at + "wide.bias", weights[own + "intermediate.dense.bias"])
    bent = graph.add("BiasGelu", at + "bent", [wide, wide_bias], domain="com.microsoft")
    narrow = _add_product(graph, weights, own + "output.dense", at + "narrow", bent)
    return _add_norm(graph, weights, own + "output", at + "done", narrow, states)


def _add_product(graph: _Graph, weights: Weights, source: str, name: str, states: str) -> str:
    matrix = graph.constant(f"{name}.matrix", weights[f"{source}.weight"].T)
    return graph.add("MatMul", name, [states, matrix])


def _add_norm(graph: _Graph, weights: Weights, source: str, name: str, states: str, skipped: str) -> str:
    gain = graph.constant(f"{name}.gain", weights[f"{source}.LayerNorm.weight"])
    shift = graph.constant(f"{name}.shift", weights[f"{source}.LayerNorm.bias"])
    bias = graph.constant(f"{name}.bias", weights[f"{source}.dense.bias"])
    inputs = [states, skipped, gain, shift, bias]
    return graph.add("SkipLayerNormalization", name, inputs, domain="com.microsoft", epsilon=1e-12)
