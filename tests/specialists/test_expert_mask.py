"""A mask file says one thing, says it safely, and comes back as it was written."""

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.expert_mask import ExpertMask, MaskError, Swap, parse_mask, read_mask, replay, write_mask

KEPT = {0: (1, 2, 5), 3: (0, 2, 7)}


@pytest.fixture
def mask() -> ExpertMask:
    swap = Swap(
        pass_name="whitelist",
        layer=3,
        added=7,
        evicted=4,
        why="mean rank 0.50 over 12 activations",
        scale="utility",
        added_score=0.25,
        evicted_score=None,
    )
    return ExpertMask(
        kept=KEPT,
        num_experts=8,
        domain="math",
        parent="fp:1234",
        provenance={"profile": "prof.npz", "tokens": 76_000},
        metrics={"retained": [0.99, 0.98]},
        swaps=(swap,),
    )


@st.composite
def masks(draw: st.DrawFn) -> ExpertMask:
    num_experts = draw(st.integers(2, 40))
    layers = draw(st.lists(st.integers(0, 1023), min_size=1, max_size=5, unique=True))
    ids = st.sets(st.integers(0, num_experts - 1), min_size=1).map(lambda found: tuple(sorted(found)))
    mask = ExpertMask(
        kept={layer: draw(ids) for layer in layers}, num_experts=num_experts, domain=draw(st.sampled_from(["", "math"]))
    )
    return mask.with_swaps(draw(swaps_for(mask)))


@st.composite
def swaps_for(draw: st.DrawFn, mask: ExpertMask) -> list[Swap]:
    held = {layer: list(ids) for layer, ids in mask.kept.items()}
    swaps = []
    for _ in range(draw(st.integers(0, 6))):
        layer = draw(st.sampled_from(mask.layers))
        outside = [expert for expert in range(mask.num_experts) if expert not in held[layer]]
        if outside:
            added, evicted = draw(st.sampled_from(outside)), draw(st.sampled_from(held[layer]))
            held[layer] = [expert for expert in held[layer] if expert != evicted] + [added]
            score = draw(st.one_of(st.none(), st.floats(-1e300, 1e300)))
            swaps.append(Swap(pass_name="p", layer=layer, added=added, evicted=evicted, why="é", added_score=score))
    return swaps


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_mask_comes_back_as_it_was_written(mask: ExpertMask, tmp_path: Path) -> None:
    """All fields survive the file, and its digest is that of the value."""
    path = tmp_path / "math.mask.json"
    write_mask(mask, path)

    assert read_mask(path) == mask
    assert json.loads(path.read_text())["digest"] == mask.digest
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@given(mask=masks())
def test_any_mask_survives_its_file(mask: ExpertMask, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Written and read back, every mask equals itself, and its log leads from the first selection to what is kept."""
    path = tmp_path_factory.mktemp("masks") / "any.mask.json"
    write_mask(mask, path)

    assert read_mask(path) == mask
    assert replay(mask.before_swaps(), mask.swaps) == dict(mask.kept)


@given(mask=masks())
def test_kept_and_dropped_are_two_sides_of_one_mask(mask: ExpertMask) -> None:
    """The mask of what is dropped, given as dropped ids, is the mask itself."""
    assert ExpertMask.of_dropped(mask.dropped, mask.num_experts).kept == mask.kept


def test_the_digest_is_of_what_is_kept_alone(mask: ExpertMask) -> None:
    """Names and logs do not change it; one other expert does."""
    assert mask.digest == ExpertMask(kept=KEPT, num_experts=8).digest
    assert mask.digest != ExpertMask(kept=KEPT | {0: (1, 2, 6)}, num_experts=8).digest
    assert mask.digest != ExpertMask(kept=KEPT, num_experts=9).digest


def test_masks_are_values(mask: ExpertMask) -> None:
    """Equal masks have equal hashes, and neither the layers nor the metrics can be changed in place."""
    again = replace(mask)

    assert {mask, again} == {mask}
    with pytest.raises(TypeError):
        mask.kept[0] = (1,)  # type: ignore[index]


@pytest.mark.parametrize("name", ["math.mask.json", "98e_mask.json", "kept.json", "masks-to-keep.json"])
def test_a_plain_map_called_a_mask_holds_kept_ids(name: str, tmp_path: Path) -> None:
    """The name says so by a whole word; the order of ids does not matter."""
    path = written(tmp_path / name, {"0": [5, 1, 2], "3": [0, 2, 7]})

    found = read_mask(path, num_experts=8)

    assert dict(found.kept) == KEPT
    assert found.provenance["read_from"] == "plain map of kept ids"


@pytest.mark.parametrize("name", ["cd_multiclass_98e_max_drop_map.json", "dropped.json", "drop.json"])
def test_a_plain_map_called_a_drop_map_holds_dropped_ids(name: str, tmp_path: Path) -> None:
    """What is not in it is kept."""
    path = written(tmp_path / name, {"0": [0, 3, 4, 6, 7], "3": [1, 3, 4, 5, 6]})

    assert dict(read_mask(path, num_experts=8).kept) == KEPT


@pytest.mark.parametrize(
    "name", ["teacher_force_98e_p16_clean.json", "drop_mask.json", "unmasked.json", "dropout.json", "keep-drop.json"]
)
def test_a_plain_map_that_does_not_say_is_refused(name: str, tmp_path: Path) -> None:
    """Kept and dropped ids look alike, and taking one for the other would keep the worst experts: no guessing."""
    path = written(tmp_path / name, {"0": [1, 2, 5], "3": [0, 2, 7]})

    with pytest.raises(MaskError, match="kept or dropped"):
        read_mask(path, num_experts=8)
    assert dict(read_mask(path, num_experts=8, ids="kept").kept) == KEPT
    assert dict(read_mask(path, num_experts=8, ids="dropped").dropped) == KEPT


def test_what_the_caller_says_comes_before_the_name(tmp_path: Path) -> None:
    """A file called a mask may be declared a drop map."""
    path = written(tmp_path / "odd.mask.json", {"0": [0]})

    assert dict(read_mask(path, num_experts=3, ids="dropped").kept) == {0: (1, 2)}


def test_a_plain_map_needs_the_number_of_experts(tmp_path: Path) -> None:
    """Without it, nobody knows what is dropped."""
    with pytest.raises(MaskError, match="--experts"):
        read_mask(written(tmp_path / "a.mask.json", {"0": [0]}))


def test_drop_metadata_says_itself_what_it_means(tmp_path: Path) -> None:
    """`expert_drop_metadata.json` is read from either of its maps, and both must agree."""
    both = {
        "base_model": "google/gemma-4-26B-A4B-it",
        "original_experts": 8,
        "target_experts": 3,
        "per_layer_keep": {"0": [1, 2, 5], "3": [0, 2, 7]},
        "per_layer_drop": {"0": [0, 3, 4, 6, 7], "3": [1, 3, 4, 5, 6]},
    }
    path = tmp_path / "expert_drop_metadata.json"

    for left_out in ("", "per_layer_keep", "per_layer_drop"):
        content = {key: value for key, value in both.items() if key != left_out}
        assert dict(read_mask(written(path, content)).kept) == KEPT
    with pytest.raises(MaskError, match="per_layer_keep: does not fit"):
        read_mask(written(path, both | {"per_layer_drop": {"0": [0, 3, 4, 6, 7], "3": [1, 3, 4, 5, 7]}}))
    with pytest.raises(MaskError, match="target_experts"):
        read_mask(written(path, both | {"target_experts": 4}))


def test_a_mask_of_ours_is_never_read_as_dropped_ids(mask: ExpertMask, tmp_path: Path) -> None:
    """The file says what it keeps, so a caller who says otherwise is told."""
    path = tmp_path / "a.json"
    write_mask(mask, path)

    with pytest.raises(MaskError, match="says itself"):
        read_mask(path, ids="dropped")
    with pytest.raises(MaskError, match="num_experts: the mask is for 8"):
        read_mask(path, num_experts=128)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "coe-mask/9"}, "format: .*coe-mask/1"),
        ({"kept": {"0": [1, 9]}}, r"kept\[0\]: 9 is no expert id; from 0 to 7"),
        ({"kept": {"0": [1, 1]}}, r"kept\[0\]: names expert 1 twice"),
        ({"kept": {"0": [2, 1]}}, r"kept\[0\]: ids must ascend"),
        ({"kept": {"0": []}}, r"kept\[0\]: keeps no expert"),
        ({"kept": {"0": [True]}}, r"kept\[0\]: True is no expert id"),
        ({"kept": {"0": [1.0]}}, r"kept\[0\]: 1.0 is no expert id"),
        ({"kept": {"00": [1]}}, "'00' is no block index"),
        ({"kept": {"-1": [1]}}, "'-1' is no block index"),
        ({"kept": {"1024": [1]}}, "1024 is no block index"),
        ({"kept": {}}, "kept: has 0 layers"),
        ({"kept": [[1]]}, "kept: .* must be an object"),
        ({"num_experts": "8"}, "num_experts: '8' must be a whole number"),
        ({"num_experts": 10**400}, "num_experts: a very large number"),
        ({"domain": "a\nb"}, "domain: .* one line"),
        ({"swaps": [{"pass": "x"}]}, r"swaps\[0\]: needs the fields"),
        ({"digest": "sha256:0"}, "digest: does not match"),
        ({"extra": 1}, "'extra' is no field"),
    ],
)
def test_a_wrong_file_is_refused_by_field(mask: ExpertMask, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """The message names the file, the field and what is expected there."""
    path = tmp_path / "a.mask.json"
    write_mask(replace(mask, swaps=()), path)
    content = {key: value for key, value in json.loads(path.read_text()).items() if key != "digest"}
    written(path, content | change)

    with pytest.raises(MaskError, match=rf"a\.mask\.json: .*{said}"):
        read_mask(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "nan",
        '{"0": [NaN]}',
        "[" * 100_000,
        '{"0": [1], "0": [2]}',
        '{"0": ' + "9" * 5000 + "}",
        "\ufeff{}",
        '{"0": 1e999}',
    ],
    ids=["empty", "list", "cut", "nan", "nan-inside", "deep", "twice", "huge", "bom", "infinite"],
)
def test_what_is_no_mask_at_all_is_refused(text: str, tmp_path: Path) -> None:
    """One clear error that names the file, whatever stands in it."""
    with pytest.raises(MaskError, match=r"a\.mask\.json"):
        read_mask(written(tmp_path / "a.mask.json", text), num_experts=8)


def test_a_missing_long_or_special_file_is_refused(tmp_path: Path) -> None:
    """A directory is not read, and neither is a file beyond 16 MiB."""
    large = tmp_path / "large.mask.json"
    with large.open("wb") as file:
        file.truncate((1 << 24) + 1)

    for path, said in ((tmp_path / "no.json", "cannot be read"), (tmp_path, "regular file"), (large, "16 MiB")):
        with pytest.raises(MaskError, match=said):
            read_mask(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["0", "1", "kept", "x"]), inner),
    max_leaves=12,
)


@given(
    content=st.dictionaries(
        st.sampled_from(
            ["format", "kept", "num_experts", "swaps", "0", "per_layer_keep", "original_experts", "metrics"]
        ),
        json_values | st.just("coe-mask/1") | st.just({"0": [1]}) | st.just(8),
    )
)
def test_any_json_is_a_mask_or_one_error(content: dict[str, Any]) -> None:
    """Whatever the object, there is a sound mask or a MaskError, and nothing else."""
    try:
        found = parse_mask(content, num_experts=8, ids="kept")
    except MaskError:
        return
    assert all(ids == tuple(sorted(set(ids))) for ids in found.kept.values())


def test_a_log_that_does_not_lead_to_the_mask_is_refused(mask: ExpertMask) -> None:
    """A swap whose expert is not kept, or whose evicted one still is, belongs to another mask."""
    for swap in (replace(mask.swaps[0], added=6), replace(mask.swaps[0], evicted=0), replace(mask.swaps[0], layer=1)):
        with pytest.raises(MaskError, match="swaps"):
            replace(mask, swaps=(swap,))
    with pytest.raises(MaskError, match=r"swaps\[0\]: layer 3"):
        mask.with_swaps([mask.swaps[0]])


def test_k_is_one_number_or_an_error(mask: ExpertMask) -> None:
    """Layers that keep different numbers have no K: a GGUF could not say it."""
    uneven = ExpertMask(kept={0: (1,), 1: (1, 2)}, num_experts=8)

    assert (mask.num_kept, mask.is_uniform, uneven.is_uniform) == (3, True, False)
    with pytest.raises(MaskError, match="from 1 to 2 experts"):
        _ = uneven.num_kept


def test_a_mask_fits_its_parent_or_says_why_not(mask: ExpertMask) -> None:
    """Number of experts, layers and, where both are known, the fingerprint."""
    mask.check_fits(num_experts=8, layers=[0, 3], parent="fp:1234")
    mask.check_fits(num_experts=8, layers=[0, 3])

    for wrong, said in (
        ({"num_experts": 128, "layers": [0, 3]}, "num_experts"),
        ({"num_experts": 8, "layers": [0, 1, 3]}, r"lacks .*\[1\]"),
        ({"num_experts": 8, "layers": [0]}, r"has layers \[3\]"),
        ({"num_experts": 8, "layers": [0, 3], "parent": "fp:9"}, "parent"),
    ):
        with pytest.raises(MaskError, match=said):
            mask.check_fits(**wrong)  # type: ignore[arg-type]


def test_an_unwritable_mask_leaves_the_old_file(mask: ExpertMask, tmp_path: Path) -> None:
    """Metrics that JSON cannot hold are an error before anything is touched."""
    path = tmp_path / "a.mask.json"
    write_mask(mask, path)
    before = path.read_bytes()

    with pytest.raises(MaskError, match="JSON"):
        write_mask(replace(mask, metrics={"x": float("nan")}), path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.mask.json"]
