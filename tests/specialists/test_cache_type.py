"""`cache_type` in college.toml: read, refused, and what it keeps apart."""

from dataclasses import replace
from pathlib import Path

import pytest

from specialists.catalogue import load_catalogue
from specialists.engine.protocol import CacheType, EngineSpec, FamilyMember
from specialists.errors import CatalogueError
from specialists.pool.frames import can_serve
from tests.pico import write_pico_llama


def college(folder: Path, *types: str) -> Path:
    """Specialists s0, s1 … over one file; each text is a further line of its table."""
    write_pico_llama(folder / "m.gguf")
    tables = [f'[[specialist]]\ntag = "s{at}:q4"\nmodel = "m.gguf"\n{line}\n' for at, line in enumerate(types)]
    (folder / "college.toml").write_text('[college]\nname = "c"\ndefault = "s0:q4"\n' + "".join(tables))
    return folder / "college.toml"


def test_specialists_share_an_engine_only_with_one_type_of_cache(tmp_path: Path) -> None:
    """Cells of one type mean nothing in a cache of another."""
    path = college(tmp_path, 'cache_type = "q8_0"', 'cache_type = "q8_0"', 'cache_type = "q4_0"', "")
    engines = [each.engine for each in load_catalogue(path).specialists.values()]

    assert [engine.cache_type for engine in engines] == [CacheType.Q8_0, CacheType.Q8_0, CacheType.Q4_0, None]
    assert len(set(engines)) == 3


def test_a_type_that_there_is_not_is_named_with_its_field_and_the_known_ones(tmp_path: Path) -> None:
    """The file, the entry, the field, what it holds, and what it may."""
    with pytest.raises(CatalogueError) as caught:
        load_catalogue(college(tmp_path, 'cache_type = "q5_1"'))

    for part in ("college.toml", "s0:q4", "cache_type", "'f16', 'q8_0' or 'q4_0'", "q5_1"):
        assert part in str(caught.value)


def test_a_frame_serves_nobody_who_wants_another_type_of_cache() -> None:
    """After the college was read again with another type, its specialists get another engine."""
    member = FamilyMember("math", mask_path=Path("math.mask.json"))
    frame = EngineSpec(model_path=Path("parent.gguf"), context_tokens=64, family=(member,))

    assert can_serve(frame, "math", replace(frame, family=(member, FamilyMember("law", Path("law.mask.json")))))
    assert not can_serve(frame, "math", replace(frame, cache_type=CacheType.Q8_0))
