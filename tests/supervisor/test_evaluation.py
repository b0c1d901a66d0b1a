"""Properties of `supervisor.evaluation` and `supervisor.plots`."""

import json
from xml.etree import ElementTree

import pytest

from supervisor.classifier import Classification
from supervisor.evaluation import evaluate, flip_rates, macro_f1, wilson_interval
from supervisor.examples import Example
from supervisor.explanation import Evidence
from supervisor.plots import to_html


class ReadsTheFirstWord:
    """Answers with the text's first word, if that is a domain, with a confidence of 0.9."""

    def classify_text(self, text: str) -> Classification:
        first = text.split()[0].lower() if text.split() else "general"
        name = first if first in ("law", "math") else "general"
        others = tuple((other, 0.05) for other in ("law", "math", "general") if other != name)
        return Classification(((name, 0.9), *others), name, 0.9, False, "", (name,), Evidence(), "fake-1")


EXAMPLES = (
    Example("law what is a tort", ("law",)),
    Example("math what is a sum", ("math", "cs")),
    Example("law but really math", ("math",)),
    Example("hello", ("general",)),
)


def test_an_answer_is_right_if_it_is_any_acceptable_domain() -> None:
    """Three of the four answers are acceptable; the fourth went to a wrong specialist."""
    report = evaluate(ReadsTheFirstWord(), EXAMPLES)
    assert report.accuracy == pytest.approx(0.75)
    assert report.wrong_specialist == pytest.approx(0.25)
    assert report.lost_work == 0.0
    assert report.general_kept == 1.0
    assert report.calibration_error == pytest.approx(0.15, abs=1e-6)
    assert report.confusion["math"] == {"law": 1, "math": 1}


def test_altered_texts_that_change_the_answer_are_counted() -> None:
    """A reader of first words falls for every prefix, and for no change of case."""
    rates = flip_rates(ReadsTheFirstWord(), ["law of torts", "math of sums"], 2)
    assert rates["polite prefix"] == 1.0
    assert rates["lower case"] == 0.0
    assert rates["pasted log"] == 0.0


def test_macro_f1_counts_every_domain_alike() -> None:
    """One domain all right, the other all wrong: one half, however many examples each has."""
    assert macro_f1([("law", "law")] * 9 + [("math", "web")]) == pytest.approx(0.5)


def test_the_interval_holds_the_share_and_narrows_with_numbers() -> None:
    """More examples, a narrower interval around the same share."""
    few, many = wilson_interval(8, 10), wilson_interval(800, 1000)
    assert few[0] < many[0] < 0.8 < many[1] < few[1]


def test_the_report_is_json_and_its_page_is_well_formed() -> None:
    """JSON reads back; every drawing in the page is well-formed XML and fetches nothing."""
    report = evaluate(ReadsTheFirstWord(), EXAMPLES, num_flip_examples=4)
    assert json.loads(report.to_json())["num"] == 4
    page = to_html(report, "a <title>")
    drawings = [part.split("</svg>")[0] + "</svg>" for part in page.split("<svg")[1:]]
    assert len(drawings) == 2
    for drawing in drawings:
        ElementTree.fromstring("<svg" + drawing)
    assert "a &lt;title&gt;" in page
    assert "http" not in page
