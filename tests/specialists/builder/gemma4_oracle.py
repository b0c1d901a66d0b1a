"""What another implementation's Gemma 4 does with a tiny model: the source of `gemma4_oracle.json`.

    python -m tests.specialists.builder.gemma4_oracle

The fixture is committed, because making it wants torch and transformers, which the project itself does not. It was
made in an environment of its own with `torch==2.13.0` (CPU), `transformers==5.23.0`, `gguf==0.19.0` and numpy. Weights
come from numpy's legacy generator, whose streams are frozen, seeded by each tensor's name: they are the same wherever
the model is written, whatever becomes of the pico models.

The GGUF is written first and its tensors are handed to `transformers`, so both sides compute the very same numbers;
hooks on its router and on the input of its experts record choices, weights and the norms of what each chosen expert
contributes.
"""

import importlib
import json
import sys
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from specialists.gguf_file import TensorInfo, read_header
from tests.pico import VOCABULARY_SIZE, PicoShape, write_pico_gemma

FIXTURE: Final = Path(__file__).with_suffix(".json")
SHAPE: Final = PicoShape(sliding=(True, True, False), window_tokens=8, experts=16, experts_used=4)
TOKENS: Final = tuple(b"Expert gates, recorded twice.")

_ATTENTION = {"attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj", "attn_output": "o_proj"}
_NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "post_ffw_norm_1": "post_feedforward_layernorm_1",
    "post_ffw_norm_2": "post_feedforward_layernorm_2",
    "pre_ffw_norm_2": "pre_feedforward_layernorm_2",
}
LAYER_NAMES: Final = {
    **{f"{ours}.weight": f"self_attn.{theirs}.weight" for ours, theirs in _ATTENTION.items()},
    **{f"{ours}.weight": f"{theirs}.weight" for ours, theirs in _NORMS.items()},
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "ffn_gate_inp.weight": "router.proj.weight",
    "ffn_gate_inp.scale": "router.scale",
    "ffn_down_exps.scale": "router.per_expert_scale",
    "ffn_gate_up_exps.weight": "experts.gate_up_proj",
    "ffn_down_exps.weight": "experts.down_proj",
    "layer_output_scale.weight": "layer_scalar",
}


def write_oracle_model(path: Path) -> Path:
    """The GGUF that the fixture is about."""
    write_pico_gemma(path, SHAPE)
    tensors = read_header(path).tensors
    with path.open("r+b") as file:
        for tensor in tensors:
            file.seek(tensor.offset)
            file.write(weights(tensor).tobytes())
    return path


def weights(tensor: TensorInfo) -> NDArray[np.float32]:
    """In numpy's order of axes. Norms and scales vary around 1; one expert's scale is far off, so that it counts."""
    shape = tensor.shape[::-1]
    values = np.random.RandomState(zlib.crc32(tensor.name.encode())).standard_normal(shape)
    if tensor.name == "rope_freqs.weight":
        return np.ones(shape, dtype=np.float32)
    if len(shape) == 1:
        return (1 + 0.3 * values).astype(np.float32)
    return (values / (1 if tensor.name == "token_embd.weight" else np.sqrt(shape[-1]))).astype(np.float32)


def main() -> None:
    torch: Any = importlib.import_module("torch")
    with TemporaryDirectory() as folder, torch.no_grad():
        path = write_oracle_model(Path(folder) / "oracle.gguf")
        model = _their_model(torch, path)
        recorded = _record(torch, model)
    FIXTURE.write_text(json.dumps(recorded) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {FIXTURE.name}, {FIXTURE.stat().st_size} bytes\n")


def _their_model(torch: Any, path: Path) -> Any:
    gemma: Any = importlib.import_module("transformers.models.gemma4")
    config = gemma.Gemma4TextConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=SHAPE.width,
        intermediate_size=SHAPE.mlp_width,
        num_hidden_layers=len(SHAPE.sliding),
        num_attention_heads=SHAPE.heads,
        num_key_value_heads=SHAPE.kv_heads,
        head_dim=SHAPE.head_width,
        global_head_dim=SHAPE.head_width,
        rms_norm_eps=1e-6,
        sliding_window=SHAPE.window_tokens,
        layer_types=["sliding_attention" if sliding else "full_attention" for sliding in SHAPE.sliding],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
        },
        final_logit_softcapping=30.0,
        hidden_size_per_layer_input=0,
        enable_moe_block=True,
        num_experts=SHAPE.experts,
        top_k_experts=SHAPE.experts_used,
        moe_intermediate_size=SHAPE.expert_width,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    model = gemma.Gemma4ForCausalLM(config).eval()
    state = {_their_name(tensor.name): torch.tensor(weights(tensor)) for tensor in read_header(path).tensors}
    state.pop("")
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not missing, missing
    assert not unexpected, unexpected
    return model


def _their_name(name: str) -> str:
    """`transformers`' name of a tensor; "" for one that it has none for."""
    if name.startswith("blk."):
        _, layer, rest = name.split(".", 2)
        return f"model.layers.{layer}.{LAYER_NAMES[rest]}"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}.get(name, "")


def _record(torch: Any, model: Any) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    def watch(experts: Any, arguments: tuple[Any, ...], _output: Any) -> None:
        hidden, index, factor = arguments
        norms = torch.zeros_like(factor)
        for token, chosen in enumerate(index.tolist()):
            for rank, expert in enumerate(chosen):
                gate, up = torch.nn.functional.linear(hidden[token], experts.gate_up_proj[expert]).chunk(2)
                output = torch.nn.functional.linear(experts.act_fn(gate) * up, experts.down_proj[expert])
                norms[token, rank] = (output * factor[token, rank]).norm()
        seen.append({"experts": index.tolist(), "factors": factor.tolist(), "norms": norms.tolist()})

    for layer in model.model.layers:
        layer.experts.register_forward_hook(watch)
    logits = model(torch.tensor([TOKENS])).logits[0]
    return {
        "torch": torch.__version__,
        "transformers": importlib.import_module("transformers").__version__,
        "layers": [
            {**each, "scales": layer.router.per_expert_scale.tolist()}
            for each, layer in zip(seen, model.model.layers, strict=True)
        ],
        "last_logits": logits[-1].tolist(),
    }


if __name__ == "__main__":
    main()
