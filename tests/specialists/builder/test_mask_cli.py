"""`coe mask`: a profile and a recipe make a mask, its report, and an honest account of both."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from specialists.builder import passes
from specialists.builder.histogram import Profile, write_profile
from specialists.builder.mask_recipe import AGGREGATIONS, Made, Recipe, RecipeError, make_mask
from specialists.builder.selection import retained, top_k
from specialists.builder.utility import NAMES, mean_rank, utility
from specialists.expert_mask import ExpertMask, read_mask, replay, write_mask
from tests.specialists.builder.made_up import made_up_profile

MATH = (("math", 1.0),)


@pytest.fixture(scope="module")
def profile() -> Profile:
    return made_up_profile()


@pytest.fixture(scope="module")
def file(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "prof.npz"
    write_profile(profile, path)
    return path


def coe(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["mask", *map(str, arguments)])


def made(profile: Profile, **options: Any) -> Made:
    chosen: dict[str, Any] = {"domains": MATH, "keep": 6} | options
    return make_mask(profile, Recipe(**{name: value for name, value in chosen.items() if value is not None}))


def test_the_plain_command_keeps_the_top_k(file: Path, profile: Profile, tmp_path: Path) -> None:
    """Profile, domain, K and an output are enough: top-K by the documents' utility, no pass, a report beside it."""
    out = tmp_path / "math.mask.json"
    result = coe("--profile", file, "--domain", "math", "--keep", 6, "--out", out)

    mask = read_mask(out)
    assert result.exit_code == 0, result.output
    assert tuple(mask.kept.values()) == top_k(utility("weight", profile.domain("math")).values, 6)
    assert (mask.layers, mask.domain, mask.parent, mask.swaps) == ((1, 2, 3), "math", "pico", ())
    assert mask.provenance["profile_digest"].startswith("sha256:")
    assert mask.provenance["corpora"]["math"]["tokens"] == 400
    assert {each.name for each in tmp_path.iterdir()} == {
        "math.mask.json", "math.mask.report.html", "math.mask.report.json",
    }  # fmt: skip


def test_all_passes_together(file: Path, tmp_path: Path) -> None:
    """K stays, the log replays, and --json says what was done; the report has every figure with what it is over."""
    out = tmp_path / "math.mask.json"
    result = coe(
        "--profile", file, "--domain", "math", "--keep", 6, "--out", out, "--whitelist", "--whitelist-rank", 1,
        "--reasoning", "reasoning", "--protect-top", 2, "--protect-by", "reap", "--protect-extreme", 3, "--json",
    )  # fmt: skip

    said, mask = json.loads(result.output), read_mask(out)
    assert result.exit_code == 0, result.output
    assert (said["keep"], said["digest"]) == (6, mask.digest)
    assert sum(said["swaps"].values()) == len(mask.swaps) > 0
    assert replay(mask.before_swaps(), mask.swaps) == dict(mask.kept)
    report = json.loads((tmp_path / "math.mask.report.json").read_text())
    figures = next(each["figures"] for each in report["sections"] if each["kind"] == "figures")
    assert all(each["over"] for each in figures)
    assert figures[0]["low"] <= figures[0]["value"] <= figures[0]["high"]
    kinds = [each["kind"] for each in report["sections"]]
    assert {"heatmap", "lines", "matrix", "table"} <= set(kinds)


def test_the_same_command_makes_the_same_mask(file: Path, tmp_path: Path) -> None:
    """Byte for byte: no clock and no chance is in it."""
    for name in ("a.mask.json", "b.mask.json"):
        coe("--profile", file, "--domain", "math", "--domain", "law", "--retain", 0.9, "--out", tmp_path / name)

    assert (tmp_path / "a.mask.json").read_bytes() == (tmp_path / "b.mask.json").read_bytes()


def test_retaining_a_share_finds_the_smallest_k(profile: Profile) -> None:
    """Of every domain, in every layer; one expert fewer would not do."""
    found = made(profile, keep=None, retain=0.9, domains=(("math", 1.0), ("law", 1.0)))
    k = found.mask.num_kept

    for name in ("math", "law"):
        assert (retained(found.signals[name].values, passes.selection_of(found.mask)) >= 0.9).all()
        assert found.signals[name].name == "contribution"
    fewer = top_k(found.ranking.values, k - 1)
    assert min(retained(found.signals[name].values, fewer).min() for name in ("math", "law")) < 0.9


def test_a_share_that_the_passes_spoilt_is_said(profile: Profile) -> None:
    """Reasoning swaps cost coverage of the domain; when that falls below what was asked, the notes say so."""
    found = made(profile, keep=None, retain=0.95, reasoning="reasoning", reasoning_cap=6)

    assert found.after["math"].least.retained < 0.95 <= found.before["math"].least.retained
    assert any("raise --retain" in note for note in found.notes)


@pytest.mark.parametrize("name", [*NAMES, "0.5*weight+0.5*reap"])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_every_utility_with_every_aggregation(profile: Profile, name: str, aggregation: str) -> None:
    """Each pair makes a sound mask of K experts; one domain alone does not depend on the aggregation."""
    both = made(profile, utility=name, aggregation=aggregation, domains=(("math", 1.0), ("law", 1.0)))
    alone = made(profile, utility=name, aggregation=aggregation)

    assert both.mask.num_kept == 6
    assert tuple(alone.mask.kept.values()) == top_k(utility(name, profile.domain("math")).values, 6)


def test_weights_of_domains_count(profile: Profile) -> None:
    """A domain of a thousand times the weight decides alone."""
    weighted = made(profile, aggregation="sum", domains=(("math", 1000.0), ("law", 1.0)))

    assert weighted.mask.kept == made(profile).mask.kept


def test_pooling_adds_records(profile: Profile) -> None:
    """The utility of both corpora together, as if they had been one."""
    pooled = made(profile, aggregation="pooled", domains=(("math", 1.0), ("law", 1.0)))
    both = profile.domain("math") + profile.domain("law")

    assert tuple(pooled.mask.kept.values()) == top_k(utility("weight", both).values, 6)


def test_what_the_whitelist_covers_survives_later_passes(profile: Profile) -> None:
    """Reasoning may only replace who is not whitelisted."""
    found = made(profile, whitelist=True, whitelist_rank=1.0, reasoning="reasoning", reasoning_cap=6)
    domain = profile.domain("math")
    flags = passes.whitelisted(mean_rank(domain), domain.routed_tokens, most_rank=1.0)

    assert {swap.pass_name for swap in found.mask.swaps} >= {"reasoning"}
    for swap in found.mask.swaps:
        assert not flags[found.mask.layers.index(swap.layer), swap.evicted]


def test_vain_protection_is_called_vain(profile: Profile) -> None:
    """As published, by the utility itself: a note, and no swap."""
    found = made(profile, protect_top=4)

    assert any("changes nothing" in note for note in found.notes)
    assert found.mask.swaps == ()


def test_a_whitelist_that_covers_everybody_is_called_so(profile: Profile) -> None:
    """With four ranks a mean rank below 2 is no distinction, and whom it leaves out is counted."""
    found = made(profile, whitelist=True)

    assert any("Lower --whitelist-rank" in note for note in found.notes)
    assert any("found no place" in note for note in found.notes)
    assert not any("whitelist" in note for note in made(profile, whitelist=True, whitelist_rank=1.0).notes)


def test_metrics_are_those_of_the_final_mask(profile: Profile) -> None:
    """The file's figures are recomputed from its kept ids; those before the passes stand beside them."""
    found = made(profile, reasoning="reasoning", reasoning_cap=6)
    figures = found.mask.metrics["domains"]["math"]

    assert figures["retained"] == pytest.approx(
        retained(found.signals["math"].values, passes.selection_of(found.mask)).tolist()
    )
    assert figures["retained_mean"] < figures["before_passes"]["retained_mean"]
    assert found.stability is not None
    assert 0 < found.stability[1] <= found.stability[0] <= found.stability[2] <= 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": None}, "keep: give either"),
        ({"retain": 0.9}, "keep: give either"),
        ({"domains": ()}, "domain: name at least one"),
        ({"domains": MATH * 2}, "domain: .* each once"),
        ({"domains": (("physics", 1.0),)}, "domain: 'physics' was not profiled; there are math, law, reasoning"),
        ({"domains": (("math", -1.0),)}, "domains: weights"),
        ({"aggregation": "median"}, "aggregate: 'median' is none of"),
        ({"aggregation": "pooled", "domains": (("math", 2.0),)}, "domain: pooled"),
        ({"utility": "loudness"}, "utility: 'loudness' is none of"),
        ({"keep": 13}, "keep: 13 of 12"),
        ({"keep": None, "retain": 2.0}, "retain: 2.0"),
        ({"reasoning": "math"}, "reasoning: 'math' is a domain of the mask"),
        ({"reasoning": "logic"}, "'logic' was not profiled"),
        ({"reasoning_cap": -1}, "reasoning-cap"),
        ({"protect_top": -1}, "protect-top"),
    ],
)
def test_a_wrong_recipe_is_refused_by_option(profile: Profile, options: dict[str, Any], said: str) -> None:
    """The message names the option and what would do."""
    with pytest.raises(Exception, match=said):
        made(profile, **{"keep": 6, **options})


def test_usage_errors_are_one_line_and_exit_code_2(file: Path, tmp_path: Path) -> None:
    """No trace, nothing written, and the mend in the message."""
    out = tmp_path / "x.mask.json"
    for arguments, said in (
        (("--domain", "math", "--keep", 6), "--profile"),
        (("--profile", tmp_path / "no.npz", "--domain", "math", "--keep", 6), "no.npz"),
        (("--profile", file, "--domain", "math=heavy", "--keep", 6), "math=heavy"),
        (("--profile", file, "--domain", "physics", "--keep", 6), "physics"),
        (("--profile", file, "--from", file), "--profile"),
        (("--from", tmp_path / "no.json"), "no.json"),
    ):
        result = coe(*arguments, "--out", out)
        assert result.exit_code == 2, arguments
        assert said in result.output
        assert result.output.count("\n") == 1
        assert not out.exists()


def test_other_masks_are_converted(tmp_path: Path) -> None:
    """A drop map becomes a mask of ours; a map that does not say what it lists is refused until told."""
    drop_map, unclear, out = tmp_path / "drop_map.json", tmp_path / "98e_clean.json", tmp_path / "general.mask.json"
    for path in (drop_map, unclear):
        path.write_text('{"0": [0, 3], "1": [1, 2]}')

    assert coe("--from", drop_map, "--experts", 4, "--out", out).exit_code == 0
    assert dict(read_mask(out).kept) == {0: (1, 2), 1: (0, 3)}
    assert coe("--from", unclear, "--experts", 4, "--out", out).exit_code == 2
    assert coe("--from", unclear, "--experts", 4, "--ids", "kept", "--out", out, "--json").exit_code == 0
    assert dict(read_mask(out).kept) == {0: (0, 3), 1: (1, 2)}


def test_a_mask_can_be_converted_again(profile: Profile, tmp_path: Path) -> None:
    """Reading one of ours and writing it loses nothing."""
    first, second = tmp_path / "a.mask.json", tmp_path / "b.mask.json"
    write_mask(made(profile).mask, first)

    assert coe("--from", first, "--out", second).exit_code == 0
    assert first.read_bytes() == second.read_bytes()


def test_a_profile_without_norms_still_makes_masks() -> None:
    """Retention is then measured in gate weight, and protection of extreme outputs is refused with the mend."""
    domain = made_up_profile(("math",), replicates=0).domain("math")
    nothing = np.zeros_like(domain.contribution_sum)
    domain = replace(domain, contribution_sum=nothing, contribution_square_sum=nothing, output_norm_max=nothing)
    bare = Profile(layers=(0, 1, 2), parent="", domains={"math": domain})

    found = made(bare)

    assert found.after["math"].signal == "weight"
    assert (found.stability, found.after["math"].optimism, found.after["math"].least.low) == (None, None, None)
    assert isinstance(found.mask, ExpertMask)
    with pytest.raises(RecipeError, match="protect-extreme"):
        made(bare, protect_extreme=10.0)
