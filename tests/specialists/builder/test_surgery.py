"""A whole build: the right files, or none; inputs checked before anything is written."""

import hashlib
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelfiles.modelfile import parse
from specialists.builder.errors import BuilderError, UnsoundWeights
from specialists.builder.structure import check_structure
from specialists.builder.surgery import Mode, Surgery, perform, prepare
from specialists.catalogue import load_catalogue
from specialists.errors import SpecialistError
from specialists.expert_mask import ExpertMask, MaskError, write_mask
from specialists.gguf_file import GgufError, read_header
from specialists.gguf_fingerprint import fingerprint
from specialists.moe_layout import MoeError, layout
from tests.pico import PACKED, write_pico_gemma, write_pico_llama

KEPT = {0: (0, 2, 3, 5), 1: (1, 2, 4, 7)}
NOW = "2026-01-02T03:04:05+00:00"
BESIDE = [
    *(".Modelfile", ".build.report.html", ".build.report.json", ".card.md"),
    *(".gguf", ".manifest.json", ".ollama.Modelfile"),
]


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return write_pico_gemma(tmp_path / "parent.gguf", PACKED)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    path = tmp_path / "math.mask.json"
    write_mask(ExpertMask(kept=KEPT, num_experts=8, domain="math", metrics={"retained": 0.97}), path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "built"
    folder.mkdir()
    return folder / "math.gguf"


def build(surgery: Surgery) -> None:
    perform(surgery, tag="math:q4", written_at=NOW)


def test_a_build_is_its_parent_cut_by_the_mask(parent: Path, mask: Path, out: Path) -> None:
    """Checked by the code that knows nothing of plans, in both modes."""
    for mode in Mode:
        build(prepare(parent, mask, out, mode=mode))
        found = check_structure(layout(read_header(parent)), KEPT, read_header(out))
        assert (found.mode, found.findings) == (mode.value, ())


def test_all_companions_appear(parent: Path, mask: Path, out: Path) -> None:
    """And nothing else does."""
    build(prepare(parent, mask, out, mode=Mode.SLICE))

    assert sorted(path.name for path in out.parent.iterdir()) == [f"math{suffix}" for suffix in BESIDE]


def test_the_manifest_has_the_digests_of_all_inputs(parent: Path, mask: Path, out: Path) -> None:
    """What it says of sizes and digests is so."""
    build(prepare(parent, mask, out, mode=Mode.SLICE))
    said = json.loads(out.with_suffix(".manifest.json").read_text())

    assert (said["format"], said["tag"], said["domains"]) == ("coe-specialist/1", "math:q4", ["math"])
    assert said["experts"] == {"in_parent": 8, "kept": 4, "in_model": 4, "used": 2, "layers": 2}
    assert said["parent"]["fingerprint"] == fingerprint(read_header(parent))
    assert said["mask"]["sha256"] == hashlib.sha256(mask.read_bytes()).hexdigest()
    assert said["model"]["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert said["model"]["num_bytes"] == out.stat().st_size
    assert said["written_at"] == NOW


def test_modelfiles_are_for_us_and_for_ollama(parent: Path, mask: Path, out: Path) -> None:
    """Both read back and name the file beside them; Ollama's has no `think`, which it refuses."""
    build(prepare(parent, mask, out, mode=Mode.SLICE))
    ours = parse(out.with_suffix(".Modelfile").read_text())
    theirs = parse(out.with_suffix(".ollama.Modelfile").read_text())

    assert ours.source == theirs.source == "./math.gguf"
    assert ours.system == theirs.system
    assert "mathematician" in (ours.system or "")
    assert (ours.parameters.temperature, ours.parameters.think) == (0.6, False)
    assert (theirs.parameters.think, theirs.renderer, theirs.parser) == (None, "gemma4", "gemma4")


def test_the_card_says_what_was_not_checked(parent: Path, mask: Path, out: Path) -> None:
    """Safety, the file's digest, and a college entry that the catalogue accepts as it stands."""
    build(prepare(parent, mask, out, mode=Mode.SLICE))
    card = out.with_suffix(".card.md").read_text()

    assert "Alignment is not preserved by pruning." in card
    assert hashlib.sha256(out.read_bytes()).hexdigest() in card
    assert "| retained | 0.97 |" in card
    entry = card.partition("```toml")[2].partition("```")[0]
    college = out.with_name("college.toml")
    college.write_text(f'[college]\nname = "c"\ndefault = "math:q4"\n{entry}')
    (specialist,) = load_catalogue(college).specialists.values()
    assert (specialist.tag, specialist.domains, specialist.unavailable) == ("math:q4", ("math",), None)


def test_the_card_of_a_zeroed_model_says_so(parent: Path, mask: Path, out: Path) -> None:
    """Its dropped experts still take gate weight, which a reader has to know."""
    build(prepare(parent, mask, out, mode=Mode.ZERO))

    assert "the gate still chooses them" in " ".join(out.with_suffix(".card.md").read_text().split())


def test_progress_covers_the_whole_file(parent: Path, mask: Path, out: Path) -> None:
    """Announced bytes add up to the plan's."""
    surgery, heard = prepare(parent, mask, out, mode=Mode.SLICE), list[int]()

    perform(surgery, tag="m", written_at=NOW, on_bytes=heard.append)

    assert sum(heard) == surgery.plan.num_bytes == out.stat().st_size


def damaged_norm(path: Path) -> None:
    header = read_header(path)
    info = next(info for info in header.tensors if info.name == "blk.1.attn_norm.weight")
    raw = bytearray(path.read_bytes())
    raw[info.offset : info.offset + 4] = np.array([np.inf], dtype="<f4").tobytes()
    path.write_bytes(raw)


def test_a_broken_norm_aborts_before_anything_is_written(parent: Path, mask: Path, out: Path) -> None:
    """A NaN or infinity in the parent: an error that names the tensor, and no file."""
    damaged_norm(parent)

    with pytest.raises(UnsoundWeights, match=r"'blk\.1\.attn_norm\.weight' holds a NaN or an infinity at number 0"):
        prepare(parent, mask, out, mode=Mode.SLICE)


def test_a_norm_that_breaks_meanwhile_leaves_no_output(parent: Path, mask: Path, out: Path) -> None:
    """What was written is checked again before it gets its name."""
    surgery = prepare(parent, mask, out, mode=Mode.SLICE)
    damaged_norm(parent)

    with pytest.raises(UnsoundWeights):
        build(surgery)
    assert list(out.parent.iterdir()) == []


def test_a_parent_that_shrinks_meanwhile_leaves_no_output(parent: Path, mask: Path, out: Path) -> None:
    """Likewise, and what stood there before stays."""
    out.write_text("old")
    surgery = prepare(parent, mask, out, mode=Mode.SLICE)
    os.truncate(parent, parent.stat().st_size // 2)

    with pytest.raises(GgufError, match=r"parent\.gguf: shrank while it was copied"):
        build(surgery)
    assert [path.read_text() for path in out.parent.iterdir()] == ["old"]


def test_an_interruption_leaves_no_output(parent: Path, mask: Path, out: Path) -> None:
    """Ctrl-C in the middle of the copy."""

    def interrupt(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(prepare(parent, mask, out, mode=Mode.SLICE), tag="m", written_at=NOW, on_bytes=interrupt)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("built/math.bin", r"--out: 'math\.bin' must end in \.gguf"),
        ("nowhere/math.gguf", "there is no folder"),
        ("parent.gguf", "is the parent itself"),
        ("link.gguf", "is the parent itself"),
        ("folder.gguf", "is a folder"),
    ],
)
def test_an_output_that_cannot_be_is_refused(name: str, message: str, parent: Path, mask: Path, out: Path) -> None:
    """Above all the parent is never overwritten, by whatever name it goes."""
    folder = parent.parent
    (folder / "link.gguf").symlink_to(parent)
    (folder / "folder.gguf").mkdir()
    before = parent.read_bytes()

    with pytest.raises(BuilderError, match=message):
        prepare(parent, mask, folder / name, mode=Mode.SLICE)
    assert parent.read_bytes() == before


def test_a_mask_for_another_parent_is_refused(parent: Path, mask: Path, out: Path) -> None:
    """By its fingerprint, its number of experts, its layers."""
    other = write_pico_gemma(parent.with_name("other.gguf"))
    for wrong in (
        ExpertMask(kept=KEPT, num_experts=8, parent=fingerprint(read_header(other))),
        ExpertMask(kept=KEPT, num_experts=16),
        ExpertMask(kept={**KEPT, 2: (0, 1, 2, 3)}, num_experts=8),
    ):
        write_mask(wrong, mask)
        with pytest.raises(MaskError):
            prepare(parent, mask, out, mode=Mode.SLICE)


def test_layers_of_different_size_are_for_zeroing_only(parent: Path, mask: Path, out: Path) -> None:
    """A slice needs one K; zeroing does not."""
    write_mask(ExpertMask(kept={0: (0, 1), 1: (0, 1, 2)}, num_experts=8), mask)

    with pytest.raises(MoeError, match="make a mask with one K, or use --mode zero"):
        prepare(parent, mask, out, mode=Mode.SLICE)
    assert prepare(parent, mask, out, mode=Mode.ZERO).experts.kept == 2


def test_a_dense_parent_is_refused(parent: Path, mask: Path, out: Path) -> None:
    """There are no experts in it."""
    dense = write_pico_llama(parent.with_name("dense.gguf"))

    with pytest.raises(MoeError, match=r"dense\.gguf: is a dense model"):
        prepare(dense, mask, out, mode=Mode.SLICE)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_pico_gemma(tmp_path_factory.mktemp("fuzz") / "whole.gguf", PACKED).read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_hostile_parent_is_cut_or_refused(whole: bytes, tmp_path: Path, data: st.DataObject) -> None:
    """With bytes of its head overwritten, or cut short: a specialist or a clear error, little memory, no leftovers."""
    folder = tmp_path / "fuzz"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    damaged = bytearray(whole)
    head = read_head_bytes(whole)
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, head), st.integers(0, 2**64 - 1)), max_size=3)):
        width = data.draw(st.sampled_from([1, 4, 8]))
        damaged[place : place + width] = value.to_bytes(8, "little")[:width]
    parent, mask = folder / "parent.gguf", folder / "x.mask.json"
    parent.write_bytes(damaged[: data.draw(st.integers(1, len(whole)) | st.just(len(whole)))])
    write_mask(ExpertMask(kept=KEPT, num_experts=8), mask)

    tracemalloc.start()
    try:
        build(prepare(parent, mask, folder / "out.gguf", mode=Mode.SLICE))
    except (GgufError, SpecialistError, BuilderError):
        assert sorted(path.name for path in folder.iterdir()) == ["parent.gguf", "x.mask.json"]
    finally:
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < 40_000_000


def read_head_bytes(whole: bytes) -> int:
    """Where the tensor data begins: the whole file less the data, which ggml pads at the end."""
    return whole.rindex(b"layer_output_scale.weight") + 60
