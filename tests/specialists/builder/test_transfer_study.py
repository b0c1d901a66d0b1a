"""`coe transfer`: all pairs, honest intervals, and a table that the supervisor can use."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from gateway.cli import app
from specialists.builder.domain_similarity import similarity
from specialists.builder.histogram import Profile, write_profile
from specialists.builder.mask_recipe import Recipe, make_mask
from specialists.builder.measurements import COLUMNS, Measurements, parse_measurements, read_measurements
from specialists.builder.significance import pearson
from specialists.builder.transfer import TransferError, common_experts, f_score
from specialists.builder.transfer_study import Evidence, Study, run_study
from specialists.builder.utility import utility
from specialists.builder.weight_grams import down_projection_grams
from specialists.engine.llama.blocks import numbers
from specialists.expert_mask import ExpertMask, write_mask
from supervisor.transfer_fit import TransferTable
from supervisor.transfer_model import TransferModel
from tests.pico import write_pico_gemma
from tests.specialists.builder.made_up import made_up_profile

NAMES = ("math", "physics", "law", "health", "history")


@pytest.fixture(scope="module")
def profile() -> Profile:
    return made_up_profile(NAMES)


@pytest.fixture(scope="module")
def masks(profile: Profile) -> dict[str, ExpertMask]:
    return {name: make_mask(profile, Recipe(domains=((name, 1.0),), keep=6)).mask for name in NAMES}


def rows_where_worth_is_overlap(masks: dict[str, ExpertMask], *, records: int = 40, num: int = 50) -> list[str]:
    """A college whose y is .5 + .5 · F, but for the luck of the draw."""
    rng = np.random.default_rng(6)
    common = common_experts(list(masks.values()))
    lines = [",".join(COLUMNS)]
    for target, at_home in masks.items():
        parent = rng.binomial(num, 0.6, size=records)
        lines += [f"parent,{target},{n},{num},{right},{2.0 * num}" for n, right in enumerate(parent)]
        for visitor, mask in masks.items():
            y = 0.5 + 0.5 * f_score(mask, at_home, common)
            lines += [
                f"{visitor},{target},{n},{num},{rng.binomial(right, y)},{2.0 * num / y:.4f}"
                for n, right in enumerate(parent)
            ]
    return lines


@pytest.fixture(scope="module")
def measured(masks: dict[str, ExpertMask]) -> Measurements:
    return parse_measurements(rows_where_worth_is_overlap(masks))


@pytest.fixture(scope="module")
def words() -> NDArray[np.float64]:
    """Similarities of corpora, unlike those of the masks."""
    half = np.random.default_rng(2).random((len(NAMES), len(NAMES)))
    return np.asarray((half + half.T) / 2)


@pytest.fixture(scope="module")
def study(masks: dict[str, ExpertMask], profile: Profile, measured: Measurements, words: NDArray[np.float64]) -> Study:
    utilities = {name: utility("weight", profile.domain(name)).values for name in NAMES}
    evidence = Evidence(measured=measured, utilities=utilities, similarity=words)
    return run_study(masks, evidence, rng=np.random.default_rng(1), resamples=300)


def test_all_pairs_are_there_and_home_is_apart(study: Study) -> None:
    """5 × 5, of which 20 visit; home is worth the parent and has an F-score of 1."""
    assert (len(study.pairs), len(study.visiting)) == (25, 20)
    for name in NAMES:
        home = study.pair(name, name)
        assert home.f_score == 1
        assert home.y is not None
        assert home.y.y == pytest.approx(1)
    assert {pair.num_records for pair in study.pairs} == {40}


def test_the_worth_that_was_put_in_comes_out(study: Study) -> None:
    """y lies within four σ of .5 + .5 · F for every pair, and the ratio of losses is exactly that."""
    for pair in study.visiting:
        assert pair.y is not None
        assert pair.y_loss is not None
        truth = 0.5 + 0.5 * pair.f_score
        assert abs(pair.y.y - truth) < 4 * pair.y.sigma
        assert pair.y.low < pair.y.y < pair.y.high
        assert pair.y_loss.y == pytest.approx(truth, abs=1e-4)


def test_the_true_predictor_is_found_and_a_false_one_is_not(study: Study) -> None:
    """r of the F-score is near 1 with an interval around it; the corpora's similarity, which is noise here, is not."""
    found = {each.name: each for each in study.predictors}

    assert {"f_score", "agg_cos", "jaccard", "similarity"} <= set(found)
    overlap = found["f_score"]
    assert overlap.pearson.r > 0.9
    assert overlap.low <= overlap.pearson.r <= overlap.high
    assert overlap.p < 0.05 < found["similarity"].p
    xs, ys = [pair.f_score for pair in study.visiting], [pair.y.y for pair in study.visiting if pair.y]
    assert overlap.pearson == pearson(xs, ys)


def test_near_and_far_are_told_by_the_corpora_alone(study: Study, words: NDArray[np.float64]) -> None:
    """For each target the visitor with the most similar words is near, the one with the least far, others neither."""
    for j, target in enumerate(NAMES):
        arms = {pair.visitor: pair.arm for pair in study.pairs if pair.target == target}
        order = sorted((i for i in range(len(NAMES)) if i != j), key=lambda i: words[i, j])
        assert [name for name, arm in arms.items() if arm == "near"] == [NAMES[order[-1]]]
        assert [name for name, arm in arms.items() if arm == "far"] == [NAMES[order[0]]]
    assert study.near_far is not None
    assert study.near_far.degrees == len(NAMES) - 1


def test_home_beats_the_visitors(study: Study) -> None:
    """With the difference that the overlaps imply, and its interval above 0."""
    assert study.home_other is not None
    expected = 1 - np.mean([0.5 + 0.5 * pair.f_score for pair in study.visiting])
    assert study.home_other.mean == pytest.approx(expected, abs=0.02)
    assert study.home_other.low > 0
    assert study.home_other.p < 0.01


def test_the_composite_is_tested_with_f(study: Study) -> None:
    """Its p is that of F with as many degrees as it has predictors; constant ones are left out."""
    assert study.composite is not None
    assert study.composite.num == 20
    assert study.composite.num_predictors == len(study.composite_of)
    assert study.composite.adjusted_r2 <= study.composite.r2 <= 1


def test_masks_alone_can_be_compared(masks: dict[str, ExpertMask]) -> None:
    """Without measurements there are overlaps, and no claim about worth."""
    study = run_study(masks, Evidence(), rng=np.random.default_rng(0))

    assert all(pair.y is None and pair.agg_cos is None for pair in study.pairs)
    assert (study.predictors, study.near_far, study.composite) == ((), None, None)


def test_a_chosen_subset_of_pairs_is_refused(masks: dict[str, ExpertMask]) -> None:
    """Leaving out pairs is how extremes make a correlation; the missing one is named."""
    lines = [line for line in rows_where_worth_is_overlap(masks) if not line.startswith("law,math,")]
    evidence = Evidence(measured=parse_measurements(lines))

    with pytest.raises(TransferError, match="law on math is missing"):
        run_study(masks, evidence, rng=np.random.default_rng(0), resamples=100)


def test_one_mask_is_no_study(masks: dict[str, ExpertMask]) -> None:
    """There is nothing to compare it with."""
    with pytest.raises(TransferError, match="at least two"):
        run_study({"math": masks["math"]}, Evidence(), rng=np.random.default_rng(0))


# --- the command --------------------------------------------------------------------------------------------------


def coe(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["transfer", *map(str, arguments)])


@pytest.fixture
def files(masks: dict[str, ExpertMask], profile: Profile, tmp_path: Path) -> list[object]:
    """Options of a whole study, its files written."""
    options: list[object] = ["--resamples", 200]
    for name, mask in masks.items():
        write_mask(mask, tmp_path / f"{name}.mask.json")
        (tmp_path / f"{name}.txt").write_text(f"{name} {name} {name} words words words " * 5)
        options += ["--mask", f"{name}={tmp_path / name}.mask.json", "--corpus", f"{name}={tmp_path / name}.txt"]
    (tmp_path / "scores.csv").write_text("\n".join(rows_where_worth_is_overlap(masks)))
    write_profile(profile, tmp_path / "prof.npz")
    return [*options, "--measured", tmp_path / "scores.csv", "--profile", tmp_path / "prof.npz"]


def test_the_table_is_one_the_supervisor_reads(files: list[object], tmp_path: Path) -> None:
    """Measured, with every pair, its σ and overlap; estimates then come from it, not from the published pairs."""
    out = tmp_path / "transfer.json"
    result = coe(*files, "--out", out)

    assert result.exit_code == 0, result.output
    table = TransferTable.load(out)
    assert (table.measured, len(table.pairs), table.parents) == (True, 25, {})
    assert all(pair.f_score is not None and pair.agg_cos is not None for pair in table.pairs)
    assert any("sha256:" in line for line in table.provenance)
    TransferModel(TransferTable.load(), table)


def test_the_report_shows_both_panels_and_the_whole_matrix(files: list[object], tmp_path: Path) -> None:
    """y against F and against the composite, y of all pairs, and the figures with their intervals."""
    coe(*files, "--out", tmp_path / "transfer.json")
    report = json.loads((tmp_path / "transfer.report.json").read_text())

    kinds = [each["kind"] for each in report["sections"]]
    assert kinds.count("scatter") == 2
    worth = next(each for each in report["sections"] if each["kind"] == "matrix")
    assert (worth["rows"], len(worth["values"])) == (list(NAMES), 5)
    figures = next(each["figures"] for each in report["sections"] if each["kind"] == "figures")
    assert figures[0]["low"] <= figures[0]["value"] <= figures[0]["high"]
    assert "Mantel" in figures[0]["over"]


def test_the_study_is_reproducible(files: list[object], tmp_path: Path) -> None:
    """One seed, one answer, to the last digit."""
    said = [coe(*files, "--out", tmp_path / "transfer.json", "--seed", 5, "--json").output for _ in range(2)]

    assert said[0] == said[1]
    assert json.loads(said[0])["num_common"] >= 0


def test_wrong_usage_is_one_line(files: list[object], tmp_path: Path) -> None:
    """Exit code 2, and the option with its mend."""
    mask = tmp_path / "math.mask.json"
    for arguments, said in (
        (["--mask", mask], "NAME=FILE"),
        (["--mask", f"a={mask}", "--mask", f"a={mask}"], "each name once"),
        (["--mask", f"a={mask}"], "at least two"),
        ([*files, "--corpus", f"other={tmp_path / 'math.txt'}"], "other has no counterpart"),
        ([*files, "--measured", tmp_path / "no.csv"], "no.csv"),
        ([*files, "--profile", mask], "math.mask.json"),
    ):
        result = coe(*arguments, "--out", tmp_path / "t.json")
        assert result.exit_code == 2, (arguments, result.output)
        assert said in result.output
        assert not (tmp_path / "t.json").exists()


# --- what it reads ------------------------------------------------------------------------------------------------

GOOD = [
    "specialist,target,record,num,right,loss",
    "parent,math,a,10,8,20",
    "parent,math,b,10,6,",
    "law,math,b,10,3,9",
    "law,math,a,10,4,8",
]


def test_measurements_are_aligned_by_record() -> None:
    """Rows may come in any order; a loss that is missing once is missing for all."""
    found = parse_measurements(GOOD)

    assert (found.targets, found.specialists) == (("math",), ("law",))
    assert found.scores["law", "math"].right.tolist() == [4, 3]
    assert found.scores["parent", "math"].loss is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: [], "line 1: the columns"),
        (lambda rows: rows[:1], "has no rows"),
        (lambda rows: ["a,b", *rows[1:]], "line 1: the columns"),
        (lambda rows: [*rows, "law,math,a"], "line 6: has 3 columns"),
        (lambda rows: [*rows, "law,math,a,10,4,8"], "line 6: law on math has record a twice"),
        (lambda rows: [*rows, "law,cs,a,10,4,8"], "'cs' has no rows of 'parent'"),
        (lambda rows: rows[:-1], "law on math was not asked the parent's records"),
        (lambda rows: [*rows[:-1], "law,math,a,9,4,8"], "was not asked the parent's records"),
        (lambda rows: [*rows, "law,math,c,10,11,8"], "line 6: right = 11 must be from 0 to num = 10"),
        (lambda rows: [*rows, "law,math,c,0,0,8"], "line 6: right"),
        (lambda rows: [*rows, "law,math,c,ten,4,8"], "line 6: num = 'ten'"),
        (lambda rows: [*rows, "law,math,c,10,nan,8"], "line 6: right = 'nan'"),
        (lambda rows: [*rows, "law,math,c,10,4,-1"], "line 6: loss = '-1'"),
        (lambda rows: [*rows, "law,math," + "c" * 201 + ",10,4,8"], "line 6: a cell is longer"),
    ],
)
def test_wrong_measurements_are_refused_by_line(change: Callable[[list[str]], list[str]], said: str) -> None:
    """The message names the line, the column and what is expected."""
    with pytest.raises(TransferError, match=said):
        parse_measurements(change(list(GOOD)))


@given(text=st.text(max_size=200))
def test_any_text_is_measurements_or_one_error(text: str) -> None:
    """Nothing but TransferError comes of a file, whatever it holds."""
    header = "specialist,target,record,num,right,loss\n"
    for each in (text, header + text):
        with pytest.raises(TransferError):
            parse_measurements(each.splitlines(keepends=True))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, binary or immense."""
    binary, large = tmp_path / "binary.csv", tmp_path / "large.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    with large.open("wb") as file:
        file.truncate((1 << 28) + 1)

    for path in (tmp_path / "no.csv", binary, large):
        with pytest.raises(TransferError, match=path.name):
            read_measurements(path)


def test_similar_words_make_similar_domains() -> None:
    """Shared words of a few domains count; words of all of them, and rare ones, do not."""
    texts = {
        "math": ["the proof of a theorem and its lemma"] * 5,
        "logic": ["the proof of a theorem by cases"] * 5,
        "law": ["the court and its ruling"] * 5 + ["theorem"],
    }
    found = similarity(texts)

    assert np.diag(found) == pytest.approx(1)
    assert found == pytest.approx(found.T)
    assert found[0, 1] > found[0, 2] > found[1, 2] == 0
    assert similarity({"a": ["same words here"] * 3, "b": ["same words here"] * 3}).tolist() == [[0, 0], [0, 0]]


def test_grams_come_from_a_parents_file(tmp_path: Path) -> None:
    """One symmetric matrix for each layer; random experts are nearly orthogonal, so the measure is the F-score."""
    parent = write_pico_gemma(tmp_path / "parent.gguf")
    grams = np.stack(list(down_projection_grams(parent, numbers)))
    layers, experts = grams.shape[:2]
    scale = np.sqrt(np.einsum("lee->le", grams))

    assert grams == pytest.approx(grams.transpose(0, 2, 1))
    cosines = grams / (scale[:, :, None] * scale[:, None, :])
    assert np.abs(cosines - np.eye(experts)).max() < 0.15
    kept = [dict.fromkeys(range(layers), ids) for ids in ((0, 1, 2, 3), (2, 3, 4, 5))]
    pair = {name: ExpertMask(kept=each, num_experts=experts) for name, each in zip("ab", kept, strict=True)}
    study = run_study(pair, Evidence(grams=grams), rng=np.random.default_rng(0))
    assert study.pair("a", "b").weight_cos == pytest.approx(0.5, abs=0.1)


def test_weights_that_cannot_be_unpacked_are_refused(tmp_path: Path) -> None:
    """By the name of their type."""

    def refuses(ggml_type: int, data: bytes) -> NDArray[np.float32]:
        raise ValueError("no floats")

    parent = write_pico_gemma(tmp_path / "parent.gguf")
    with pytest.raises(TransferError, match="down projections are in F32: no floats"):
        list(down_projection_grams(parent, refuses))
