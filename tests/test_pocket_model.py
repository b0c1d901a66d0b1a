"""From arrays to a GGUF that llama.cpp loads and the builder cuts; corpora split by chapters; and what is measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pocket.corpora import DOMAINS, Record, texts, write_split
from pocket.gguf_export import CHAT_TEMPLATE, write_gguf
from pocket.measuring import OPTION_TOKENS, OPTIONS, material, opened
from pocket.shape import PocketShape
from pocket.vocabulary import learn_vocabulary
from specialists.engine.llama import LlamaLog, Model
from specialists.gguf_file import read_header
from specialists.moe_layout import layout

TINY = PocketShape(
    vocabulary=288, width=32, sliding=(True, False), window_tokens=64, head_width=32, mlp_width=64, experts=8,
    experts_used=2, expert_width=32, context_tokens=256,
)  # fmt: skip
WORDS = ("matrix", "vector", "sum", "proof", "number", "the", "of", "and", "is", "a")


def sentence(seed: int, words: int = 90) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All corpora in small, some of them share-alike, parted."""
    folder = tmp_path_factory.mktemp("corpora")
    for number, domain in enumerate(DOMAINS):
        records = [
            {"text": sentence(100 * number + n), "source": f"book: chapter {n // 3}", "license": licence}
            for n in range(480)
            for licence in (["CC-BY-4.0", "CC-BY-SA-4.0"][n % 5 == 0],)
        ]
        lines = "\n".join(json.dumps(record) for record in records)
        (folder / f"{domain}.jsonl").write_text(lines + "\n", encoding="utf-8")
    write_split(folder, folder / "split")
    return folder / "split"


def arrays(shape: PocketShape, seed: int = 3) -> dict[str, NDArray[np.float32]]:
    """Random parameters under the names that training gives them."""
    rng = np.random.default_rng(seed)

    def matrix(*dims: int) -> NDArray[np.float32]:
        return np.asarray(rng.standard_normal(dims) / np.sqrt(dims[-1]), dtype=np.float32)

    width, heads, narrow = shape.width, shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    found = {"embed_tokens.weight": matrix(shape.vocabulary, width), "norm.weight": np.ones(width, dtype=np.float32)}
    norms = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
    more = tuple(f"{name}_{n}" for name, n in (("post_feedforward_layernorm", 1), ("post_feedforward_layernorm", 2)))
    for layer in range(shape.layers):
        of_layer: dict[str, NDArray[Any]] = {
            f"{name}.weight": np.ones(width) for name in (*norms, *more, "pre_feedforward_layernorm_2")
        }
        of_layer |= {f"self_attn.{each}_norm.weight": np.ones(shape.head_width) for each in "qk"}
        of_layer |= {
            "self_attn.q_proj.weight": matrix(heads, width),
            "self_attn.k_proj.weight": matrix(narrow, width),
            "self_attn.v_proj.weight": matrix(narrow, width),
            "self_attn.o_proj.weight": matrix(width, heads),
            "mlp.gate_proj.weight": matrix(shape.mlp_width, width),
            "mlp.up_proj.weight": matrix(shape.mlp_width, width),
            "mlp.down_proj.weight": matrix(width, shape.mlp_width),
            "router.proj.weight": matrix(shape.experts, width),
            "router.scale": np.full(width, width**0.5),
            "router.per_expert_scale": np.ones(shape.experts),
            "experts.gate_up_proj": matrix(shape.experts, 2 * shape.expert_width, width),
            "experts.down_proj": matrix(shape.experts, width, shape.expert_width),
        }
        found |= {f"layers.{layer}.{name}": np.asarray(each, dtype=np.float32) for name, each in of_layer.items()}
    return found


@pytest.fixture(scope="module")
def parent(split: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = learn_vocabulary(split, TINY.vocabulary)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == TINY.vocabulary
    return write_gguf(folder / "tiny.gguf", arrays(TINY), TINY, folder / "tokenizer.json", kind="Q8_0")


def test_no_chapter_is_on_both_sides_and_share_alike_on_none(split: Path) -> None:
    """Training and held-out texts come from different sources, and licences that bind a model are left out."""
    sources: dict[str, set[str]] = {}
    licences = set()
    for part in ("train", "held"):
        records = [json.loads(line) for line in (split / part / "math.jsonl").read_text().split("\n") if line]
        sources[part] = {record["source"] for record in records}
        licences |= {record["license"] for record in records}

    assert sources["train"]
    assert sources["held"]
    assert not sources["train"] & sources["held"]
    assert licences == {"CC-BY-4.0"}


def test_a_source_keeps_its_side() -> None:
    """Which side a record is on depends on its source alone: not on its text, nor on what else there is."""
    sides = {Record("math", text, "book: chapter 1", "CC0-1.0").held_out for text in ("one", "two")}

    assert len(sides) == 1


def test_the_vocabulary_in_the_file_is_the_one_learnt(parent: Path, split: Path) -> None:
    """llama.cpp cuts text into the very tokens that training saw, and puts them together again."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(parent.with_name("tokenizer.json")))
    model = Model.load(parent, gpu_layers=0, log=LlamaLog())
    for text in (*texts(split, "held", "law")[:3], "Zahl: 3.14159 (π)\n\n    indented  twice, don't!"):
        tokens = model.vocabulary.tokenize(text)
        assert tokens == tokenizer.encode(text, add_special_tokens=False).ids
        assert b"".join(map(model.vocabulary.piece, tokens)).decode() == text
    assert model.chat_template() == CHAT_TEMPLATE
    model.close()


@pytest.mark.parametrize(("kind", "tolerance"), [("F32", 0), ("F16", 1e-3), ("Q8_0", 0.02)])
def test_what_is_written_is_what_was_given(parent: Path, tmp_path: Path, kind: str, tolerance: float) -> None:
    """Experts, gates and norms come back from the file, as exactly as their type allows."""
    import gguf

    given = arrays(TINY)
    path = write_gguf(tmp_path / "m.gguf", given, TINY, parent.with_name("tokenizer.json"), kind=kind)
    tensors = {each.name: each for each in gguf.GGUFReader(path).tensors}
    names = {
        "blk.1.ffn_gate_up_exps.weight": "layers.1.experts.gate_up_proj",
        "blk.1.ffn_gate_inp.weight": "layers.1.router.proj.weight",
        "blk.0.attn_output.weight": "layers.0.self_attn.o_proj.weight",
    }
    for theirs, ours in names.items():
        found = gguf.dequantize(tensors[theirs].data, tensors[theirs].tensor_type)
        exact = 0 if "gate_inp" in theirs else tolerance
        np.testing.assert_allclose(found.reshape(given[ours].shape), given[ours], atol=exact, rtol=0)


def test_the_builder_sees_all_experts(parent: Path) -> None:
    """The layout that masks and cuts go by has every layer with all its experts."""
    found = layout(read_header(parent))

    assert (found.blocks, found.num_experts, found.num_used) == ((0, 1), TINY.experts, TINY.experts_used)


def test_scores_follow_the_masks(parent: Path, split: Path) -> None:
    """Each token but a record's first is asked once; all experts give the parent, half of them do not."""
    held = material(parent, texts(split, "train", "math"), records=5, questions=4, seed=0)
    whole = dict.fromkeys((0, 1), tuple(range(TINY.experts)))
    half = dict.fromkeys((0, 1), (0, 2, 4, 6))
    found = []
    for kept in (None, whole, half):
        with opened(parent, kept) as scorer:
            found.append(scorer.score(held))

    assert found[0].num == [len(row) - 1 for row in held.windows]
    assert found[0].right == found[1].right
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-3)
    assert found[0].loss != pytest.approx(found[2].loss, rel=1e-3)
    assert [len(each.cloze) for each in found] == [4, 4, 4]


def test_questions_have_one_true_end(parent: Path, split: Path) -> None:
    """Options share the context, are equally long, and the first is the record's own."""
    held = material(parent, texts(split, "train", "math"), records=8, questions=6, seed=0)

    for question, row in zip(held.questions, held.windows, strict=False):
        assert len(question.rows) == OPTIONS
        assert {option[:-OPTION_TOKENS] for option in question.rows} == {row[: len(question.rows[0]) - OPTION_TOKENS]}
        assert question.rows[0] == row[: len(question.rows[0])]
