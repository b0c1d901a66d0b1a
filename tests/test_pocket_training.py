"""The pocket parent's training code against transformers' Gemma 4, plain autograd, and itself after a break.

Needs torch and transformers (`pocket/requirements.txt`), which the product does not; skipped where they are missing.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocket.shape import PocketShape

torch: Any = pytest.importorskip("torch", reason="training the pocket parent needs torch")

TINY = PocketShape(
    vocabulary=96, width=32, sliding=(True, False), window_tokens=8, head_width=16, mlp_width=48, experts=8,
    experts_used=2, expert_width=16, context_tokens=64,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def tiny_model() -> Any:
    """Float32, every norm and scale moved off 1 so that none can be left out unseen."""
    from pocket.network import PocketModel

    model = PocketModel(TINY, torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.mul_(1 + 0.3 * torch.randn_like(parameter))
    return model


def reference_model(weights: dict[str, Any]) -> Any:
    """transformers' own Gemma 4 with `weights`."""
    gemma4 = pytest.importorskip("transformers.models.gemma4", reason="the reference is transformers")
    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": TINY.rope_base_sliding},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 1.0, "rope_theta": TINY.rope_base},
    }
    config = gemma4.Gemma4TextConfig(
        vocab_size=TINY.vocabulary, vocab_size_per_layer_input=TINY.vocabulary, hidden_size=TINY.width,
        intermediate_size=TINY.mlp_width, num_hidden_layers=TINY.layers, num_attention_heads=TINY.heads,
        num_key_value_heads=TINY.kv_heads, head_dim=TINY.head_width, global_head_dim=TINY.head_width,
        sliding_window=TINY.window_tokens, layer_types=["sliding_attention", "full_attention"],
        final_logit_softcapping=TINY.softcap, hidden_size_per_layer_input=0, enable_moe_block=True,
        num_experts=TINY.experts, top_k_experts=TINY.experts_used, moe_intermediate_size=TINY.expert_width,
        rope_parameters=rope, attn_implementation="eager", max_position_embeddings=TINY.context_tokens,
    )  # fmt: skip
    model = gemma4.Gemma4ForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict({f"model.{name}": each for name, each in weights.items()}, strict=False)
    assert unexpected == []
    assert {name.rpartition(".")[2] for name in missing} <= {"layer_scalar", "weight"}  # ones, and the tied head
    return model


@pytest.mark.filterwarnings("ignore")  # transformers' own, of its imports
def test_the_network_is_gemma_4() -> None:
    """Logits and the gradient of every parameter equal those of transformers' classes, beyond the window's length."""
    ours = tiny_model()
    theirs = reference_model(ours.state_dict())
    tokens, wanted = torch.randint(1, TINY.vocabulary, (2, 2, 40))  # token 0 is transformers' padding

    logits = ours.logits(ours(tokens)[0]), theirs(input_ids=tokens).logits
    for each in logits:
        torch.nn.functional.cross_entropy(each.flatten(0, 1), wanted.flatten()).backward()

    torch.testing.assert_close(*logits, atol=2e-5, rtol=1e-4)
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[f"model.{name}"].grad, atol=1e-6, rtol=1e-3)


def test_sorted_experts_equal_a_plain_sum() -> None:
    """Outputs and all derivatives are those of the formula, with an expert that nobody chose."""
    from pocket.experts import RoutedExperts

    hidden = torch.randn(50, 16, requires_grad=True)
    chosen = torch.stack([torch.randperm(5)[:3] for _ in range(50)])  # never the sixth
    weights = torch.rand(50, 3, requires_grad=True)
    gate_up, down = torch.randn(6, 16, 16, requires_grad=True), torch.randn(6, 16, 8, requires_grad=True)
    inputs = (hidden, weights, gate_up, down)

    found = RoutedExperts.apply(hidden, chosen, weights, gate_up, down)
    inner = torch.einsum("td,tkfd->tkf", hidden, gate_up[chosen])
    active = torch.nn.functional.gelu(inner[..., :8], approximate="tanh") * inner[..., 8:]
    expected = (torch.einsum("tkf,tkdf->tkd", active, down[chosen]) * weights[..., None]).sum(1)
    direction = torch.randn_like(expected)

    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    for ours, plain in zip(
        torch.autograd.grad(found, inputs, direction), torch.autograd.grad(expected, inputs, direction), strict=True
    ):
        torch.testing.assert_close(ours, plain, atol=1e-3, rtol=1e-4)


def test_the_chunked_loss_is_cross_entropy_under_the_softcap() -> None:
    """Value and derivatives, over more tokens than one chunk holds."""
    from pocket.losses import CHUNK_TOKENS, SoftcappedLoss

    hidden = torch.randn(CHUNK_TOKENS + 44, 16, requires_grad=True)
    table = torch.randn(40, 16, requires_grad=True)
    wanted = torch.randint(0, 40, (len(hidden),))

    found = SoftcappedLoss.apply(hidden, table, wanted, 5.0)
    expected = torch.nn.functional.cross_entropy(5 * torch.tanh(hidden @ table.T / 5), wanted)

    torch.testing.assert_close(found, expected)
    pairs = zip(
        torch.autograd.grad(found, (hidden, table)), torch.autograd.grad(expected, (hidden, table)), strict=True
    )
    for ours, plain in pairs:
        torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-4)


def test_a_masked_gate_chooses_among_the_kept() -> None:
    """With a mask no dropped expert is chosen and the weights still sum to the scales of the chosen."""
    model = tiny_model()
    kept = {0: (1, 4, 6), 1: (0, 2, 7)}
    model.mask_experts(kept)

    _, traces = model(torch.randint(0, TINY.vocabulary, (2, 30)))

    assert [set(trace.chosen.unique().tolist()) <= set(kept[layer]) for layer, trace in enumerate(traces)] == [True] * 2
    torch.testing.assert_close(traces[0].probabilities.sum(-1), torch.ones(60))


def test_a_broken_off_run_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    """Four steps at once and two after two leave the same parameters, to the last bit."""
    from pocket.training import Recipe, Run

    streams = {
        name: np.random.default_rng(number).integers(0, 96, 600).astype(np.uint16) for number, name in enumerate("ab")
    }
    recipe = Recipe(steps=4, fall_steps=2, warm_steps=2, batch_tokens=64, length_tokens=16, long_every=3)
    found = []
    for folder, stops in (("whole", (4,)), ("broken", (2, 4))):
        (tmp_path / folder).mkdir()
        for stop in stops:
            run = Run(tmp_path / folder, streams, TINY, recipe)
            while run.step < stop:
                run.train_step()
            run.save()
        found.append(run.model.state_dict())

    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_training_learns(tmp_path: Path) -> None:
    """On a stream that repeats itself the loss falls by more than half within forty steps."""
    from pocket.training import Recipe, Run

    streams = {"a": np.tile(np.arange(24, dtype=np.uint16), 60)}
    recipe = Recipe(steps=40, fall_steps=10, warm_steps=2, batch_tokens=128, length_tokens=32)
    run = Run(tmp_path, streams, replace(TINY, window_tokens=16), recipe)
    losses = [run.train_step()["loss"] for _ in range(40)]

    assert losses[-1] < losses[0] / 2


def test_gates_are_asked_for_even_use_and_for_narrow_texts() -> None:
    """Balance is 1 when all experts are used alike; spread is 0 once every text keeps to few experts."""
    from pocket.losses import balance_loss, spread_loss

    narrow = torch.eye(4).repeat_interleave(6, dim=0)  # four texts of six tokens, each with an expert of its own
    even = torch.full((24, 4), 0.25)

    assert balance_loss(narrow, narrow.argmax(-1, keepdim=True)).item() == pytest.approx(1)
    assert spread_loss(narrow, 4, most=2.0).item() == 0
    assert spread_loss(even, 4, most=2.0).item() == pytest.approx(np.log(2), abs=1e-5)


def test_gates_are_asked_in_earnest_only_when_they_have_learnt() -> None:
    """Spread begins at nothing, a share of both holds until `asked_from`, and no weight ever falls."""
    from pocket.training import Recipe, asked_of_gates

    recipe = Recipe(balance=1.0, spread=0.25, asked_early=0.2, asked_from=1000)
    weights = np.array([asked_of_gates(recipe, step) for step in range(2000)])

    assert weights[0].tolist() == pytest.approx([0.2, 0.0])
    assert weights[1000].tolist() == pytest.approx([0.2, 0.05])
    assert weights[-1].tolist() == pytest.approx([1.0, 0.25])
    assert (np.diff(weights, axis=0) >= 0).all()
