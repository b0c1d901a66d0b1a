"""What a college says reaches the engine process."""

from pathlib import Path

import pytest

from specialists.catalogue import load_catalogue
from specialists.engine.order import load_order
from specialists.engine.protocol import EngineSpec, FamilyMember
from specialists.errors import CatalogueError
from tests.pico import write_pico_gemma


def college(folder: Path, keys: str) -> Path:
    write_pico_gemma(folder / "m.gguf")
    table = f'[[specialist]]\ntag = "a:q4"\nmodel = "m.gguf"\n{keys}\n'
    (folder / "college.toml").write_text(f'[college]\nname = "c"\ndefault = "a:q4"\n{table}')
    return folder / "college.toml"


def test_a_placement_in_the_college_reaches_the_engine(tmp_path: Path) -> None:
    """`gpu_layers` and `cpu_expert_layers` as written, with the sizes beside them."""
    path = college(tmp_path, "gpu_layers = 9\ncpu_expert_layers = 2\ncontext = 256\nparallel = 3")
    order = load_order(load_catalogue(path).specialists["a:q4"].engine)

    assert (order.gpu_layers, order.cpu_expert_layers) == (9, 2)
    assert (order.context_tokens, order.parallel, order.serving, order.family) == (256, 3, "", ())


def test_a_negative_number_of_layers_is_a_mistake(tmp_path: Path) -> None:
    """It names the key; only `gpu_layers` knows −1."""
    with pytest.raises(CatalogueError, match="cpu_expert_layers"):
        load_catalogue(college(tmp_path, "cpu_expert_layers = -1"))


def test_a_family_begins_as_the_first_unless_told() -> None:
    """Without a name, the first member."""
    members = (FamilyMember("a", mask_path=Path("a.json")), FamilyMember("b", mask_path=Path("b.json")))
    spec = EngineSpec(model_path=Path("m.gguf"), context_tokens=64, threads=1, family=members)

    assert [load_order(spec, serving=name).serving for name in ("", "b")] == ["a", "b"]
    assert [member.mask_path for member in load_order(spec).family] == ["a.json", "b.json"]
