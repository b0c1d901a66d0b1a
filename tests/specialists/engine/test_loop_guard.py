"""Loops are found early and shown at most twice; what repeats rightly is left alone."""

import json
import random
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.loop_collect import SEPARATOR
from bench.loop_material import generated
from specialists.engine.loop_guard import NO_SUSPICION, GuardSettings, LoopGuard, LoopKind, Suspicion, Verdict
from specialists.engine.loop_novelty import CopyLimits
from specialists.engine.loop_request import requested_repeats
from specialists.engine.loop_settings import BlockLimit, NarrowLimit, NearLimit, RunLimit, SpokenLimit
from tests.specialists.engine.loop_texts import Piece, Seen, cut, first_loop, replay, tokens, watch

REAL_LOOPS = Path(__file__).with_name("data") / "loops.jsonl"
_EDGY = RunLimit(copies=2, beyond=1, tokens=3)
EDGY = GuardSettings(
    longest_period=6, prose=_EDGY, verse=_EDGY, items=_EDGY, code=_EDGY, table=_EDGY, json=_EDGY, blank=_EDGY,
    filler=_EDGY, items_filler=_EDGY, structured_filler=_EDGY, near=NearLimit(window=16, share=0.4),
    spoken=SpokenLimit(window=12, share=0.4, sentences=0.2, within=24, surroundings=16),
    verse_near=NearLimit(window=18, share=0.4), structured_near=NearLimit(window=24, share=0.5),
    narrow=NarrowLimit(window=8, kinds=3),
    suspect=CopyLimits(streak=3, window=8, share=0.5, calm_window=5, calm_share=0.4),
    fence=BlockLimit(chars=1, copies=3, share=0.1, anyway=4),
    paragraph=BlockLimit(chars=1, copies=3, share=0.1, anyway=4),
)  # fmt: skip
PIECES = st.sampled_from(["\n", "\n\n", "```", "1", "2", ".", " so", " it", " goes", " on", "|", "  ", "", "{", "la"])


def words(count: int, seed: int) -> list[str]:
    """`count` different words, the same for a seed."""
    draw = random.Random(seed)
    return [" " + "".join(draw.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(7)) for _ in range(count)]


def sentence(count: int, seed: int) -> str:
    return "".join(words(count, seed)).strip().capitalize() + "."


def copies_shown(seen: Seen) -> float:
    """How many copies of the unit a client has seen, the first one included."""
    assert seen.verdict is not None
    assert seen.verdict.onset is not None
    assert seen.verdict.period is not None
    return 1 + (seen.num_shown - seen.verdict.onset) / seen.verdict.period


@pytest.mark.parametrize("period", [*range(1, 17), 31, 64, 100, 255, 256, 400, 511, 512])
def test_a_loop_of_any_period_is_cut_at_its_second_copy_and_shown_twice(period: int) -> None:
    """Onset and period are exact, two copies are shown, and it takes little more than those two to know."""
    unit, before = words(period, period), words(50, -1)
    seen = watch(LoopGuard(), tokens([*before, *unit * (2 + 80 // period), *unit, *unit]))

    assert seen.verdict == Verdict(Suspicion.LOOP, 50 + period, LoopKind.PERIODIC, period, 50 + 2 * period)
    assert seen.num_shown == 50 + 2 * period
    assert seen.num_tokens <= 50 + period + max(48, period + 24)


def test_periods_longer_than_the_longest_are_found_by_what_was_said_before() -> None:
    """A unit of 900 tokens has no exact run to show for it; its third copy is a paraphrase of the first two."""
    unit = words(900, 1)
    seen = watch(LoopGuard(), tokens(unit * 4))

    assert seen.verdict is not None
    assert (seen.verdict.kind, seen.verdict.onset, seen.verdict.hold_from) == (LoopKind.PARAPHRASE, 900, 1800)
    assert seen.num_tokens < 1800 + 256
    assert seen.num_shown < 1800 + 20


@pytest.mark.parametrize(
    "unit",
    [
        " and therefore",
        "The river is long. The river is deep. ",
        "Wait, let me check that again. The sum is 12, so x is 4.\n\n",
        "In the world of love, there is no end. You can never find another soul.\n\n",
        "Ada looked at Bela and said so.\n\nBela looked at Ada and said no.\n\n",
    ],
)
def test_loops_of_language_are_found_within_a_hundred_tokens(unit: str) -> None:
    """Also where the same words come twice within the unit (A, B, A, B)."""
    seen = first_loop("A story begins here, as all of them do.\n\n" + unit * 60)

    assert seen.verdict is not None
    assert seen.verdict.kind is LoopKind.PERIODIC
    assert copies_shown(seen) <= 2
    assert seen.num_tokens - seen.num_shown <= 100


@pytest.mark.parametrize(
    "form", ["{}. What is a garden for, and who keeps it?\n", "Step {}: add one and look again.\n"]
)
def test_a_list_that_only_counts_up_is_a_loop(form: str) -> None:
    """The numbers that count lines are no content; two items are shown and the third one's number."""
    text = "".join(form.format(number) for number in range(1, 60))
    seen = first_loop(text)
    shown = "".join(piece for _, piece in cut(text)[: seen.num_shown])

    assert seen.verdict is not None
    assert shown.count(form.format("")[-12:]) == 2
    assert seen.num_tokens < 140


@pytest.mark.parametrize("num_edits", [1, 2])
def test_copies_with_small_edits_are_a_loop(num_edits: int) -> None:
    """A paragraph said again and again with other words here and there is found, and cut near its second copy."""
    draw = random.Random(num_edits)
    unit, new = words(60, 5), words(200, 6)
    copies = [list(unit) for _ in range(12)]
    for copy in copies:
        for place in draw.sample(range(60), num_edits):
            copy[place] = new.pop()
    seen = watch(LoopGuard(), tokens([piece for copy in copies for piece in copy]))

    assert seen.verdict is not None
    assert seen.verdict.kind is LoopKind.PARAPHRASE
    assert abs((seen.verdict.onset or 0) - 60) < 12
    assert seen.num_shown < 60 * 3 + 30
    assert seen.num_tokens < 60 * 8


def test_a_few_words_in_any_order_are_a_loop() -> None:
    """No two stretches are alike, and yet nothing is said."""
    draw = random.Random(3)
    seen = first_loop("It is a number. " + " ".join(draw.choice(["so", "and", "or", "then"]) for _ in range(200)))

    assert seen.verdict is not None
    assert seen.num_tokens < 110


def test_a_fence_that_comes_again_between_other_words_is_a_loop() -> None:
    """The same program after ever new ruminations: the third one is not shown whole."""
    program = "```python\n" + "".join(f"{word} = {n}\n" for n, word in enumerate(words(25, 7))) + "```\n"
    text = "".join(f"{sentence(12, n)}\n\n{program}\n" for n in range(20, 30))
    seen = first_loop(text)

    assert seen.verdict is not None
    assert seen.verdict.kind is LoopKind.BLOCK
    assert "".join(piece for _, piece in cut(text)[: seen.num_shown]).count("```") == 5
    assert "".join(piece for _, piece in cut(text)[: seen.verdict.onset]).count("```") == 3


def test_a_fence_that_comes_again_after_much_that_is_new_is_none() -> None:
    """A manual may show the same command in three chapters."""
    program = "```sh\n" + sentence(30, 8) + "\n```\n"

    assert first_loop("".join(f"{sentence(150, n)}\n\n{program}\n" for n in range(5))).verdict is None


@pytest.mark.parametrize(
    ("unit", "most_tokens"),
    [
        (" la", 64),
        ("0, ", 500),
        ("* 17\n", 200),
        ("-", 500),
        ("�", 500),
        ("\n", 200),
        ("   ", 200),
        ("| --- ", 500),
        ("x", 500),
        ("", 500),
    ],
)
def test_one_token_for_ever_is_a_loop_whatever_it_is(unit: str, most_tokens: int) -> None:
    """Filler may go on for long, but not for 16,384 tokens."""
    seen = watch(LoopGuard(), tokens([unit]) * 16_384)

    assert seen.verdict is not None
    assert seen.num_tokens <= most_tokens
    assert seen.num_shown == 2


def test_even_a_literal_array_has_an_end() -> None:
    """In a fence zeros may fill a large array; endless ones are stopped."""
    array = "```c\nint data[] = {" + "0, " * 8000

    assert first_loop(array).verdict is not None
    assert first_loop(array[:1500]).verdict is None


LEGITIMATE = {
    "alignment row": "| a | b |\n" + "|---" * 40 + "|\n| 1 | 2 |\n",
    "alignment row with colons": "|:---:" * 30 + "|\n",
    "table to be filled in": "| hour | Mo | Tu | We | Th | Fr |\n"
    + "|---" * 6
    + "|\n"
    + ("|" + "    |" * 6 + "\n") * 40,
    "ASCII rules": "\n".join(rule * 120 for rule in "=-_*~#."),
    "box drawing": "┌" + "─" * 100 + "┐\n" + ("│" + " " * 100 + "│\n") * 6 + "└" + "─" * 100 + "┘\n",
    "deep indentation": "```python\n" + "".join("    " * depth + "if x:\n" for depth in range(40)) + "```\n",
    "hex dump": "```\n"
    + "".join(f"{16 * n:08x}  " + "00 " * 16 + " |................|\n" for n in range(12))
    + "```\n",
    "zero array": "```c\nint data[256] = {" + ", ".join(["0"] * 256) + "};\n```\n",
    "words in an array": "```json\n[" + ", ".join(['"empty"'] * 60) + "]\n```\n",
    "test matrix": "\n".join("1 0 0 0 0 0 0 0\n0 1 0 0 0 0 0 0" for _ in range(10)),
    "test table": "".join(f"| case {n} | pass | pass | pass |\n" for n in range(60)),
    "like objects": json.dumps([{"id": n, "name": "Ada", "role": "admin", "active": True} for n in range(60)]),
    "same objects": json.dumps([{"x": 0, "y": 0, "kind": "empty"}] * 16),
    "CSV": "".join(f"{n},Ada,Graz,0,0,N/A,\n" for n in range(80)),
    "log": "".join(f"2026-03-01 12:00:{n:02d} INFO gateway GET /healthz 200\n" for n in range(60)),
    "broken bytes": "�" * 200 + "?" * 200,
    "emoji": "😀" * 100,
    "leader dots": "".join(f"Chapter {n} {'.' * 60} {3 * n}\n" for n in range(1, 20)),
    "laughter": "Ha" + " ha" * 20 + "!",
    "litany": "From the storm,\nsave us, we pray.\nFrom the flood,\nsave us, we pray.\n" * 3,
    "counting": ", ".join(str(n) for n in range(1, 500)),
    "same form, new content": " ".join(f"On day {n} he walked {7 * n % 31} km and rested." for n in range(1, 60)),
    "HTML twins": "<ul>\n" + "  <li><a href='#'>item</a></li>\n" * 8 + "</ul>\n",
}


@pytest.mark.parametrize("name", LEGITIMATE)
def test_documented_false_alarms_are_none(name: str) -> None:
    """What other detectors took for loops."""
    assert first_loop(LEGITIMATE[name]).verdict is None


@pytest.mark.parametrize("name", generated(1))
def test_generated_material_is_left_alone(name: str) -> None:
    """Two answers of every form that the bench makes; those that were ordered come with their prompts."""
    for answer in generated(2)[name]():
        repeats = requested_repeats(answer.prompt)
        assert first_loop(answer.text, is_constrained=answer.is_constrained, requested_repeats=repeats).verdict is None


def test_ordered_repetition_is_shown_at_once_and_ends_with_the_order() -> None:
    """Fifty copies leave without delay; what goes on far beyond them is a loop behind the fiftieth and some."""
    ordered = watch(LoopGuard(requested_repeats=50), tokens([" la"]) * 50)
    endless = watch(LoopGuard(requested_repeats=50), tokens([" la"]) * 500)

    assert (ordered.verdict, ordered.num_shown) == (None, 50)
    assert endless.verdict is not None
    assert endless.verdict.onset == endless.num_shown == 62
    assert endless.num_tokens < 130


def test_an_order_for_words_covers_paragraphs_and_fences_too() -> None:
    """Ten copies of a paragraph that was ordered ten times, with other words between, are no loop."""
    text = "".join(f"{sentence(9, n)}\n\n{sentence(40, 3)}\n\n" for n in range(10))

    assert first_loop(text, requested_repeats=10).verdict is None
    assert first_loop(text).verdict is not None


def test_a_schema_gives_repetition_more_room() -> None:
    """The same values are a loop in free text long before they are one under a schema."""
    values = '"the lamp is on", ' * 40

    assert first_loop(values, is_constrained=True).verdict is None
    assert first_loop("the lamp is on, " * 40).verdict is not None


def test_suspicion_ends_when_the_run_breaks() -> None:
    """Held-back tokens leave with the first that differs."""
    verdicts = replay(LoopGuard(), tokens([" no", " no", " no", " no", " yes"]))

    assert [verdict.hold_from for verdict in verdicts] == [None, None, 2, 2, None]
    assert verdicts[-1] == NO_SUSPICION


def test_what_says_nothing_twice_is_never_held() -> None:
    """Most text is such: it leaves token by token, as if nobody looked."""
    assert set(replay(LoopGuard(), tokens(words(3000, 11)))) == {NO_SUSPICION}


@pytest.mark.parametrize("name", ["like objects", "CSV", "log", "test table"])
def test_rows_with_something_new_in_each_do_not_wait_for_the_end(name: str) -> None:
    """What is the same in them is held back until the new part comes, and no longer."""
    verdicts = replay(LoopGuard(), cut(LEGITIMATE[name]))
    waits = [len(list(group)) for is_calm, group in groupby(verdicts, lambda v: v == NO_SUSPICION) if not is_calm]

    assert max(waits, default=0) <= 40


def test_sentences_that_differ_case_by_case_are_no_loop() -> None:
    """An enumeration of all cases repeats its form, and no sentence of it."""
    cases = [
        f"If {a} is a liar and {b} is a liar and {c} is a truth-teller, then the statement of Ada would be true, "
        "which is impossible for a liar."
        for a in ("Bela", "Chen")
        for b in ("Dora", "Emil")
        for c in ("Farah", "Gita")
    ]
    assert first_loop("\n".join(cases)).verdict is None
    assert first_loop("\n".join(cases[:1] * 8)).verdict is not None


def test_a_run_knows_better_than_copies_where_a_loop_began() -> None:
    """Where one sentence runs exactly, the copies around it decide that it is a loop, and the run where to cut."""
    unit = "And so the river goes on to the sea. "
    text = f"A river is long. {unit}" + "Nobody knows why. " + unit * 8
    seen = first_loop(text)

    assert seen.verdict is not None
    assert seen.verdict.period == len(cut(" " + unit.strip()))
    assert copies_shown(seen) <= 2


def test_paragraphs_are_found_for_the_rewind() -> None:
    """The paragraph of any token can be asked for."""
    guard = LoopGuard()
    replay(guard, tokens(["One", ".", "\n\n", "Two", " words", "\n\n", "Three"]))

    assert [guard.paragraph_start(place) for place in (0, 2, 3, 5, 6)] == [0, 0, 3, 3, 6]


def real_loops() -> list[list[Piece]]:
    with REAL_LOOPS.open(encoding="utf-8") as lines:
        return [tokens(json.loads(line)["tokens"].split(SEPARATOR)) for line in lines]


@pytest.fixture(scope="module")
def seen_of_real_loops() -> list[Seen]:
    """What a client sees of each of the real answers."""
    return [watch(LoopGuard(), loop) for loop in real_loops()]


def test_nearly_all_real_loops_are_found(seen_of_real_loops: list[Seen]) -> None:
    """Answers of a small model that looped, greedily and at T = 0.6, in prose, lists and verse."""
    caught = [seen for seen in seen_of_real_loops if seen.verdict is not None]

    assert len(seen_of_real_loops) >= 50
    assert len(caught) >= 0.95 * len(seen_of_real_loops)
    assert len([seen for seen in caught if seen.verdict and seen.verdict.kind is LoopKind.PARAPHRASE]) >= 10


def test_of_a_real_loop_two_copies_are_shown(seen_of_real_loops: list[Seen]) -> None:
    """Not a token of the third, but for digits: the numbers that count items may grow longer from copy to copy."""
    periods = [seen for seen in seen_of_real_loops if seen.verdict and seen.verdict.period]

    assert len(periods) >= 30
    for seen in periods:
        assert seen.verdict is not None
        assert seen.num_shown == seen.verdict.hold_from
        assert copies_shown(seen) <= 2 + 1 / (seen.verdict.period or 1)


def test_of_a_real_loop_with_edits_little_is_shown(seen_of_real_loops: list[Seen]) -> None:
    """Its unit has no length of its own; what follows the first copy is a paragraph at most."""
    edited = [seen.verdict for seen in seen_of_real_loops if seen.verdict and not seen.verdict.period]

    assert edited
    assert all((verdict.hold_from or 0) - (verdict.onset or 0) <= 120 for verdict in edited)


@settings(max_examples=300)
@given(
    st.lists(PIECES, max_size=60),
    st.lists(PIECES, min_size=1, max_size=8),
    st.integers(0, 100),
    st.lists(PIECES, max_size=40),
    st.booleans(),
    st.sampled_from([None, 3]),
)
def test_truncating_leaves_no_trace(
    before: list[str], unit: list[str], kept: int, after: list[str], is_constrained: bool, repeats: int | None
) -> None:
    """A guard that was cut back gives, token by token, the verdicts of one that never saw what was cut."""
    pieces = tokens([*before, *unit * 6])[: kept + 40]
    kept = min(kept, len(pieces))
    cut_back, fresh = (LoopGuard(EDGY, is_constrained=is_constrained, requested_repeats=repeats) for _ in range(2))
    replay(cut_back, pieces)
    cut_back.truncate(kept)
    replay(fresh, pieces[:kept])

    assert cut_back.num_tokens == fresh.num_tokens == kept
    rest = tokens([*after, *unit * 6])
    assert replay(cut_back, rest) == replay(fresh, rest)
    assert [cut_back.paragraph_start(place) for place in range(kept)] == [
        fresh.paragraph_start(place) for place in range(kept)
    ]


@given(st.lists(PIECES, max_size=80), st.lists(PIECES, min_size=1, max_size=8))
def test_verdicts_are_in_order(before: list[str], unit: list[str]) -> None:
    """Whatever is written, a raised verdict names an onset, then what to hold, then at most the newest token."""
    for count, verdict in enumerate(replay(LoopGuard(EDGY), tokens([*before, *unit * 8]))):
        assert verdict == NO_SUSPICION or 0 < (verdict.onset or 0) <= (verdict.hold_from or 0) <= count
