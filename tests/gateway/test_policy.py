"""What a specialist is asked follows the rules, whatever the client wished."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import CLOSED_THINK_BLOCK, RequestPolicy
from gateway.request import ChatRequest, CompletionRequest, SamplingWishes
from gateway.settings import TemperaturePolicy
from specialists.errors import RequestRejected
from specialists.manifest import LoopGuardRules
from specialists.request import (
    ChatPrompt,
    GenerationRequest,
    LoopGuardMode,
    LoopGuardParams,
    Message,
    TextPrompt,
    TokenPrompt,
)
from tests.gateway.college import MATH, manifest

USER = Message(role="user", content="What is 2 + 2?")


def planned(
    *messages: Message, policy: RequestPolicy | None = None, specialist: dict[str, Any] | None = None, **fields: Any
) -> GenerationRequest:
    """The first generation for a conversation with the math specialist."""
    request = ChatRequest(model=MATH, messages=messages or (USER,), **fields)
    plan = (policy or RequestPolicy()).apply(request, manifest(MATH, **(specialist or {})), request_id="r")
    return plan.generations[0]


def prompt_of(*messages: Message, **specialist: Any) -> ChatPrompt:
    prompt = planned(*messages, specialist=specialist).prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
MESSAGES = st.builds(Message, role=ROLES, content=st.text(max_size=30) | st.just("<think>\n</think>\n"))


@given(st.lists(MESSAGES, min_size=1, max_size=6).map(tuple))
def test_every_conversation_ends_in_the_closed_think_block(messages: tuple[Message, ...]) -> None:
    """The block is the trusted beginning of every answer, and no `developer` reaches a template."""
    prompt = prompt_of(*messages)

    assert prompt.assistant_prefill == CLOSED_THINK_BLOCK == "<think></think>\n"
    assert all(message.role != "developer" for message in prompt.messages)


@given(st.floats(0, 2), st.sampled_from(TemperaturePolicy))
def test_the_report_tells_every_temperature_that_was_not_granted(asked: float, policy: TemperaturePolicy) -> None:
    """What was used and what was asked differ only when the report says so."""
    request = ChatRequest(model=MATH, messages=(USER,), wishes=SamplingWishes(temperature=asked))
    plan = RequestPolicy(temperature=policy).apply(request, manifest(MATH), request_id="r")
    used = plan.generations[0].sampling.temperature

    assert plan.report.temperature == used
    assert (used != asked) == any(change.name == "temperature" for change in plan.report.changes)
    assert plan.report.as_header().isascii()


@pytest.mark.parametrize(
    ("policy", "asked", "used"),
    [
        (TemperaturePolicy.ENFORCE, 1.2, 0.6),
        (TemperaturePolicy.ENFORCE, None, 0.6),
        (TemperaturePolicy.CLAMP, 1.2, 0.7),
        (TemperaturePolicy.CLAMP, 0.3, 0.3),
        (TemperaturePolicy.CLAMP, None, 0.6),
        (TemperaturePolicy.ALLOW, 1.2, 1.2),
        (TemperaturePolicy.ALLOW, 0.0, 0.0),
    ],
)
def test_temperature_follows_the_policy(policy: TemperaturePolicy, asked: float | None, used: float) -> None:
    """enforce takes the specialist's, clamp moves into 0 to 0.7, allow takes the client's."""
    sampling = planned(policy=RequestPolicy(temperature=policy), wishes=SamplingWishes(temperature=asked)).sampling

    assert sampling.temperature == used


def test_the_header_names_what_was_changed() -> None:
    """One line with the value, what was asked, and the rule."""
    request = ChatRequest(model=MATH, messages=(USER,), wishes=SamplingWishes(temperature=1.2), max_tokens=10**6)
    report = RequestPolicy().apply(request, manifest(MATH), request_id="r").report

    assert report.as_header() == (
        "temperature=0.6 (asked 1.2; enforce), max_tokens=1024 (asked 1e+06; limit), think=closed"
    )


def test_the_header_is_short_when_nothing_was_changed() -> None:
    """Without changes it tells the temperature and the think block."""
    report = RequestPolicy().apply(ChatRequest(model=MATH, messages=(USER,)), manifest(MATH), request_id="r").report

    assert report.as_header() == "temperature=0.6, think=closed"


def test_the_specialists_system_text_stands_first() -> None:
    """It is there without being asked for."""
    assert prompt_of(USER).messages == (Message(role="system", content=f"You are {MATH}."), USER)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_clients_system_text_follows_the_specialists(role: str) -> None:
    """Both are in one turn; the client's cannot replace the specialist's."""
    messages = prompt_of(Message(role=role, content="Be brief."), USER).messages

    assert messages == (Message(role="system", content=f"You are {MATH}.\n\nBe brief."), USER)


def test_examples_come_between_system_text_and_conversation() -> None:
    """The Modelfile's MESSAGE turns are shown first."""
    examples = (Message(role="user", content="1+1?"), Message(role="assistant", content="2"))

    assert prompt_of(USER, examples=examples, system=None).messages == (*examples, USER)


@pytest.mark.parametrize(
    ("last", "continuation"),
    [
        ("<think></think>\n", ""),
        ("<think>\n\n</think>\n\n", ""),
        ("<think></think>\nThe answer", "The answer"),
        ("The answer", "The answer"),
        ("  leading space", "  leading space"),
        ("<think>not closed", "<think>not closed"),
        ("", ""),
    ],
)
def test_a_trailing_assistant_turn_is_continued(last: str, continuation: str) -> None:
    """Its empty think block gives way to the policy's own; the rest is continued as untrusted text."""
    prompt = prompt_of(USER, Message(role="assistant", content=last), system=None)

    assert prompt.messages == (USER,)
    assert prompt.continuation == continuation


@given(st.integers(1, 2**31 - 1) | st.none())
def test_max_tokens_never_exceeds_the_specialists(asked: int | None) -> None:
    """The smaller of the two counts."""
    assert planned(max_tokens=asked).max_tokens == min(asked or 1024, 1024)


@given(
    st.builds(
        SamplingWishes,
        top_k=st.integers(0, 10**6) | st.none(),
        top_p=st.floats(0.01, 1) | st.none(),
        min_p=st.floats(0, 1) | st.none(),
        repeat_penalty=st.floats(0.01, 2) | st.none(),
        frequency_penalty=st.floats(-2, 2) | st.none(),
        seed=st.integers() | st.none(),
    )
)
def test_other_wishes_are_granted_within_bounds(wishes: SamplingWishes) -> None:
    """Asked means granted, apart from a repeat penalty beyond reason; seeds fit 32 bits; the rest is the model's."""
    own = manifest(MATH).sampling
    sampling = planned(wishes=wishes).sampling

    assert sampling.top_k == (own.top_k if wishes.top_k is None else wishes.top_k)
    assert sampling.top_p == (own.top_p if wishes.top_p is None else wishes.top_p)
    assert sampling.min_p == (own.min_p if wishes.min_p is None else wishes.min_p)
    assert 1.0 <= sampling.repeat_penalty <= 1.5
    assert (sampling.seed is None) == (wishes.seed is None)
    assert sampling.seed is None or 0 <= sampling.seed < 2**32 - 1


def test_choices_of_one_prompt_differ_by_their_seed() -> None:
    """Choice i is drawn with seed + i, wrapping round; each has an id of its own."""
    request = ChatRequest(model=MATH, messages=(USER,), n=3, wishes=SamplingWishes(seed=2**32 - 3))
    generations = RequestPolicy().apply(request, manifest(MATH), request_id="r").generations

    assert [each.sampling.seed for each in generations] == [2**32 - 3, 2**32 - 2, 0]
    assert [each.id for each in generations] == ["r-0", "r-1", "r-2"]


def test_without_a_seed_no_choice_gets_one() -> None:
    """The engine draws for each."""
    request = ChatRequest(model=MATH, messages=(USER,), n=2)

    assert [
        each.sampling.seed for each in RequestPolicy().apply(request, manifest(MATH), request_id="r").generations
    ] == [None, None]


@pytest.mark.parametrize(("n", "num_prompts"), [(9, 1), (8, 3)])
def test_too_many_choices_are_refused(n: int, num_prompts: int) -> None:
    """n beyond the limit, or n times prompts beyond sixteen, costs nobody anything."""
    request = CompletionRequest(model=MATH, prompts=("a",) * num_prompts, n=n)

    with pytest.raises(RequestRejected, match="at most") as caught:
        RequestPolicy(max_choices=8).apply(request, manifest(MATH), request_id="r")

    assert caught.value.param == "n"


def test_raw_prompts_get_neither_template_nor_think_block() -> None:
    """Text and token ids go as they are, each prompt's choices side by side."""
    request = CompletionRequest(model=MATH, prompts=("Once", (1, 2)), n=2)
    plan = RequestPolicy().apply(request, manifest(MATH), request_id="r")

    text, tokens = TextPrompt(text="Once"), TokenPrompt(tokens=(1, 2))
    assert [each.prompt for each in plan.generations] == [text, text, tokens, tokens]
    assert plan.report.think == "none"


def test_echoed_logprobs_are_asked_for_only_with_both() -> None:
    """echo alone repeats text; with logprobs the prompt is scored; ids without logprobs cannot be shown."""
    text = CompletionRequest(model=MATH, prompts=("a",), echo=True)
    scored = CompletionRequest(model=MATH, prompts=((1, 2),), echo=True, logprobs=1)
    policy = RequestPolicy()

    assert not policy.apply(text, manifest(MATH), request_id="r").generations[0].echo_logprobs
    assert policy.apply(scored, manifest(MATH), request_id="r").generations[0].echo_logprobs
    with pytest.raises(RequestRejected, match="logprobs"):
        policy.apply(CompletionRequest(model=MATH, prompts=((1,),), echo=True), manifest(MATH), request_id="r")


def test_both_stop_lists_apply() -> None:
    """The specialist's own stop strings stay in force beside the client's."""
    assert planned(stop=("END",), specialist={"stop": ("</s>",)}).stop == ("</s>", "END")


@pytest.mark.parametrize("asked", [None, *LoopGuardMode])
@pytest.mark.parametrize("may_choose", [True, False])
def test_a_client_chooses_the_loop_guard_where_it_may(asked: LoopGuardMode | None, may_choose: bool) -> None:
    """The mode is the client's or the specialist's, the bounds are always the specialist's, the report says which."""
    rules = LoopGuardRules(params=LoopGuardParams(mode=LoopGuardMode.DETECT, rewinds=3), clients_may_choose=may_choose)
    request = ChatRequest(model=MATH, messages=(USER,), loop_guard=asked, is_streamed=False)
    plan = RequestPolicy().apply(request, manifest(MATH, loop_guard=rules), request_id="r")

    used = asked if may_choose and asked is not None else LoopGuardMode.DETECT
    assert plan.generations[0].loop_guard == LoopGuardParams(mode=used, rewinds=3)
    assert plan.report.loop_guard is used
    assert not plan.generations[0].is_streamed
