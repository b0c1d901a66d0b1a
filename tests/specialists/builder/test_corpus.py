"""Corpora: three kinds of file, records by number, and mistakes that name their line; how windows are packed."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.builder.corpus import Chat, Corpus, CorpusError, CorpusFile, Text, parse_corpora
from specialists.builder.packing import cut_windows, plan_batches
from specialists.request import Message


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def test_json_lines_hold_text_conversations_or_prompts(tmp_path: Path) -> None:
    """Each form becomes the record it means; empty lines are none."""
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    path = write(
        tmp_path / "c.jsonl",
        {"text": "plain", "source": "ignored"},
        "\n",
        {"messages": [*turns, {"role": "assistant", "content": "Hello."}]},
        {"messages": turns},
        {"prompt": "2 + 2?", "response": "4"},
    )
    corpus = Corpus("mixed", [path])
    asked = (Message("system", "Be brief."), Message("user", "Hi"))

    assert [corpus.read(index) for index in range(len(corpus))] == [
        Text("plain"),
        Chat(asked, "Hello."),
        Chat(asked),
        Chat((Message("user", "2 + 2?"),), "4"),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "a JSON object"),
        ('{"body": "x"}', "one of"),
        ('{"prompt": "x", "response": 4}', "response"),
        ('{"messages": []}', "at least one turn"),
        ('{"messages": [{"role": "user"}]}', "content"),
        ('{"messages": ["hi"]}', "each is"),
        ('{"text": "\\ud800' + "[" * 100_000, "c.jsonl:2"),
        ("[" * 200_000, "c.jsonl:2"),
    ],
)
def test_a_mistake_names_file_and_line_before_anything_is_run(tmp_path: Path, line: str, said: str) -> None:
    """Opening the corpus is enough to hear of a bad record, wherever it is."""
    path = write(tmp_path / "c.jsonl", {"text": "good"}, line + "\n")

    with pytest.raises(CorpusError, match=r"c\.jsonl:2") as caught:
        CorpusFile(path)
    assert said in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n \n\n"])
def test_a_file_without_text_is_refused(tmp_path: Path, content: bytes) -> None:
    """An empty corpus would be an empty profile."""
    path = tmp_path / "c.txt"
    path.write_bytes(content)

    with pytest.raises(CorpusError, match="holds no text"):
        CorpusFile(path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """Latin-1, or a binary, is not taken for UTF-8."""
    path = tmp_path / "c.txt"
    path.write_bytes(b"fine\n\nnot\xff fine\n")

    with pytest.raises(CorpusError, match="utf-8"):
        CorpusFile(path)


@pytest.mark.parametrize("separator", ["\n\n", " "])
def test_plain_text_is_cut_without_losing_a_character(tmp_path: Path, separator: str) -> None:
    """Records of plain text put together are the text, whether it has paragraphs or is one endless line."""
    words = separator.join(f"Absatz {number} über Gräser – 🌾{'x' * (number % 50)}" for number in range(2000))
    path = tmp_path / "c.txt"
    path.write_text(words, encoding="utf-8")
    file = CorpusFile(path)

    texts = [record.text for index in range(len(file)) if isinstance(record := file.read(index), Text)]
    assert len(texts) > 5
    assert max(map(len, texts)) < 20_000
    assert "".join("".join(texts).split()) == "".join(words.split())


def test_an_order_is_a_permutation_that_depends_on_the_seed_alone(tmp_path: Path) -> None:
    """The same seed visits the same records in the same order; no seed leaves them as they lie."""
    path = write(tmp_path / "c.jsonl", *({"text": str(number)} for number in range(50)))
    one, other = Corpus("a", [path]), Corpus("b", [path])

    assert one.order(3) == other.order(3)
    assert one.order(3) != one.order(4)
    assert sorted(one.order(3)) == one.order(None) == list(range(50))


def test_a_domain_named_twice_has_both_files(tmp_path: Path) -> None:
    """Records are numbered through, and the digest covers the contents in their order."""
    first = write(tmp_path / "a.jsonl", {"text": "one"}, {"text": "two"})
    second = write(tmp_path / "b.jsonl", {"text": "three"})

    [corpus] = parse_corpora([f"x={first}", f"x={second}"])
    [reverse] = parse_corpora([f"x={second}", f"x={first}"])

    assert [corpus.read(index) for index in range(3)] == [Text("one"), Text("two"), Text("three")]
    assert corpus.digest != reverse.digest
    assert corpus.digest == Corpus("y", [first, second]).digest


@pytest.mark.parametrize("given", ["math", "=c.jsonl", "ma th=c.jsonl", "../x=c.jsonl", "math="])
def test_a_corpus_is_given_as_domain_and_file(given: str) -> None:
    """Anything else is refused in one sentence."""
    with pytest.raises(CorpusError):
        parse_corpora([given])


@given(lengths=st.lists(st.integers(0, 40), max_size=30), batch_tokens=st.integers(1, 32), num_slots=st.integers(1, 8))
def test_packing_covers_every_token_once_and_in_order(lengths: list[int], batch_tokens: int, num_slots: int) -> None:
    """Batches respect their sizes, and a slot holds one unfinished window at a time."""
    done = [0] * len(lengths)
    owner: dict[int, int] = {}
    for batch in plan_batches(lengths, batch_tokens=batch_tokens, num_slots=num_slots):
        assert sum(piece.end - piece.start for piece in batch) <= batch_tokens
        assert len({piece.slot for piece in batch}) == len(batch) <= num_slots
        for piece in batch:
            assert owner.get(piece.slot, piece.window) == piece.window
            assert (piece.start, piece.slot < num_slots) == (done[piece.window], True)
            done[piece.window] = piece.end
            owner[piece.slot] = piece.window
        for piece in batch:
            if piece.is_last:
                assert piece.end == lengths[piece.window]
                del owner[piece.slot]
    assert done == lengths
    assert not owner


@given(tokens=st.lists(st.integers(1, 9), max_size=50), size=st.integers(2, 12), bos=st.sampled_from([None, 0, 1]))
def test_windows_hold_all_tokens_and_begin_with_the_marker(tokens: list[int], size: int, bos: int | None) -> None:
    """A beginning-of-sequence token stands once at the beginning of each window, and nothing else is added."""
    windows = cut_windows(tokens, size, bos=bos)
    head = 0 if bos is None else 1

    assert all(len(window) <= size and window[:head] == [bos][:head] for window in windows)
    content = [token for window in windows for token in window[head:]]
    assert content == (tokens[1:] if head and tokens[:1] == [bos] else tokens)
