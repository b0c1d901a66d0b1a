"""A whole run: interrupted and resumed, kept to its budget, stopped once stable; and prompts answered first."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import policy
from specialists.builder import prompting
from specialists.builder.corpus import Corpus
from specialists.builder.histogram import Profile, ProfileError, read_profile
from specialists.builder.profile_run import ProfileProgress, ProfileRun, ProfileSettings
from specialists.builder.record_groups import GroupReader
from specialists.builder.stability import StabilityRule
from tests.fakes import FakeClock
from tests.pico import PicoShape, write_pico_gemma
from tests.pico_moe import write_pico_moe
from tests.specialists.builder.loaded import Loaded


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    loaded = Loaded(write_pico_gemma(tmp_path_factory.mktemp("parent") / "pico.gguf", PicoShape(scale_spread=0.3)))
    with closing(loaded.model):
        yield loaded


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """A model whose next token is a matter of chance, as its logits are small."""
    loaded = Loaded(write_pico_moe(tmp_path_factory.mktemp("parent") / "pico.gguf", "qwen3moe"))
    with closing(loaded.model):
        yield loaded


@pytest.fixture
def corpora(tmp_path: Path) -> list[Corpus]:
    """Two domains of three groups each, or so."""
    made = []
    for domain, numbers in (("odd", range(1, 60, 2)), ("even", range(0, 60, 2))):
        path = tmp_path / f"{domain}.jsonl"
        texts = [f"{number} is {domain}; " * (10 + number % 7) for number in numbers]
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        made.append(Corpus(domain, [path]))
    return made


SETTINGS = ProfileSettings(context_tokens=128, batch_tokens=128, group_tokens=1000, replicates=16)


def new_run(
    gemma: Loaded,
    corpora: list[Corpus],
    out: Path,
    settings: ProfileSettings = SETTINGS,
) -> ProfileRun:
    """A run whose state is saved after every group."""
    return ProfileRun(gemma.layout, corpora, out, settings, clock=FakeClock(), flush_seconds=0.0)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("groups", [1, 3])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    gemma: Loaded, corpora: list[Corpus], tmp_path: Path, groups: int
) -> None:
    """Broken off and resumed, in the first domain or the second, the file is the same to the last byte."""
    whole = tmp_path / "whole.npz"
    settings = replace(SETTINGS, stability=StabilityRule(keep=4, increment_tokens=800, jaccard=1.1))
    new_run(gemma, corpora, whole, settings).run(gemma.model, threads=1)
    left = groups

    def interrupt(_progress: ProfileProgress) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Interrupted

    out = tmp_path / "broken.npz"
    with pytest.raises(Interrupted):
        new_run(gemma, corpora, out, settings).run(gemma.model, threads=1, on_progress=interrupt)
    assert not out.exists()
    again = new_run(gemma, corpora, out, settings)
    assert again.resume()
    again.run(gemma.model, threads=1)

    assert out.read_bytes() == whole.read_bytes()
    assert not again.state_path.exists()


@pytest.mark.parametrize(("change", "named"), [({"seed": 5}, "seed"), ({"context_tokens": 64}, "context_tokens")])
def test_the_state_of_another_run_is_refused(
    gemma: Loaded, corpora: list[Corpus], tmp_path: Path, change: dict[str, int], named: str
) -> None:
    """Half a profile of one making and half of another would be neither; the error says what differs."""

    def interrupt(_progress: ProfileProgress) -> None:
        if interrupted.state_path.exists():
            raise Interrupted

    interrupted = new_run(gemma, corpora, tmp_path / "p.npz")
    with pytest.raises(Interrupted):
        interrupted.run(gemma.model, threads=1, on_progress=interrupt)

    with pytest.raises(ProfileError, match=f"differs in {named}"):
        new_run(gemma, corpora, tmp_path / "p.npz", replace(SETTINGS, **change)).resume()  # type: ignore[arg-type]
    with pytest.raises(ProfileError, match="differs in corpora"):
        new_run(gemma, corpora[:1], tmp_path / "p.npz").resume()


def test_a_state_that_is_none_is_refused(gemma: Loaded, corpora: list[Corpus], tmp_path: Path) -> None:
    """A finished profile under the state's name does not say where to go on."""
    run = new_run(gemma, corpora, tmp_path / "p.npz")
    run.run(gemma.model, threads=1)
    (tmp_path / "p.npz").rename(run.state_path)

    with pytest.raises(ProfileError, match="how far"):
        new_run(gemma, corpora, tmp_path / "p.npz").resume()


def test_conversations_take_the_form_they_are_served_in() -> None:
    """The block before a profiled answer is the one that the gateway puts before every answer."""
    assert prompting.CLOSED_THINK_BLOCK == policy.CLOSED_THINK_BLOCK


def test_every_token_is_counted_in_every_layer(gemma: Loaded, corpora: list[Corpus], tmp_path: Path) -> None:
    """The last layer too, which llama.cpp computes only for tokens whose logits are wanted."""
    made = new_run(gemma, corpora, tmp_path / "p.npz").run(gemma.model, threads=1)

    for corpus in corpora:
        texts = [
            record.text for index in range(len(corpus)) if (record := corpus.read(index)) and hasattr(record, "text")
        ]
        domain = made.domain(corpus.domain)
        assert domain.num_tokens.tolist() == [sum(len(text.encode()) for text in texts)] * 4
        assert domain.num_records == len(texts) == 30
        assert domain.count.sum() == domain.num_tokens.sum() * 2
        assert domain.weight_sum.sum() == pytest.approx(float(domain.num_tokens.sum()))
    assert read_profile(tmp_path / "p.npz").parent == made.parent


def test_a_budget_of_tokens_is_kept_to_the_token(gemma: Loaded, corpora: list[Corpus], tmp_path: Path) -> None:
    """The last record is cut where the budget ends, and the progress ends at 1."""
    seen: list[ProfileProgress] = []
    settings = replace(SETTINGS, max_tokens=777)
    run = new_run(gemma, corpora, tmp_path / "p.npz", settings)
    made = run.run(gemma.model, threads=1, on_progress=seen.append)

    assert [int(domain.num_tokens[0]) for domain in made.domains.values()] == [777, 777]
    assert [(each.domain, each.domains_done, each.share) for each in seen] == [("odd", 0, 1.0), ("even", 1, 1.0)]


def test_a_stable_domain_stops_before_its_corpus_ends(gemma: Loaded, corpora: list[Corpus], tmp_path: Path) -> None:
    """With an easy rule two increments are enough; the curve is in the profile."""
    rule = StabilityRule(keep=4, jaccard=0.1, entropy_nats=1.0, increment_tokens=500, fewest_records=2)
    made = new_run(gemma, corpora, tmp_path / "p.npz", replace(SETTINGS, stability=rule)).run(gemma.model, threads=1)

    domain = made.domain("odd")
    assert 0 < domain.num_records < 30
    assert [point["tokens"] for point in domain.curve] == sorted({point["tokens"] for point in domain.curve})
    assert len(domain.curve) == 3


def test_text_that_holds_no_token_is_refused(gemma: Loaded, tmp_path: Path) -> None:
    """A profile of nothing would divide by zero later on."""
    path = tmp_path / "empty.jsonl"
    path.write_text('{"text": ""}\n')

    with pytest.raises(ProfileError, match="no tokens"):
        new_run(gemma, [Corpus("empty", [path])], tmp_path / "p.npz").run(gemma.model, threads=1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"context_tokens": 1}, "context"),
        ({"batch_tokens": 0}, "batch"),
        ({"max_tokens": 0}, "max-tokens"),
        ({"generate_tokens": 128}, "generate"),
        ({"replicates": 15}, "replicates"),
    ],
)
def test_settings_out_of_range_name_their_option(change: dict[str, int], named: str) -> None:
    """In one sentence, with what is expected."""
    with pytest.raises(ProfileError, match=f"^{named}: .* expected"):
        replace(SETTINGS, **change)  # type: ignore[arg-type]


def conversations(tmp_path: Path) -> Corpus:
    path = tmp_path / "chat.jsonl"
    lines: list[dict[str, Any]] = [{"prompt": f"How many is {number}?"} for number in range(5)]
    lines.append({"prompt": "And six?", "response": "Half a dozen."})
    lines.append({"text": "Plain text goes on and"})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Corpus("chat", [path])


def reader(chatty: Loaded, **changes: Any) -> GroupReader:
    sizes = {"context_tokens": 128, "batch_tokens": 64, "group_tokens": 4096, "threads": 1, "with_contributions": False}
    drawn = {"generate_tokens": 12, "temperature": 0.8, "seed": 1}
    return GroupReader(chatty.model, chatty.layout, **(sizes | drawn | changes))


def test_open_prompts_are_answered_and_replayed_with_their_answer(chatty: Loaded, tmp_path: Path) -> None:
    """What has an answer is left alone; the others grow by at most so many tokens, the same ones for the same seed."""
    corpus = conversations(tmp_path)
    groups = []
    for changes in ({}, {}, {"seed": 2}, {"generate_tokens": 0}):
        with closing(reader(chatty, **changes)) as made:
            groups.append(made.read(corpus, iter(range(7)), most_tokens=None))
    first, same, other, unanswered = groups

    assert first.windows == same.windows != other.windows
    for number, (window, prompt) in enumerate(zip(first.windows, unanswered.windows, strict=True)):
        assert window[: len(prompt)] == prompt
        assert (len(window) - len(prompt) in range(13)) if number != 5 else window == prompt
    assert max(map(len, first.windows)) > max(map(len, unanswered.windows))
    assert bytes(token for token in first.windows[5] if token < 256).endswith(b"<think></think>\nHalf a dozen.")


def test_answers_do_not_depend_on_their_neighbours_when_taken_greedily(chatty: Loaded, tmp_path: Path) -> None:
    """A prompt answered alone gets the answer it gets beside others."""
    corpus = conversations(tmp_path)
    with closing(reader(chatty, temperature=0.0)) as made:
        together = made.read(corpus, iter(range(7)), most_tokens=None)
        single = [made.read(corpus, iter([number]), most_tokens=None).windows[0] for number in range(7)]

    assert list(together.windows) == single


def test_a_conversation_the_template_refuses_is_skipped_and_counted(tmp_path: Path) -> None:
    """One odd record does not end a run of hours."""
    refusal = "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    template = "{% for m in messages %}" + refusal + "{{ m.content }}{% endfor %}"
    loaded = Loaded(write_pico_gemma(tmp_path / "pico.gguf", chat_template=template))
    path = tmp_path / "chat.jsonl"
    roles = ["user", "system", "user"]
    path.write_text("".join(json.dumps({"messages": [{"role": role, "content": "Hello"}]}) + "\n" for role in roles))
    with closing(loaded.model):
        made = new_run(loaded, [Corpus("chat", [path])], tmp_path / "p.npz").run(loaded.model, threads=1)

    domain = read_profile(tmp_path / "p.npz").domain("chat")
    assert (domain.num_records, domain.num_skipped) == (2, 1)
    assert isinstance(made, Profile)
