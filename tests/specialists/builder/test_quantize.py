"""llama.cpp's quantiser through our command: types, importance matrices, refusals that leave nothing behind."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from specialists.builder.errors import BuilderError, QuantizeFailed
from specialists.builder.inspection import tensor_groups
from specialists.builder.plan_writer import write_plan
from specialists.builder.quantize import QuantizeJob, quantize
from specialists.expert_mask import ExpertMask, write_mask
from specialists.expert_slicing import plan_slice
from specialists.gguf_file import GgufError, read_header
from specialists.moe_layout import layout
from tests.pico import PicoShape, write_pico_gemma
from tests.specialists.builder.test_imatrix import write_imatrix

SHAPE = PicoShape(sliding=(False,), width=256, experts=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pico_gemma(tmp_path_factory.mktemp("model") / "f32.gguf", SHAPE)


def job(model: Path, out: Path, **changes: object) -> QuantizeJob:
    return QuantizeJob(**{"source": model, "out": out, "threads": 1, **changes})  # type: ignore[arg-type]


def types(path: Path, kind: str) -> tuple[str, ...]:
    return next(group.types for group in tensor_groups(read_header(path)) if group.name == kind)


@pytest.mark.parametrize(("name", "packing"), [("Q8_0", "Q8_0"), ("Q4_K_M", "Q4_K"), ("F16", "F16")])
def test_tensors_are_packed(name: str, packing: str, model: Path, tmp_path: Path) -> None:
    """As the type says, with llama.cpp's own exceptions; each tensor is announced."""
    out, heard = tmp_path / "out.gguf", list[int]()

    record = quantize(job(model, out, type=name), on_tensor=lambda done, _total, _name: heard.append(done))

    assert packing in types(out, "attention")
    assert "F32" not in types(out, "attention")
    assert record.model.num_bytes == out.stat().st_size < record.source.num_bytes
    assert heard == list(range(1, len(read_header(model).tensors) + 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.gguf",
        "out.quantize.report.html",
        "out.quantize.report.json",
    ]


def importance(experts: int) -> dict[str, np.ndarray]:
    """A matrix for every tensor that the smallest types want one for."""
    rng = np.random.default_rng(1)
    widths = {"attn_q": 256, "attn_k": 256, "attn_v": 256, "attn_output": 64, "ffn_gate": 256, "ffn_up": 256}
    one = {f"blk.0.{name}.weight": rng.random((1, width)) for name, width in {**widths, "ffn_down": 96}.items()}
    each = {"blk.0.ffn_gate_up_exps.weight": (experts, 256), "blk.0.ffn_down_exps.weight": (experts, 32)}
    return {
        name: values.astype(np.float32)
        for name, values in {**one, **{n: rng.random(s) for n, s in each.items()}}.items()
    }


def write_importance(path: Path, experts: int) -> Path:
    sums = importance(experts)
    return write_imatrix(
        path, sums, {name: np.ones((len(values), 1), dtype=np.float32) for name, values in sums.items()}
    )


def test_the_smallest_types_need_a_matrix(model: Path, tmp_path: Path) -> None:
    """Without one llama.cpp's reason comes with the mend; with one they are made."""
    out = tmp_path / "out.gguf"

    with pytest.raises(QuantizeFailed, match=r"f32\.gguf: llama\.cpp refused: .*requires an imatrix.*--imatrix"):
        quantize(job(model, out, type="IQ2_XXS"))
    assert list(tmp_path.iterdir()) == []

    record = quantize(job(model, out, type="IQ2_XXS", imatrix=write_importance(tmp_path / "i.gguf", 4)))
    assert "IQ2_XXS" in types(out, "experts")
    assert record.imatrix is not None


def test_a_specialist_takes_its_parents_matrix(model: Path, tmp_path: Path) -> None:
    """Cut by the same mask; uncut it is refused, as its rows belong to other experts."""
    found = layout(read_header(model))
    kept = {0: (1, 3)}
    child, mask = tmp_path / "child.gguf", tmp_path / "m.mask.json"
    write_plan(plan_slice(found, kept), child, lambda _count: None)
    write_mask(ExpertMask(kept=kept, num_experts=4), mask)
    matrix = write_importance(tmp_path / "i.gguf", 4)

    with pytest.raises(BuilderError, match="--parent, --mask"):
        quantize(job(child, tmp_path / "out.gguf", type="IQ2_XXS", imatrix=matrix))
    record = quantize(job(child, tmp_path / "out.gguf", type="IQ2_XXS", imatrix=matrix, parent=model, mask=mask))

    assert record.model.num_bytes < record.source.num_bytes


def test_a_matrix_changes_what_is_packed(model: Path, tmp_path: Path) -> None:
    """It reaches the quantiser: the same type with other weights of columns gives other bytes."""
    plain, weighed = tmp_path / "plain.gguf", tmp_path / "weighed.gguf"

    quantize(job(model, plain, type="Q4_0"))
    quantize(job(model, weighed, type="Q4_0", imatrix=write_importance(tmp_path / "i.gguf", 4)))

    assert plain.stat().st_size == weighed.stat().st_size or types(plain, "experts") == types(weighed, "experts")
    assert plain.read_bytes()[-100_000:] != weighed.read_bytes()[-100_000:]


def test_what_is_packed_already_needs_a_word(model: Path, tmp_path: Path) -> None:
    """A second loss of precision is not incurred silently."""
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    quantize(job(model, first, type="Q8_0"))

    with pytest.raises(QuantizeFailed, match=r"requantizing from type q8_0 is disabled; .*--requantize"):
        quantize(job(first, second, type="Q4_0"))
    assert quantize(job(first, second, type="Q4_0", may_requantize=True)).model.num_bytes < first.stat().st_size


def test_what_cannot_be_asked_is_refused(model: Path, tmp_path: Path) -> None:
    """Before any process is started; the message names the option."""
    out = tmp_path / "out.gguf"
    for changes, message in (
        ({"type": "Q9"}, "--type: 'Q9' is not among F32, F16"),
        ({"out": model}, "names the model itself"),
        ({"out": tmp_path / "x.bin"}, r"must end in \.gguf"),
        ({"mask": out}, "--parent and --mask: belong together"),
        ({"mask": out, "parent": model}, "--imatrix"),
    ):
        with pytest.raises(BuilderError, match=message):
            quantize(job(model, **{"out": out, **changes}))  # type: ignore[arg-type]
    (tmp_path / "g.gguf").write_bytes(b"rubbish")
    with pytest.raises(GgufError, match=r"g\.gguf: is not a GGUF file"):
        quantize(job(tmp_path / "g.gguf", out))


def test_an_interruption_ends_the_quantiser(model: Path, tmp_path: Path) -> None:
    """Ctrl-C while tensors are packed: the child is gone, and so is what it had written."""

    def interrupt(_done: int, _total: int, _name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(job(model, tmp_path / "out.gguf"), on_tensor=interrupt)
    assert list(tmp_path.iterdir()) == []


def coe(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command(model: Path, tmp_path: Path) -> None:
    """Exit code 0 and a record, or 2 and one line."""
    done = coe("quantize", model, "--out", tmp_path / "out.gguf", "--type", "Q8_0", "--json")
    refused = coe("quantize", model, "--out", tmp_path / "out.gguf", "--type", "Q9")

    assert (done.exit_code, refused.exit_code) == (0, 2)
    assert json.loads(done.stdout)["type"] == "Q8_0"
    assert refused.stderr.startswith("coe: --type: 'Q9'")
