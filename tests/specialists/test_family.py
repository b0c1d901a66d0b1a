"""Families: of masks over one parent, and of files whose digests say that they were cut from one."""

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.cli import app
from specialists.builder.plan_writer import write_plan
from specialists.expert_mask import ExpertMask, MaskError, write_mask
from specialists.expert_slicing import Kept, plan_slice
from specialists.expert_slots import plan_morph
from specialists.family import (
    Family,
    masked_family,
    read_masked_family,
    standalone_family,
    why_no_family,
)
from specialists.gguf_file import read_header
from specialists.gguf_fingerprint import fingerprint
from specialists.gguf_plan import FileRange
from specialists.moe_layout import MoeError, MoeLayout, layout
from specialists.tensor_digests import DigestError, DigestTable, digest_tensors, read_table, table_path, write_table
from tests.pico import PicoShape, write_pico_gemma

SHAPE = PicoShape(sliding=(True, False), experts=12, scale_spread=0.3)
MATH: Kept = {0: (0, 1, 2, 3, 4, 5), 1: (0, 2, 4, 6, 8, 10)}
LAW: Kept = {0: (0, 1, 2, 3, 4, 11), 1: (1, 2, 4, 6, 7, 10)}  # 1 and 2 experts that math has not


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> MoeLayout:
    return layout(read_header(write_pico_gemma(tmp_path_factory.mktemp("parent") / "parent.gguf", SHAPE)))


def mask(kept: Kept, *, parent: str = "") -> ExpertMask:
    return ExpertMask(kept={block: tuple(ids) for block, ids in kept.items()}, num_experts=12, parent=parent)


def cut(parent: MoeLayout, kept: Kept, path: Path) -> MoeLayout:
    write_plan(plan_slice(parent, kept), path, lambda _count: None)
    return layout(read_header(path))


def files_of(parent: MoeLayout, folder: Path) -> dict[str, tuple[MoeLayout, DigestTable]]:
    layouts = {name: cut(parent, kept, folder / f"{name}.gguf") for name, kept in (("math", MATH), ("law", LAW))}
    return {name: (found, digest_tensors(found)) for name, found in layouts.items()}


def content(family: Family, name: str) -> bytes:
    """The bytes of the file that a frame would be loaded from."""
    data = bytearray()
    for _, segment in family.plan(name).placed():
        if isinstance(segment, FileRange):
            data += segment.path.read_bytes()[segment.offset : segment.offset + segment.num_bytes]
        else:
            data += getattr(segment, "data", bytes(segment.num_bytes))
    return bytes(data)


def test_a_familys_first_specialist_is_loaded_as_the_builder_writes_it(parent: MoeLayout, tmp_path: Path) -> None:
    """Byte for byte; the others have the same experts in the order of their slots."""
    family = masked_family(parent, {"math": mask(MATH), "law": mask(LAW)})
    cut(parent, MATH, tmp_path / "math.gguf")

    assert content(family, "math") == (tmp_path / "math.gguf").read_bytes()
    assert family.num_slots == 6
    assert {block: tuple(sorted(experts)) for block, experts in family.members["law"].items()} == LAW
    assert len(plan_morph(family.members["math"], family.members["law"]).writes) == 3


def test_members_that_keep_different_numbers_of_experts_are_no_family(parent: MoeLayout) -> None:
    """A frame has one number of slots; the specialist that does not fit is named."""
    small = mask({0: (0, 1), 1: (0, 1)})
    with pytest.raises(MaskError, match="law keeps 2 experts, others of its family 6"):
        masked_family(parent, {"math": mask(MATH), "law": small})


def test_a_mask_for_another_parent_is_refused_by_name(parent: MoeLayout, tmp_path: Path) -> None:
    """Whether its shape or only its fingerprint says so; one that was made for this parent is taken."""
    path = parent.header.path
    one_layer: Kept = {0: (0, 1)}
    for kept, made_for in ((one_layer, ""), (MATH, "sampled-sha256:0")):
        write_mask(mask(kept, parent=made_for), tmp_path / "law.mask.json")
        with pytest.raises(MaskError, match=r"law\.mask\.json: "):
            read_masked_family(path, {"law": tmp_path / "law.mask.json"})

    write_mask(mask(MATH, parent=fingerprint(parent.header)), tmp_path / "math.mask.json")
    assert set(read_masked_family(path, {"math": tmp_path / "math.mask.json"}).members) == {"math"}


def test_files_cut_from_one_parent_are_a_family(parent: MoeLayout, tmp_path: Path) -> None:
    """A morph between them writes the experts they do not share, and a frame of either can be loaded."""
    family = standalone_family(files_of(parent, tmp_path))

    assert len(plan_morph(family.members["math"], family.members["law"]).writes) == 3
    assert content(family, "math") == (tmp_path / "math.gguf").read_bytes()
    masked = masked_family(parent, {"math": mask(MATH), "law": mask(LAW)})
    assert content(family, "law") == content(masked, "law")


def test_equal_experts_in_one_layer_are_kept_apart(parent: MoeLayout, tmp_path: Path) -> None:
    """A file that has the same expert twice still has as many slots as before."""
    first, table = files_of(parent, tmp_path)["math"]
    doubled = replace(table, experts={**table.experts, 0: (table.experts[0][1], *table.experts[0][1:])})
    family = standalone_family({"math": (first, table), "doubled": (first, doubled)})

    assert [sorted(set(family.members[name][0])) for name in family.members] == [[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 7]]


def test_what_keeps_files_apart_is_told(parent: MoeLayout, tmp_path: Path) -> None:
    """Another trunk, another vocabulary or size, another number of experts: each is named."""
    table = files_of(parent, tmp_path)["math"][1]
    name = "blk.0.attn_q.weight"
    other_trunk = replace(table, trunk={**table.trunk, name: "0"})
    fewer = replace(table, experts={block: digests[:4] for block, digests in table.experts.items()})

    assert why_no_family(table, table) is None
    assert why_no_family(table, other_trunk) == f"{name} differ, which no expert mask changes"
    assert "metadata" in (why_no_family(table, replace(table, metadata="0")) or "")
    assert "numbers of experts" in (why_no_family(table, fewer) or "")
    missing = {each: digest for each, digest in table.trunk.items() if each != name}
    assert name in (why_no_family(table, replace(table, trunk=missing)) or "")
    with pytest.raises(MoeError, match="not of one family"):
        standalone_family({"a": (parent, table), "b": (parent, other_trunk)})


def test_a_models_name_and_description_do_not_matter(tmp_path: Path) -> None:
    """Files that differ in `general.name` alone are a family; a changed number elsewhere in the metadata is seen."""
    paths = [tmp_path / "a.gguf", tmp_path / "b.gguf", tmp_path / "c.gguf"]
    for path in paths:
        write_pico_gemma(path, SHAPE)
    for path, key in ((paths[1], "general.name"), (paths[2], "gemma4.context_length")):
        field = gguf.GGUFReader(path, "r+").fields[key]
        field.parts[field.data[0]][0] ^= np.uint8(1)
    tables = [digest_tensors(layout(read_header(path))) for path in paths]

    assert why_no_family(tables[0], tables[1]) is None
    assert why_no_family(tables[0], tables[2]) is not None


def test_a_kept_table_is_used_until_the_file_changes(parent: MoeLayout, tmp_path: Path) -> None:
    """It comes back as it was; a file that was touched since has none, and nonsense is refused by name."""
    found, table = files_of(parent, tmp_path)["math"]
    assert read_table(found.header) is None
    write_table(table, found.header.path)
    assert read_table(found.header) == table

    found.header.path.write_bytes(found.header.path.read_bytes())
    assert read_table(found.header) is None
    table_path(found.header.path).write_text('{"format": "coe-digests/1", "stamp": 3}')
    with pytest.raises(DigestError, match=r"math\.digests\.json"):
        read_table(found.header)


def test_the_command_says_who_is_family(parent: MoeLayout, tmp_path: Path) -> None:
    """Exit code 0 and the bytes of a morph for a family, 1 and the reason for strangers, 2 for wrong usage."""
    files_of(parent, tmp_path)
    math, law = (str(tmp_path / f"{name}.gguf") for name in ("math", "law"))
    stranger = str(write_pico_gemma(tmp_path / "other.gguf", replace(SHAPE, experts=6, seed=8)))
    run = CliRunner().invoke

    kin = run(app, ["family", math, law, "--keep", "--json"])
    assert kin.exit_code == 0, kin.output
    moved = 3 * next(iter({layer.bytes_per_expert for layer in parent.layers}))
    assert f'"num_bytes": {moved}' in kin.stdout
    assert table_path(Path(math)).is_file()
    strangers = run(app, ["family", math, stranger])
    assert (strangers.exit_code, "no: " in strangers.stdout) == (1, True)
    assert run(app, ["family", math]).exit_code == 2
    assert run(app, ["family", math, str(tmp_path / "nowhere.gguf")]).exit_code == 2
