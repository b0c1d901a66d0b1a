"""`coe supervisor …` from a caller's side."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from supervisor.classifier import MODEL_DIRECTORY, SupervisorClassifier
from supervisor.cli import app

RUNNER = CliRunner()
ROOT = Path(__file__).resolve().parents[2]
SAMPLE = Path(__file__).with_name("data") / "sample.jsonl"
SAILING = (
    "How do I tack a dinghy upwind without losing speed?",
    "Which knot holds a jib sheet to the clew?",
    "When should I reef the mainsail on a small yacht?",
    "What does it mean to heave to in a gale?",
    "How do I trim the spinnaker on a broad reach?",
    "Why does my boat round up in gusts when the sail is sheeted hard?",
    "How do I anchor a sailing yacht in a crowded bay?",
    "What is the difference between a ketch and a yawl?",
)


def test_a_message_is_classified_with_its_reasons() -> None:
    """JSON for programs has the vector; text for people has the nearest examples."""
    result = RUNNER.invoke(app, ["classify", "Is hearsay admissible in court?", "--json"])
    answer = json.loads(result.stdout)
    assert result.exit_code == 0
    assert answer["domain"] == "law"
    assert len(answer["probabilities"]) == 17
    assert "near: law" in RUNNER.invoke(app, ["classify", "Is hearsay admissible in court?"]).stdout


def test_a_file_is_evaluated_to_a_page_and_json(tmp_path: Path) -> None:
    """Both reports are written, and agree with what is printed for programs."""
    small = tmp_path / "few.jsonl"
    small.write_text("\n".join(SAMPLE.read_text().splitlines()[:20]))
    result = RUNNER.invoke(app, ["eval", str(small), "--out", str(tmp_path / "r"), "--flips", "5", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["num"] == 20
    assert json.loads((tmp_path / "r" / "report.json").read_text())["num"] == 20
    assert "<svg" in (tmp_path / "r" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["eval", "nowhere.jsonl"], "nowhere.jsonl"),
        (["classify", "hello", "--model", "nowhere"], "coe supervisor train"),
        (["train", "--data", "nowhere", "--out", "unused"], "train.jsonl"),
    ],
)
def test_a_mistake_ends_with_one_line_and_code_1(arguments: list[str], complaint: str) -> None:
    """No trace: the file or option, and what to do."""
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 1
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_training_without_its_libraries_says_what_to_install(tmp_path: Path) -> None:
    """Who installed only what serving needs gets one line, not a trace."""
    (tmp_path / "scipy.py").write_text("raise ImportError('No module named scipy')\n")
    command = "from supervisor.cli import app; app(['train', '--data', 'd', '--out', 'o'])"
    done = subprocess.run(
        [sys.executable, "-c", command], env=os.environ | {"PYTHONPATH": str(tmp_path)}, cwd=ROOT, capture_output=True,
        text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "pip install -c constraints.txt '.[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_domain_is_added_from_eight_questions(tmp_path: Path) -> None:
    """Its own kind of question goes there afterwards, everything else stays where it was."""
    model = tmp_path / "model"
    shutil.copytree(MODEL_DIRECTORY, model, ignore=shutil.ignore_patterns("extensions"))
    file = tmp_path / "sailing.txt"
    file.write_text("\n".join(SAILING))
    others = ["What is a tort?", "hello", "Integrate x squared from 0 to 3", "why did the roman empire fall"]
    before = [SupervisorClassifier.load(model).classify_text(text).domain for text in others]

    result = RUNNER.invoke(app, ["add-domain", "sailing", "--examples", str(file), "--model", str(model), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["recognised"] >= 0.5

    extended = SupervisorClassifier.load(model)
    assert extended.classify_text("How do I gybe a dinghy safely in strong wind?").domain == "sailing"
    assert [extended.classify_text(text).domain for text in others] == before
    assert extended.version.endswith("+sailing")
    again = RUNNER.invoke(app, ["add-domain", "law", "--examples", str(file), "--model", str(model)])
    assert again.exit_code == 1
    assert "NAME" in again.stderr
