"""A cut-down training run from questions to a model directory, and what it must keep to."""

import json
from pathlib import Path

import pytest

from supervisor.artifact import load_model
from supervisor.classifier import SupervisorClassifier
from supervisor.errors import InvalidExamples, InvalidModel
from supervisor.examples import Example
from supervisor.training import train
from supervisor.training_data import Data, Recipe, few_of_each, read_data, stored_example

DOMAINS = ("law", "math", "python")
SAMPLE = Path(__file__).with_name("data") / "sample.jsonl"


def _small(data: Data) -> Data:
    """Three domains and general are enough to walk the whole path."""
    kept = {*DOMAINS, "general"}

    def few(examples: tuple[Example, ...], num: int) -> tuple[Example, ...]:
        return tuple(few_of_each([one for one in examples if one.domain in kept], num, seed=1))

    return Data(few(data.fit, 25), few(data.held_out, 6), (), few(data.dev, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder made of the committed sample: the same file to train on and to report on."""
    made = tmp_path_factory.mktemp("data")
    for name in ("train.jsonl", "dev.jsonl"):
        (made / name).write_bytes(SAMPLE.read_bytes())
    return made


def test_a_quick_run_gives_a_model_that_answers_and_the_same_one_again(folder: Path, tmp_path: Path) -> None:
    """The whole path in seconds, without torch: data, heads, mixture, files, report; twice the same version."""
    recipe = Recipe(quick=True)
    data = _small(read_data(folder, recipe))
    report = train(data, tmp_path / "one", recipe)
    assert report is not None
    assert report.top_accuracy > 0.8
    classifier = SupervisorClassifier.load(tmp_path / "one")
    assert set(classifier.domains) == {*DOMAINS, "general"}
    answer = classifier.classify_text("Can my landlord keep the deposit, and can I sue?")
    assert answer.domain == "law"
    assert sum(share for _, share in answer.probabilities) == pytest.approx(1.0)

    train(data, tmp_path / "two", recipe)
    assert load_model(tmp_path / "two").version == load_model(tmp_path / "one").version
    assert load_model(tmp_path / "one").card["dev"]["num"] == report.num


def test_training_without_questions_says_what_is_missing(tmp_path: Path) -> None:
    """A folder without train.jsonl is refused by name."""
    with pytest.raises(InvalidExamples, match=r"train\.jsonl does not exist"):
        read_data(tmp_path, Recipe())


def test_a_directory_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """Missing files and a foreign format are told apart, each with its mend."""
    with pytest.raises(InvalidModel, match="coe supervisor train"):
        load_model(tmp_path)
    (tmp_path / "card.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InvalidModel, match="retrain"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("license_name", "source", "is_shown"),
    [
        ("MIT", "MMLU", True),
        ("CC-BY-4.0", "OpenStax", True),
        ("CC-BY-SA-4.0 (Stack Exchange titles)", "Super User", False),
        ("CC-BY-SA-3.0", "Java questions", False),
        ("CC-BY-4.0 (titles: Stack Overflow, CC-BY-SA-3.0)", "StaQC", False),
        ("MIT", "CounselChat", False),
        ("MIT", "K-QA", False),
    ],
)
def test_only_texts_that_may_be_shown_are_stored(license_name: str, source: str, is_shown: bool) -> None:
    """Share-alike texts and people's own troubles leave their source behind, never their words."""
    stored = stored_example(Example("What is a tort?", ("law",), source, license_name))
    assert stored.source == source
    assert bool(stored.excerpt) is is_shown
