"""The dry run against engines that really load, and what becomes of it when it fails."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from specialists.engine.dry_run import run
from specialists.engine.llama import LlamaLog
from specialists.engine.llama.allocation import allocations
from specialists.engine.loading import context_params, load_dry, load_weights, read_family, write_hollow
from specialists.engine.messages import Load, PlannedBuffer
from specialists.engine.order import load_order
from specialists.engine.planning import PlanUnknown, plan_allocations
from specialists.engine.protocol import EngineSpec, FamilyMember
from specialists.expert_mask import ExpertMask, write_mask
from specialists.gguf_file import read_header
from tests.pico import PicoShape, write_pico_gemma, write_pico_llama

SHAPE = PicoShape(sliding=(True, True, False), experts=8)


def taken(order: Load) -> list[PlannedBuffer]:
    """What llama.cpp says of a model that was loaded in earnest, mapped files counted with the RAM."""
    family = read_family(order)
    loaded = load_weights(order, family, on_progress=lambda _share: None, log=LlamaLog(), clock=lambda: 0.0)
    context = loaded.model.new_context(context_params(order, window_tokens=loaded.model.window_tokens))
    found = [PlannedBuffer(**asdict(use)) for use in allocations(context)]
    context.close()
    loaded.close()
    return found


def sums(buffers: list[PlannedBuffer]) -> tuple[int, int, int]:
    return (
        sum(each.weights_bytes for each in buffers),
        sum(each.cache_bytes for each in buffers),
        sum(each.compute_bytes for each in buffers),
    )


def frame_of(parent: Path, folder: Path) -> EngineSpec:
    mask = folder / "half.mask.json"
    kept = dict.fromkeys(range(len(SHAPE.sliding)), (0, 2, 5, 7))
    write_mask(ExpertMask(kept=kept, num_experts=8), mask)
    member = FamilyMember("half", mask_path=mask)
    return EngineSpec(model_path=parent, context_tokens=300, parallel=3, family=(member,))


def test_a_dry_run_says_what_a_file_takes(tmp_path: Path) -> None:
    """Cache and compute to the byte, weights as they are mapped; dense, and with experts and windows."""
    for path in (write_pico_llama(tmp_path / "llama.gguf"), write_pico_gemma(tmp_path / "gemma.gguf", SHAPE)):
        order = load_order(EngineSpec(model_path=path, context_tokens=700, parallel=2))

        planned, real = run(order, LlamaLog()), taken(order)

        assert sums(list(planned.buffers))[1:] == sums(real)[1:]
        assert sums(list(planned.buffers))[0] == pytest.approx(sums(real)[0], abs=4096)  # mapped in whole pages
        assert planned.output_bytes == 2 * planned.vocabulary_size * 4


def test_a_dry_run_says_what_a_frame_takes(tmp_path: Path) -> None:
    """A masked specialist is planned with its slots only, to the byte."""
    order = load_order(frame_of(write_pico_gemma(tmp_path / "parent.gguf", SHAPE), tmp_path))

    assert sums(list(run(order, LlamaLog()).buffers)) == sums(taken(order))


def test_a_hollow_file_is_planned_as_the_model_it_describes(tmp_path: Path) -> None:
    """Where there are no streams of callbacks a file of holes takes the plan's place: sizes are all that is asked."""
    order = load_order(frame_of(write_pico_gemma(tmp_path / "parent.gguf", SHAPE), tmp_path))
    family = read_family(order)
    assert family is not None
    write_hollow(family.plan("half"), tmp_path / "hollow.gguf")
    hollow = replace(frame_of(tmp_path / "parent.gguf", tmp_path), model_path=tmp_path / "hollow.gguf", family=())

    model = load_dry(load_order(hollow), None, log=LlamaLog())
    context = model.new_context(context_params(load_order(hollow), window_tokens=model.window_tokens))

    used = [PlannedBuffer(**asdict(use)) for use in allocations(context)]
    context.close()
    model.close()
    assert sums(used) == sums(list(run(order, LlamaLog()).buffers))
    assert read_header(tmp_path / "hollow.gguf").tensor_bytes <= sums(used)[0]


def test_scratch_is_reserved_for_few_rows_of_logits(tmp_path: Path) -> None:
    """Of a batch of 512 tokens only some may want logits, as each takes a row as wide as the vocabulary."""
    order = load_order(EngineSpec(model_path=write_pico_gemma(tmp_path / "m.gguf"), context_tokens=512, parallel=2))

    params = context_params(order, window_tokens=64)

    assert (params.batch_tokens, params.max_outputs) == (512, 66)


def test_a_child_answers_for_the_parent(tmp_path: Path) -> None:
    """The process gives the same answer as the call."""
    order = load_order(EngineSpec(model_path=write_pico_gemma(tmp_path / "m.gguf", SHAPE), context_tokens=256))

    assert plan_allocations(order) == run(order, LlamaLog())


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.abort()", "ended with -6: it said nothing"),
        ("import sys; sys.exit('no such library')", "ended with 1: no such library"),
        ("print('hello')", "ended with 0"),
        ("import time; time.sleep(60)", "no answer in 0.2 s"),
    ],
)
def test_a_child_that_fails_is_an_answer(code: str, words: str) -> None:
    """Crashes, nonsense and silence are one error that says what happened."""
    order = load_order(EngineSpec(model_path=Path("m.gguf"), context_tokens=256))

    with pytest.raises(PlanUnknown, match=words):
        plan_allocations(order, command=(sys.executable, "-c", code), patience_seconds=0.2 if "sleep" in code else 60)


def test_what_cannot_be_loaded_cannot_be_planned(tmp_path: Path) -> None:
    """The reason is llama.cpp's own, and names the file."""
    order = load_order(EngineSpec(model_path=tmp_path / "gone.gguf", context_tokens=256))

    with pytest.raises(PlanUnknown, match=r"gone\.gguf could not be loaded"):
        plan_allocations(order)
