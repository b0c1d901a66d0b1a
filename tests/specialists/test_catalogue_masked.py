"""Masked specialists in a college: which of them are one family, and what makes one unavailable."""

from pathlib import Path

import pytest

from specialists.builder.plan_writer import write_plan
from specialists.catalogue import Catalogue, load_catalogue
from specialists.errors import CatalogueError
from specialists.expert_mask import ExpertMask, read_mask, write_mask
from specialists.expert_slicing import plan_slice
from specialists.gguf_file import read_header
from specialists.manifest import SpecialistManifest
from specialists.moe_layout import layout
from specialists.tensor_digests import digest_tensors, write_table
from tests.pico import PicoShape, write_pico_gemma

SHAPE = PicoShape(sliding=(True, False), experts=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A parent with masks of two sizes."""
    write_pico_gemma(tmp_path / "parent.gguf", SHAPE)
    for name, kept in (("math", (0, 1, 2, 3)), ("law", (1, 2, 3, 4)), ("small", (5, 6))):
        write_mask(ExpertMask(kept={0: kept, 1: kept}, num_experts=8), tmp_path / f"{name}.mask.json")
    return tmp_path


def college(folder: Path, **specialists: str) -> Path:
    """A college.toml with one masked specialist for each name; the text is further keys of its table."""
    tables = (
        f'[[specialist]]\ntag = "{name}:q4"\nparent = "parent.gguf"\nmask = "{name}.mask.json"\n{more}\n'
        for name, more in specialists.items()
    )
    first = next(iter(specialists))
    (folder / "college.toml").write_text(f'[college]\nname = "c"\ndefault = "{first}:q4"\n' + "".join(tables))
    return folder / "college.toml"


def manifests(catalogue: Catalogue) -> list[SpecialistManifest]:
    return list(catalogue.specialists.values())


def test_masks_of_one_size_over_one_parent_are_a_family(folder: Path) -> None:
    """They share one engine, as large as the largest wants it; its members are in the college's order."""
    math, law = manifests(load_catalogue(college(folder, math="context = 256", law="context = 512\nparallel = 2")))

    assert math.engine == law.engine
    assert [member.name for member in math.engine.family] == ["math:q4", "law:q4"]
    assert [member.mask_path for member in math.engine.family] == [
        folder / "math.mask.json",
        folder / "law.mask.json",
    ]
    assert (math.engine.model_path, math.engine.context_tokens) == (folder / "parent.gguf", 512)
    assert (math.context_tokens, law.context_tokens) == (256, 512)
    assert math.unavailable is None


def test_another_number_of_experts_or_other_layers_on_the_gpu_is_another_family(folder: Path) -> None:
    """A frame has one number of slots, and its trunk lies in one place."""
    write_mask(ExpertMask(kept={0: (0, 7), 1: (0, 7)}, num_experts=8), folder / "tiny.mask.json")
    math, small, law, tiny = manifests(
        load_catalogue(college(folder, math="", small="", law="gpu_layers = 3", tiny=""))
    )

    assert [len(each.engine.family) for each in (math, small, law, tiny)] == [1, 2, 1, 2]
    assert small.engine == tiny.engine


def test_a_mask_that_cannot_be_used_makes_one_specialist_unavailable(folder: Path) -> None:
    """Missing, unreadable or made for something else: the others are a family without it, and the reason is told."""
    (folder / "torn.mask.json").write_text("{")
    other = ExpertMask(kept={0: (0,), 1: (0,)}, num_experts=9)
    write_mask(other, folder / "other.mask.json")
    uneven = ExpertMask(kept={0: (0,), 1: (0, 1)}, num_experts=8)
    write_mask(uneven, folder / "uneven.mask.json")

    catalogue = load_catalogue(college(folder, math="", law="", gone="", torn="", other="", uneven=""))

    found = {tag: each.unavailable or "" for tag, each in catalogue.specialists.items()}
    assert [tag for tag, why in found.items() if not why] == ["math:q4", "law:q4"]
    assert len(catalogue.specialists["math:q4"].engine.family) == 2
    for name, why in (("gone", "cannot be read"), ("torn", "JSON"), ("other", "9 experts"), ("uneven", "one K")):
        assert f"{name}.mask.json" in found[f"{name}:q4"]
        assert why in found[f"{name}:q4"]


def test_a_parent_without_experts_is_no_parent(folder: Path) -> None:
    """The reason names what it lacks; nothing is served from it."""
    from tests.pico import write_pico_llama

    write_pico_llama(folder / "parent.gguf")
    (math,) = manifests(load_catalogue(college(folder, math="")))

    assert "dense model" in (math.unavailable or "")


def test_an_adapter_and_a_mask_exclude_each_other(folder: Path) -> None:
    """An adapter's matrices lie in the order of the experts it was made for, and slots do not."""
    (folder / "lora.Modelfile").write_text("FROM parent.gguf\nADAPTER lora.gguf\n")
    with pytest.raises(CatalogueError, match="an adapter cannot be used with parent and mask"):
        load_catalogue(college(folder, math='modelfile = "lora.Modelfile"'))


def standalone(folder: Path, *names: str) -> Path:
    """A college of specialists with files of their own."""
    tables = (f'[[specialist]]\ntag = "{name}:q4"\nmodel = "{name}.gguf"\n' for name in names)
    (folder / "college.toml").write_text(f'[college]\nname = "c"\ndefault = "{names[0]}:q4"\n' + "".join(tables))
    return folder / "college.toml"


def cut(folder: Path, *names: str) -> None:
    """Files of their own for some of the masks."""
    for name in names:
        kept = read_mask(folder / f"{name}.mask.json").kept
        plan = plan_slice(layout(read_header(folder / "parent.gguf")), kept)
        write_plan(plan, folder / f"{name}.gguf", lambda _count: None)


def keep_digests(folder: Path, *names: str) -> None:
    for name in names:
        write_table(digest_tensors(layout(read_header(folder / f"{name}.gguf"))), folder / f"{name}.gguf")


def test_files_cut_from_one_parent_are_a_family_once_their_digests_are_kept(folder: Path) -> None:
    """Without them each has an engine of its own; a file of another size never joins."""
    cut(folder, "math", "law", "small")
    path = standalone(folder, "math", "law", "small")
    assert [each.engine.family for each in manifests(load_catalogue(path))] == [(), (), ()]

    keep_digests(folder, "math", "law", "small")
    math, law, small = manifests(load_catalogue(path))
    assert math.engine == law.engine
    assert [(each.name, each.model_path) for each in math.engine.family] == [
        ("math:q4", folder / "math.gguf"),
        ("law:q4", folder / "law.gguf"),
    ]
    assert (small.engine.family, small.engine.parking_bytes) == ((), 0)


def test_one_file_under_two_tags_needs_no_frame(folder: Path) -> None:
    """Equal weights are shared as they always were."""
    cut(folder, "math")
    keep_digests(folder, "math")
    (folder / "college.toml").write_text(
        '[college]\nname = "c"\ndefault = "a"\n'
        '[[specialist]]\ntag = "a"\nmodel = "math.gguf"\n[[specialist]]\ntag = "b"\nmodel = "math.gguf"\n'
    )
    first, second = manifests(load_catalogue(folder / "college.toml"))

    assert first.engine == second.engine
    assert first.engine.family == ()


def test_a_broken_table_of_digests_costs_the_frame_and_not_the_specialist(folder: Path) -> None:
    """It is served by an engine of its own, and a note says why."""
    cut(folder, "math", "law")
    keep_digests(folder, "math", "law")
    (folder / "law.digests.json").write_text("[]")
    _, law = manifests(load_catalogue(standalone(folder, "math", "law")))

    assert (law.unavailable, law.engine.family) == (None, ())
    assert "law.digests.json" in law.notes[0]
