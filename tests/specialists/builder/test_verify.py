"""The proof: it holds for what was cut rightly, exactly, and fails for anything else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from specialists.builder.corpus import Corpus, CorpusError
from specialists.builder.plan_writer import write_plan
from specialists.builder.proof import Drift, drift
from specialists.builder.structure import check_structure
from specialists.builder.verify import Comparison, LogitsProof, Verification, VerifySettings, verify
from specialists.expert_slicing import plan_slice, plan_zero
from specialists.gguf_file import read_header
from specialists.moe_layout import MoeLayout, Role, layout
from tests.pico import PACKED, SEPARATE, PicoShape, write_pico_gemma
from tests.pico_moe import write_pico_moe

SETTINGS = VerifySettings(context_tokens=96, max_tokens=250)
SMALL = PicoShape(sliding=(True, False), window_tokens=32, scale_spread=0.3)
MANY = replace(SMALL, experts=16, experts_used=4)
Kept = Mapping[int, Sequence[int]]


def alternating(moe: MoeLayout, count: int) -> Kept:
    """Every other expert and more, different ones in each layer; half of each group where there are groups."""
    order = [*range(0, moe.num_experts, 2), *range(1, moe.num_experts, 2)]
    return {
        block: tuple(sorted((expert + 3 * block) % moe.num_experts for expert in order[:count])) for block in moe.blocks
    }


def cut(moe: MoeLayout, kept: Kept, *, zero: bool = False) -> Path:
    out = moe.header.path.with_name("specialist.gguf")
    write_plan((plan_zero if zero else plan_slice)(moe, kept), out, lambda _count: None)
    return out


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    path = tmp_path / "held-out.txt"
    path.write_text("\n\n".join(f"{number} things were never profiled. " * 40 for number in range(4)))
    return Corpus("held-out", [path])


def prove(moe: MoeLayout, kept: Kept, specialist: Path, corpus: Corpus, *, mode: str = "slice") -> LogitsProof:
    with Comparison(moe, kept, read_header(specialist), SETTINGS, mode=mode) as comparison:
        comparison.domain(corpus)
        return comparison.proof


ARCHITECTURES = {"llama": 4, "qwen2moe": 5, "qwen3moe": 4, "olmoe": 5, "gpt-oss": 5, "deepseek2": 4}
PARENTS: dict[str, tuple[Callable[[Path], Path], int]] = {
    "F32, half": (partial(write_pico_gemma, shape=SMALL), 4),
    "F32, half of 16": (partial(write_pico_gemma, shape=MANY), 8),
    "F32, no multiple of 4": (partial(write_pico_gemma, shape=MANY), 7),
    "F32, fewer than are used": (partial(write_pico_gemma, shape=MANY), 3),
    "F16": (partial(write_pico_gemma, shape=replace(MANY, gate_up_type="F16", down_type="F16")), 8),
    "Q8_0": (partial(write_pico_gemma, shape=replace(MANY, gate_up_type="Q8_0", down_type="Q8_0")), 9),
    "Q4_0, separate": (partial(write_pico_gemma, shape=SEPARATE), 5),
    "Q4_K and Q8_0": (partial(write_pico_gemma, shape=PACKED), 4),
    **{name: (partial(write_pico_moe, architecture=name), count) for name, count in ARCHITECTURES.items()},
}


@pytest.mark.parametrize("name", PARENTS)
def test_a_slice_computes_what_the_masked_parent_computes(tmp_path: Path, corpus: Corpus, name: str) -> None:
    """Logits are equal to the last bit in every architecture and packing, and the gates differ by rounding alone."""
    write, count = PARENTS[name]
    moe = layout(read_header(write(tmp_path / "parent.gguf")))
    kept = alternating(moe, count)
    proof = prove(moe, kept, cut(moe, kept), corpus)

    assert proof.holds
    assert proof.aligned == Drift(tokens=250, max_difference=0.0, exact_tokens=250, same_choice_tokens=250)
    assert (proof.gates.wrong, proof.gates.swapped) == (0, 0)
    assert max(proof.gates.logit_difference, proof.gates.weight_difference) < 0.3  # of what is allowed
    assert proof.tolerance == (1e-5 if "Q" in name else 0)


def test_only_masking_leaves_the_rounding_of_the_softmax(tmp_path: Path, corpus: Corpus) -> None:
    """Why the proof aligns the gates: 16 and 8 terms add up in another order, and the logits differ a little."""
    moe = layout(read_header(write_pico_gemma(tmp_path / "parent.gguf", MANY)))
    kept = alternating(moe, 8)
    proof = prove(moe, kept, cut(moe, kept), corpus)

    assert 0 < proof.free.max_difference < 0.1
    assert proof.free.same_choice_tokens == proof.free.tokens == 250


@pytest.mark.parametrize("shape", [SMALL, PACKED, SEPARATE])
def test_a_zeroed_specialist_computes_the_parent_without_the_experts_outputs(
    tmp_path: Path, corpus: Corpus, shape: PicoShape
) -> None:
    """Its gates still choose dropped experts, which then say nothing; the proof follows that, exactly."""
    moe = layout(read_header(write_pico_gemma(tmp_path / "parent.gguf", shape)))
    kept = alternating(moe, 3)
    specialist = cut(moe, kept, zero=True)
    proof = prove(moe, kept, specialist, corpus, mode="zero")

    assert proof.holds
    assert proof.aligned.exact_tokens == 250
    other = {block: tuple((expert + 1) % moe.num_experts for expert in experts) for block, experts in kept.items()}
    assert not prove(moe, other, specialist, corpus, mode="zero").holds


def flip(path: Path, offset: int, mask: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def test_a_byte_of_an_expert_breaks_the_proof(tmp_path: Path, corpus: Corpus) -> None:
    """One exponent in one expert's output matrix is found by the logits alone, without looking at the bytes."""
    moe = layout(read_header(write_pico_gemma(tmp_path / "parent.gguf", SMALL)))
    kept = alternating(moe, 4)
    specialist = cut(moe, kept)
    down = layout(read_header(specialist)).layer(1).tensors[Role.DOWN_EXPS]
    flip(specialist, down.offset(2) + 4 * 100 + 3, 0x08)

    assert not prove(moe, kept, specialist, corpus).holds


def test_gate_rows_in_another_order_break_the_proof(tmp_path: Path, corpus: Corpus) -> None:
    """The experts are the right ones and so are the rows, but each row chooses its neighbour's expert."""
    moe = layout(read_header(write_pico_gemma(tmp_path / "parent.gguf", SMALL)))
    kept = alternating(moe, 4)
    specialist = cut(moe, kept)
    gate = layout(read_header(specialist)).layer(0).tensors[Role.GATE_INP]
    data = bytearray(specialist.read_bytes())
    first, second = (slice(gate.offset(expert), gate.offset(expert) + gate.bytes_per_expert) for expert in (0, 1))
    data[first], data[second] = data[second], data[first]
    specialist.write_bytes(data)
    proof = prove(moe, kept, specialist, corpus)

    assert not proof.holds
    assert proof.gates.wrong > 0
    assert proof.gates.logit_difference > 1


def test_another_mask_is_not_proven(tmp_path: Path, corpus: Corpus) -> None:
    """A specialist of other experts of the same parent has another's logits."""
    moe = layout(read_header(write_pico_gemma(tmp_path / "parent.gguf", SMALL)))
    kept = alternating(moe, 4)
    other = {block: tuple((expert + 1) % 8 for expert in experts) for block, experts in kept.items()}

    assert not prove(moe, {block: sorted(ids) for block, ids in other.items()}, cut(moe, kept), corpus).holds


def test_a_parent_that_keeps_everything_is_as_perplexed_as_itself(tmp_path: Path, corpus: Corpus) -> None:
    """The ratio is exactly 1, and each side's perplexity lies in its interval."""
    moe = layout(read_header(write_pico_moe(tmp_path / "parent.gguf", "qwen3moe")))
    kept = {block: tuple(range(moe.num_experts)) for block in moe.blocks}
    with Comparison(moe, kept, moe.header, SETTINGS, mode="slice") as comparison:
        found = comparison.domain(corpus)

    assert (found.ratio.low, found.ratio.value, found.ratio.high) == (1, 1, 1)
    assert found.parent == found.specialist
    assert found.parent.low < found.parent.value < found.parent.high
    assert 200 < found.tokens < 250  # of each window all but the first


def run(moe: MoeLayout, kept: Kept, specialist: Path, corpus: Corpus) -> Verification:
    header = read_header(specialist)
    return verify(moe, kept, header, check_structure(moe, kept, header), [corpus], SETTINGS)


def test_a_file_that_is_wrong_already_is_not_computed(tmp_path: Path, corpus: Corpus) -> None:
    """The structure says why; there is no proof, so all is not well."""
    moe = layout(read_header(write_pico_gemma(tmp_path / "parent.gguf", SMALL)))
    kept = alternating(moe, 4)
    specialist = cut(moe, kept)
    good = run(moe, kept, specialist, corpus)
    flip(specialist, layout(read_header(specialist)).layer(0).tensors[Role.GATE_UP_EXPS].offset(1), 1)
    bad = run(moe, kept, specialist, corpus)

    assert good.is_well
    assert [each.domain for each in good.perplexities] == ["held-out"]
    assert not bad.is_well
    assert bad.proof is None
    assert [each.where for each in bad.structure.findings] == ["blk.0.ffn_gate_up_exps.weight"]


def test_text_too_short_to_predict_anything_is_refused(tmp_path: Path) -> None:
    """Nothing computed would prove nothing."""
    moe = layout(read_header(write_pico_gemma(tmp_path / "parent.gguf", SMALL)))
    path = tmp_path / "short.txt"
    path.write_text("x")
    kept = {block: tuple(range(8)) for block in moe.blocks}

    with (
        Comparison(moe, kept, moe.header, SETTINGS, mode="slice") as comparison,
        pytest.raises(CorpusError, match="too short"),
    ):
        comparison.domain(Corpus("short", [path]))


def test_drift_counts_what_is_no_number_as_infinitely_far() -> None:
    """NaN compares as nothing, and must not pass for equal."""
    ours = np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 6.0]], dtype=np.float32)
    theirs = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 4.5]], dtype=np.float32)

    assert drift(ours, theirs).max_difference == np.inf
    assert drift(ours[[0, 2]], theirs[[0, 2]]) == Drift(
        tokens=2, max_difference=1.5, exact_tokens=1, same_choice_tokens=1
    )
