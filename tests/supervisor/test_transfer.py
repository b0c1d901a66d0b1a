"""The choice: home when it costs nothing, a close relative when home is far away, the generalist when unsure."""

import dataclasses
import math

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from supervisor.transfer import Choice, Considerations, Costs, choose, normalised
from supervisor.transfer_fit import Pair, TransferTable
from supervisor.transfer_model import GENERALIST, HOME, Candidate, TransferModel

DOMAINS = ("general", "math", "physics", "law", "cs", "history", "python", "coding")
DEFAULT = "coe-general"
MODEL = TransferModel(TransferTable.load())

Belief = list[tuple[str, float]]


def college(*resident: str, swap_seconds: float = 8.0, without: tuple[str, ...] = ()) -> list[Candidate]:
    """One specialist for each domain; all but the resident ones would take `swap_seconds` to swap in."""
    return [
        Candidate(tag=f"coe-{d}", domains=(d,), is_resident=d in resident, swap_seconds=swap_seconds)
        for d in DOMAINS
        if d not in without
    ]


def sure_of(domain: str, probability: float = 0.9) -> Belief:
    rest = (1 - probability) / (len(DOMAINS) - 1)
    return [(d, probability if d == domain else rest) for d in DOMAINS]


def tag_of(
    belief: Belief,
    candidates: list[Candidate],
    considerations: Considerations | None = None,
    *,
    abstained: bool = False,
    current: str | None = None,
) -> str:
    return choose(
        belief, candidates, MODEL, None, considerations, default=DEFAULT, abstained=abstained, current=current
    ).tag


beliefs = st.lists(st.floats(0.001, 1), min_size=len(DOMAINS), max_size=len(DOMAINS)).map(
    lambda weights: [(d, w / sum(weights)) for d, w in zip(DOMAINS, weights, strict=True)]
)
seconds = st.floats(0, 300)


@pytest.mark.parametrize("domain", DOMAINS)
def test_home_answers_when_swapping_is_free(domain: str) -> None:
    """With everything in memory, a clear question goes to the specialist of its domain."""
    assert tag_of(sure_of(domain), college(*DOMAINS)) == f"coe-{domain}"


def test_a_close_relative_in_memory_beats_a_slow_swap() -> None:
    """Physics answers math (published .945) rather than wait 8 s for the math specialist; law (.197) never does."""
    choice = choose(sure_of("math"), college("physics"), MODEL, default=DEFAULT)

    assert (choice.tag, choice.kind) == ("coe-physics", "visitor")
    assert tag_of(sure_of("math"), college("law")) == "coe-math"
    assert tag_of(sure_of("math"), college("law", swap_seconds=1e6)) == "coe-math"


def test_a_short_swap_brings_home_in() -> None:
    """Where the home specialist is a second away, the relative in memory does not hold the question."""
    assert tag_of(sure_of("math"), college("physics", swap_seconds=1.0)) == "coe-math"


def test_the_super_parity_pair_does_not_beat_home_by_itself() -> None:
    """Math on cs is published at 1.089 of the parent, but on 41 questions: its lower bound stays under home."""
    assert tag_of(sure_of("cs"), college(*DOMAINS)) == "coe-cs"
    assert tag_of(sure_of("cs"), college("math")) == "coe-math"


def test_a_question_between_two_far_domains_goes_to_the_generalist() -> None:
    """Half law, half math: either specialist would fail the other half, so the generalist is worth more."""
    torn = [("law", 0.5), ("math", 0.45), ("general", 0.05)]

    assert tag_of(torn, college(*DOMAINS)) == DEFAULT


def test_a_question_between_two_near_domains_goes_to_a_specialist() -> None:
    """Half math, half physics: physics is published as good at both, so it answers, not the generalist."""
    torn = [("math", 0.5), ("physics", 0.45), ("general", 0.05)]

    assert tag_of(torn, college(*DOMAINS)) == "coe-physics"


def test_abstaining_means_the_generalist() -> None:
    """Whatever the numbers, unsure is the generalist's; if that one is away, the best score decides."""
    away = [msgspec.structs.replace(each, is_available=each.tag != DEFAULT) for each in college(*DOMAINS)]

    assert tag_of(sure_of("math"), college("math"), abstained=True) == DEFAULT
    assert tag_of(sure_of("math"), away, abstained=True) != DEFAULT


def test_a_domain_nobody_serves_goes_to_kin() -> None:
    """C# in a college with a Python specialist and no other programmer is a matter for Python, not for law."""
    assert tag_of(sure_of("coding"), college(*DOMAINS, without=("coding", "cs"))) == "coe-python"


def test_the_operator_maps_domains_by_hand() -> None:
    """An override holds against all numbers, unless its specialist is away."""
    by_hand = Considerations(overrides={"math": "coe-law", "general": "coe-history"})
    away = [msgspec.structs.replace(each, is_available=each.tag != "coe-law") for each in college(*DOMAINS)]

    assert tag_of(sure_of("math"), college(*DOMAINS), by_hand) == "coe-law"
    assert tag_of(sure_of("math"), away, by_hand) == "coe-math"
    assert tag_of(sure_of("law"), college(*DOMAINS), by_hand, abstained=True) == "coe-history"


def test_each_consideration_can_be_switched_off() -> None:
    """Without swap costs home wins at any distance; without transfer no visitor does."""
    here = college("physics", swap_seconds=60.0)

    assert tag_of(sure_of("math"), here) == "coe-physics"
    assert tag_of(sure_of("math"), here, Considerations(use_swap_cost=False)) == "coe-math"
    assert tag_of(sure_of("math"), here, Considerations(use_transfer=False)) == "coe-math"


@given(beliefs, seconds, st.booleans(), st.booleans())
def test_without_transfer_only_home_or_generalist_answer(
    belief: Belief, swap_seconds: float, use_swap_cost: bool, abstained: bool
) -> None:
    """With transfer off, the chosen specialist has quality from its own domains alone."""
    off = Considerations(use_transfer=False, use_swap_cost=use_swap_cost)
    choice = choose(
        belief, college("law", swap_seconds=swap_seconds), MODEL, None, off, default=DEFAULT, abstained=abstained
    )
    share = dict(belief)

    for terms in choice.terms:
        if terms.tag != DEFAULT:
            assert terms.quality == pytest.approx(share[terms.tag.removeprefix("coe-")], abs=0.005)


@given(beliefs, st.lists(seconds, min_size=len(DOMAINS), max_size=len(DOMAINS)), st.data())
def test_a_cheaper_swap_never_loses_the_choice(belief: Belief, swaps: list[float], data: st.DataObject) -> None:
    """Making the winner's own swap cheaper leaves it the winner."""
    candidates = [Candidate(tag=f"coe-{d}", domains=(d,), swap_seconds=s) for d, s in zip(DOMAINS, swaps, strict=True)]
    winner = choose(belief, candidates, MODEL, Costs(tie_margin=0.0), default=DEFAULT).tag
    index = next(i for i, each in enumerate(candidates) if each.tag == winner)
    cheaper = data.draw(st.floats(0, candidates[index].swap_seconds))
    candidates[index] = msgspec.structs.replace(candidates[index], swap_seconds=cheaper)

    assert choose(belief, candidates, MODEL, Costs(tie_margin=0.0), default=DEFAULT).tag == winner


@given(beliefs, seconds)
def test_the_sums_add_up(belief: Belief, swap_seconds: float) -> None:
    """score = quality − swap − switch for every candidate, and the winner is within the tie margin of the best."""
    choice = choose(belief, college("law", swap_seconds=swap_seconds), MODEL, default=DEFAULT, current="coe-law")

    assert all(t.score == pytest.approx(t.quality - t.swap_cost - t.switch_cost) for t in choice.terms)
    assert all(0 <= t.quality <= 1.1 for t in choice.terms)
    assert all(t.swap_cost <= Costs().max_swap_cost for t in choice.terms)
    assert choice.terms[0].tag == choice.tag
    assert choice.terms[0].score >= max(t.score for t in choice.terms) - Costs().tie_margin


@given(beliefs)
def test_a_wait_is_never_worth_more_than_its_cap(belief: Belief) -> None:
    """Beyond twenty seconds a longer swap changes nothing: a bad answer would not be better for coming sooner."""
    assert tag_of(belief, college("law", swap_seconds=20.0)) == tag_of(belief, college("law", swap_seconds=1e9))


@given(beliefs, st.floats(0, 60))
def test_staying_is_never_harder_than_leaving(belief: Belief, swap_seconds: float) -> None:
    """Whoever wins without a history also wins as the conversation's current specialist."""
    candidates = college("law", swap_seconds=swap_seconds)
    winner = choose(belief, candidates, MODEL, Costs(tie_margin=0.0), default=DEFAULT).tag

    assert choose(belief, candidates, MODEL, Costs(tie_margin=0.0), default=DEFAULT, current=winner).tag == winner


def test_the_current_specialist_wins_what_is_nearly_even() -> None:
    """A score a little better is not worth changing specialist; one much better is."""
    even = [("math", 0.52), ("physics", 0.48)]
    clear = [("math", 0.02), ("law", 0.98)]

    assert tag_of(even, college(*DOMAINS)) == "coe-physics"
    assert tag_of(even, college(*DOMAINS), current="coe-math") == "coe-math"
    assert tag_of(even, college(*DOMAINS), Considerations(use_stickiness=False), current="coe-math") == "coe-physics"
    assert tag_of(clear, college(*DOMAINS), current="coe-math") == "coe-law"


def test_the_narrower_of_two_homes_goes_first() -> None:
    """A specialist of one domain is preferred to one of three, all else equal."""
    candidates = [
        Candidate(tag="broad", domains=("python", "coding", "web"), is_resident=True),
        Candidate(tag="narrow", domains=("python",), is_resident=True),
    ]

    assert choose([("python", 1.0)], candidates, MODEL, default="broad").tag == "narrow"


@pytest.mark.parametrize("odd", [[], [("math", math.nan)], [("math", -1.0)], [("math", math.inf)], [("math", 0.0)]])
def test_unusable_probabilities_count_as_abstaining(odd: Belief) -> None:
    """Nothing usable means the generalist."""
    assert tag_of(odd, college("math")) == DEFAULT


@pytest.mark.parametrize("odd", [math.nan, math.inf, -1.0])
def test_an_unusable_swap_time_counts_as_the_dearest(odd: float) -> None:
    """A pool that cannot say how long a swap takes does not make it free, and the numbers shown stay finite."""
    choice = choose(sure_of("math"), college("law", swap_seconds=odd), MODEL, default=DEFAULT)

    assert choice.terms[0].swap_cost == Costs().max_swap_cost
    assert math.isfinite(choice.terms[0].swap_seconds)


def test_with_nobody_available_the_default_is_named() -> None:
    """No candidates, or none available: the default, and the sentence says why."""
    none_here = [msgspec.structs.replace(each, is_available=False) for each in college()]

    for candidates in ([], none_here):
        choice = choose(sure_of("math"), candidates, MODEL, default=DEFAULT)
        assert (choice.tag, choice.kind) == (DEFAULT, "default")
        assert "available" in choice.sentence


def test_the_sentence_gives_the_numbers_of_both_sides() -> None:
    """Visitor's worth and source, its expected quality, and what home would have cost, with units."""
    sentence = choose(sure_of("math"), college("physics"), MODEL, default=DEFAULT).sentence

    assert "'coe-physics' answers, visiting math, worth 0.94 ± 0.04 of the parent's" in sentence
    assert "(published)" in sentence
    assert "'coe-math'" in sentence
    assert "0.12 for a swap of 8.0 s" in sentence


def test_a_choice_is_plain_data() -> None:
    """It survives the way to JSON and back."""
    choice = choose(sure_of("math"), college("physics"), MODEL, default=DEFAULT)

    assert msgspec.json.decode(msgspec.json.encode(choice), type=Choice) == choice


def worth(visitor: Candidate, domain: str, *others: Candidate, model: TransferModel = MODEL) -> tuple[str, float]:
    found = model.estimate(visitor, domain, (visitor, *others), DEFAULT)
    return found.basis, found.y


def test_estimates_come_from_the_best_source_there_is() -> None:
    """Home, published pair, general prior, overlap of masks, kin, everything else: in this order."""
    physics, law = Candidate(tag="p", domains=("physics",)), Candidate(tag="l", domains=("law",))
    python, history = Candidate(tag="py", domains=("python",)), Candidate(tag="h", domains=("history",))
    general = Candidate(tag=DEFAULT)

    assert worth(physics, "physics") == (HOME.basis, HOME.y)
    assert worth(Candidate(tag="m", domains=("math",)), "math") == ("published", 0.996)
    assert worth(physics, "math") == ("published", 0.945)
    assert worth(general, "math") == worth(physics, "general") == (GENERALIST.basis, GENERALIST.y)
    assert worth(general, "general") == (HOME.basis, HOME.y)
    assert worth(Candidate(tag="m", domains=("math",)), "law")[0] == "predicted"  # law on math was published with F
    assert worth(python, "coding")[0] == "prior of near pairs"
    assert worth(history, "chemistry")[0] == "prior of all pairs"
    overlapping = Candidate(tag="py", domains=("python",), overlaps=(("l", 0.6),))
    basis, y = worth(overlapping, "law", law)
    assert basis == "predicted"
    assert y == pytest.approx(0.590, abs=1e-3)


def test_measured_pairs_replace_published_ones() -> None:
    """By tag before domain, for visits and for home; pairs not measured stay as published."""
    measured = TransferTable(
        format="coe-transfer/1",
        measured=True,
        pairs=(
            Pair(visitor="physics", target="math", y=0.5, sigma=0.01, n=400),
            Pair(visitor="mine", target="math", y=0.6, sigma=0.01, n=400),
            Pair(visitor="math", target="math", y=0.9, sigma=0.01, n=400),
        ),
    )
    model = TransferModel(TransferTable.load(), measured)
    physics, mine = Candidate(tag="p", domains=("physics",)), Candidate(tag="mine", domains=("history",))

    assert worth(physics, "math", model=model) == ("measured", 0.5)
    assert worth(mine, "math", model=model) == ("measured", 0.6)
    assert worth(Candidate(tag="m", domains=("math",)), "math", model=model) == ("measured", 0.9)
    assert worth(physics, "engineering", model=model) == ("published", 0.88)
    assert choose(sure_of("math"), college("physics"), model, default=DEFAULT).tag == "coe-math"


def test_a_measured_line_replaces_the_published_one() -> None:
    """With enough measured pairs of known overlap, predictions follow them."""
    pairs = tuple(Pair(visitor=f"v{i}", target="t", y=0.9, sigma=0.01, n=400, f_score=i / 10) for i in range(8))
    model = TransferModel(TransferTable.load(), TransferTable(format="coe-transfer/1", measured=True, pairs=pairs))
    law, python = Candidate(tag="l", domains=("law",)), Candidate(tag="py", domains=("python",), overlaps=(("l", 0.3),))

    basis, y = worth(python, "law", law, model=model)
    assert basis == "predicted"
    assert y == pytest.approx(0.9)


def test_tables_of_colleges_do_not_pile_up() -> None:
    """Choosing for ever new colleges keeps only the last few tables."""
    model = TransferModel(TransferTable.load())
    for number in range(100):
        choose([("math", 1.0)], [Candidate(tag=str(number))], model, default=DEFAULT)

    assert len(model._tables) <= 8


@given(st.lists(st.tuples(st.sampled_from(DOMAINS), st.floats()), max_size=12))
def test_normalising_gives_a_distribution_or_nothing(weights: Belief) -> None:
    """Positive, finite and summing to 1, or empty."""
    found = normalised(weights)

    assert all(0 <= p <= 1 for _, p in found)
    assert not found or math.isclose(sum(p for _, p in found), 1.0)


@given(beliefs, st.permutations(range(len(DOMAINS))), st.floats(0, 60))
def test_the_order_of_candidates_does_not_matter(belief: Belief, order: list[int], swap_seconds: float) -> None:
    """Shuffling the college changes no choice, apart from exact ties."""
    candidates = college("physics", swap_seconds=swap_seconds)
    choice = choose(belief, candidates, MODEL, default=DEFAULT)
    scores = sorted((t.score for t in choice.terms), reverse=True)
    assume(scores[0] - scores[1] > 0.011 and scores[0] == choice.terms[0].score)

    assert tag_of(belief, [candidates[i] for i in order]) == choice.tag


def test_costs_are_a_value() -> None:
    """An operator changes one number and keeps the rest."""
    patient = dataclasses.replace(Costs(), seconds_weight=0.0)

    assert choose(sure_of("math"), college("physics"), MODEL, patient, default=DEFAULT).tag == "coe-math"
