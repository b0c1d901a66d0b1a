"""The pocket study from end to end on a parent of toy size: every stage's files are there, and say what they should."""

import csv
import json
from argparse import Namespace
from pathlib import Path

import pytest

from pocket.ablations import Row, figures
from pocket.college import random_mask
from pocket.measuring import Scores
from pocket.results import gap, results
from pocket.study import STAGES
from specialists.builder.measurements import parse_measurements
from specialists.expert_mask import ExpertMask, read_mask
from tests.test_pocket_model import TINY, parent, split

__all__ = ["parent", "split"]  # fixtures

DOMAINS = ("math", "law", "biology", "python")


@pytest.fixture(scope="module")
def study(parent: Path, split: Path, tmp_path_factory: pytest.TempPathFactory) -> Namespace:
    """All stages but the long ones, on four domains."""
    work = tmp_path_factory.mktemp("work")
    (work / "corpora").symlink_to(split)
    asked = Namespace(
        work=work, parent=parent, masks=work / "masks", out=work / "study", domains=DOMAINS, tokens=600, keep=4,
        records=6, questions=30, threads=1, seed=0,
    )  # fmt: skip
    for folder in (asked.masks, asked.out):
        folder.mkdir()
    for stage in ("profile", "masks", "measure", "transfer"):
        STAGES[stage](asked)
    return asked


def test_every_specialist_is_asked_the_parents_questions(study: Namespace) -> None:
    """Parent, specialists and three random masks all have the same records of every domain."""
    with (study.out / "tokens.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    asked = {who: [(row["target"], row["record"], row["num"]) for row in rows if row["specialist"] == who]
             for who in {row["specialist"] for row in rows}}  # fmt: skip

    assert asked.keys() == {"parent", *DOMAINS, "random0", "random1", "random2"}
    assert all(each == asked["parent"] for each in asked.values())
    assert len(asked["parent"]) == len(DOMAINS) * study.records


def test_masks_are_of_the_parent_and_of_one_size(study: Namespace) -> None:
    """Each keeps K experts in every layer and names the parent it was made for, so one frame serves them all."""
    masks = [read_mask(study.masks / f"{name}.mask.json") for name in DOMAINS]

    assert {mask.num_kept for mask in masks} == {study.keep}
    assert len({mask.parent for mask in masks}) == 1
    assert masks[0].parent


def test_the_table_holds_every_pair(study: Namespace) -> None:
    """Visitors and targets are all domains times all domains, for tokens and for cloze questions."""
    for name in ("transfer.json", "transfer-cloze.json"):
        pairs = json.loads((study.out / name).read_text(encoding="utf-8"))["pairs"]
        assert {(pair["visitor"], pair["target"]) for pair in pairs} == {(a, b) for a in DOMAINS for b in DOMAINS}


def test_the_page_has_the_figures_of_the_files(study: Namespace) -> None:
    """Every domain has a row with an interval, and what `coe transfer` found is repeated."""
    page = results(study.out, DOMAINS)

    assert all(f"\n| {name} | " in page for name in DOMAINS)
    assert "y at home less the visitors' mean" in page
    assert "Pearson r of F-score with y" in page


def test_a_gap_is_over_the_same_records() -> None:
    """Home 3 and 2 right, the others 1 and 1 on average, of the parent's 5 and 5: 0.3 more, whoever was lucky."""
    rows = [("parent", 5, 5), ("math", 3, 2), ("law", 0, 1), ("art", 2, 1)]
    lines = [f"{who},math,{n},9,{right}," for who, *rights in rows for n, right in enumerate(rights)]
    measured = parse_measurements(["specialist,target,record,num,right,loss", *lines])

    found = gap(measured, "math", ("law", "art"))

    assert found.y == pytest.approx(0.3)
    assert found.low <= 0.3 <= found.high


def test_a_random_mask_keeps_as_many() -> None:
    """As many experts in each layer as the mask it stands beside, and others for another seed."""
    like = ExpertMask(kept={0: (0, 1, 2), 3: (1, 2, 3)}, num_experts=64)

    first, second = (random_mask(like, seed) for seed in (1, 2))

    assert first.budgets == like.budgets
    assert first.kept != second.kept


def test_an_ablation_pools_its_domains() -> None:
    """y is the sum of hits over the parent's, whatever the domains' sizes, within its interval."""
    base = {"a": Scores([10, 10], [6, 4], [9.0, 9.0], [True]), "b": Scores([20], [10], [30.0], [False])}
    mine = {"a": Scores([10, 10], [3, 2], [10.0, 10.0], [True]), "b": Scores([20], [10], [40.0], [True])}
    mask = ExpertMask(kept={0: (0,)}, num_experts=TINY.experts)

    found = figures(Row("K", "one", {"": mask}), mine, base)

    assert found["y"] == 0.75
    assert (found["nats"], found["parent_nats"], found["cloze"]) == (1.5, 1.2, 1.0)
    assert float(str(found["low"])) <= 0.75 <= float(str(found["high"]))
