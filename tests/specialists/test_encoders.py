"""`[[encoder]]` in college.toml, what the header of an embedding model says, and what becomes of it elsewhere."""

from pathlib import Path
from typing import Any

import gguf
import pytest

from specialists.catalogue import Catalogue, load_catalogue, specialist_from_hub
from specialists.college_file import EncoderTable, check_college
from specialists.embedding_models import makes_embeddings, pooling_of
from specialists.encoders import encoder_manifest
from specialists.engine.protocol import Pooling
from specialists.errors import CatalogueError, UnknownSpecialist
from specialists.gguf_file import read_header
from tests.pico import write_pico_llama
from tests.pico_encoder import WIDTH, write_pico_bert
from tests.specialists.test_catalogue import CacheOnly

TABLES = {"college": {"name": "c", "default": "a:q4"}, "specialist": [{"tag": "a:q4", "model": "llama.gguf"}]}


def table(**fields: Any) -> EncoderTable:
    tables = TABLES | {"encoder": [{"tag": "e:q8", "model": "bert.gguf"} | fields]}
    return check_college(tables, source="college.toml").encoder[0]


@pytest.fixture
def college(tmp_path: Path) -> Path:
    """A folder with a chat model, an encoder, a causal embedding model and a reranking one."""
    write_pico_llama(tmp_path / "llama.gguf")
    write_pico_bert(tmp_path / "bert.gguf")
    write_pico_llama(tmp_path / "last.gguf", pooling=gguf.PoolingType.LAST)
    write_pico_bert(tmp_path / "rank.gguf", pooling=gguf.PoolingType.RANK)
    return tmp_path


def catalogue(folder: Path, *entries: str) -> Catalogue:
    head = '[college]\nname = "c"\ndefault = "a:q4"\n[[specialist]]\ntag = "a:q4"\nmodel = "llama.gguf"\n'
    (folder / "college.toml").write_text(head + "".join(entries), encoding="utf-8")
    return load_catalogue(folder / "college.toml")


def encoder(model: str, *lines: str, tag: str = "e:q8") -> str:
    return "\n".join(["[[encoder]]", f'tag = "{tag}"', f'model = "{model}"', *lines, ""])


# ── the file ─────────────────────────────────────────────────────────────────


def test_an_encoder_needs_a_tag_and_a_model() -> None:
    """It stays for five minutes after it was last asked unless told otherwise."""
    assert table() == EncoderTable(tag="e:q8", model="bert.gguf", keep_alive=300.0)
    assert table(pooling="cls", keep_alive="1h", context=64).pooling is Pooling.CLS


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": None}, "model: "),
        ({"pooling": "max"}, "pooling: .*'mean', 'cls' or 'last'"),
        ({"context": 0}, "context: "),
        ({"keep_alive": "soon"}, "keep_alive: .*not a duration"),
        ({"contxt": 5}, "did you mean 'context'"),
        ({"tag": "../e"}, "tag: "),
        ({"tag": "auto"}, "tag: "),
        ({"tag": "coe-supervisor-minilm"}, "the supervisor's encoder"),
        ({"tag": "a:q4"}, "have the same tag"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], message: str) -> None:
    """With the entry and the key."""
    with pytest.raises(CatalogueError, match=message) as caught:
        table(**fields)
    assert str(caught.value).startswith("college.toml: [[")
    assert "[[encoder]] number 1" in str(caught.value)


def test_an_encoder_is_nobodys_default() -> None:
    """Nor anybody's fallback: it answers nothing."""
    tables = TABLES | {"college": {"name": "c", "default": "e"}, "encoder": [{"tag": "e", "model": "m"}]}
    with pytest.raises(CatalogueError, match="none of the tags"):
        check_college(tables, source="college.toml")


# ── headers ──────────────────────────────────────────────────────────────────


def test_headers_tell_what_makes_embeddings(college: Path) -> None:
    """An encoder's architecture does, and a pooling type in any file; what ranks pairs does not."""
    kinds = {name: read_header(college / f"{name}.gguf") for name in ("llama", "bert", "last", "rank")}

    assert [name for name, header in kinds.items() if makes_embeddings(header)] == ["bert", "last"]


@pytest.mark.parametrize(
    ("named", "bert", "llama"),
    [
        (None, Pooling.MEAN, Pooling.LAST),
        (gguf.PoolingType.NONE, Pooling.MEAN, Pooling.LAST),
        (gguf.PoolingType.CLS, Pooling.CLS, Pooling.CLS),
        (gguf.PoolingType.MEAN, Pooling.MEAN, Pooling.MEAN),
    ],
)
def test_the_files_pooling_goes_before_the_usual_one(
    tmp_path: Path, named: gguf.PoolingType | None, bert: Pooling, llama: Pooling
) -> None:
    """The mean for an encoder, the last token for what reads one way."""
    assert pooling_of(read_header(write_pico_bert(tmp_path / "bert.gguf", pooling=named))) is bert
    assert pooling_of(read_header(write_pico_llama(tmp_path / "llama.gguf", pooling=named))) is llama


# ── manifests ────────────────────────────────────────────────────────────────


def test_a_college_has_its_encoders_beside_its_specialists(college: Path) -> None:
    """Anybody's GGUF may be one; the engine gets the pooling, and a context that the model was trained for."""
    found = catalogue(
        college, encoder("bert.gguf", "context = 4096"), encoder("llama.gguf", 'pooling = "mean"', tag="plain")
    )
    bert, plain = found.encoders.values()

    assert (list(found.specialists), list(found.models)) == (["a:q4"], ["a:q4", "e:q8", "plain"])
    assert (bert.engine.pooling, bert.context_tokens, bert.vector_width) == (Pooling.MEAN, 256, WIDTH)
    assert "256 tokens that its model was trained for" in bert.notes[0]
    assert (plain.engine.pooling, plain.context_tokens, plain.makes_embeddings) == (Pooling.MEAN, 512, True)
    assert found.resolve("e:q8:latest") is bert
    assert not found.resolve("a:q4").makes_embeddings
    with pytest.raises(UnknownSpecialist):
        found.resolve("e")


def test_what_cannot_be_served_says_why(college: Path) -> None:
    """Missing weights and reranking models as encoders; embedding models as specialists."""
    found = catalogue(
        college,
        encoder("gone.gguf", tag="gone"),
        encoder("rank.gguf", tag="rank"),
        '[[specialist]]\ntag = "b"\nmodel = "bert.gguf"\n',
        '[[specialist]]\ntag = "r"\nmodel = "rank.gguf"\n',
    )
    reasons = {tag: each.unavailable or "" for tag, each in found.models.items()}

    assert "gone.gguf" in reasons["gone"]
    assert "reranking model" in reasons["rank"]
    assert "name it in an [[encoder]]" in reasons["b"]
    assert "reranking model" in reasons["r"]
    assert reasons["a:q4"] == ""


def test_weights_that_are_not_here_still_make_a_manifest() -> None:
    """Whoever lists the models needs one."""
    manifest = encoder_manifest(table(), Path("gone.gguf"), None, "it is gone")

    assert (manifest.makes_embeddings, manifest.unavailable, manifest.vector_width) == (True, "it is gone", 0)


def test_a_pulled_model_is_what_its_header_says(college: Path) -> None:
    """Nobody has to tell; weights that are not here (yet) are taken for a specialist's."""
    kinds = {
        name: specialist_from_hub("hf.co/o/r:latest", "hf.co/o/r", hub=CacheOnly({"m.gguf": college / f"{name}.gguf"}))
        for name in ("llama", "bert", "last", "rank")
    }
    gone = specialist_from_hub("hf.co/o/r:latest", "hf.co/o/r", hub=CacheOnly())

    assert [name for name, each in kinds.items() if each.makes_embeddings] == ["bert", "last"]
    assert [name for name, each in kinds.items() if each.unavailable is not None] == ["rank"]
    assert kinds["last"].engine.pooling is Pooling.LAST
    assert (gone.makes_embeddings, gone.unavailable is None) == (False, False)
