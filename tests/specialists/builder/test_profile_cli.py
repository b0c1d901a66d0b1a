"""`coe profile` and `coe verify` as a person calls them, on the real corpora, killed in the middle, and misused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from specialists.builder.histogram import read_profile
from specialists.gguf_file import read_header
from specialists.moe_layout import Role, layout
from tests.pico import PicoShape, write_pico_gemma, write_pico_llama

REPOSITORY = Path(__file__).resolve().parents[3]
CORPORA = REPOSITORY.parent / "shared" / "corpora"  # beside the checkout; see the domains' licences there
DOMAINS = ("math", "physics", "chemistry", "biology", "law", "history", "python", "web", "philosophy")
ONE = ("--threads", 1)
SHAPE = PicoShape(sliding=(True, False), experts=16, experts_used=4, scale_spread=0.3)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return write_pico_gemma(tmp_path / "parent.gguf", SHAPE)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """About 9,000 tokens in 45 records."""
    path = tmp_path / "corpus.jsonl"
    texts = [f"{number} green bottles hang on wall {number % 7}. " * 6 for number in range(45)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def coe(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def as_json(*arguments: object) -> dict[str, Any]:
    done = coe(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the domain corpora are not beside this checkout")
def test_from_real_corpora_to_a_proven_specialist(parent: Path, tmp_path: Path) -> None:
    """Nine domains in one pass, a mask of one, the specialist built and proven on text of another."""
    given = [word for name in DOMAINS for word in ("--corpus", f"{name}={CORPORA / name}.jsonl")]
    prof, mask, out = tmp_path / "prof.npz", tmp_path / "math.mask.json", tmp_path / "math.gguf"
    said = as_json("profile", "--parent", parent, *given, "--out", prof, "--max-tokens", 600, "--context", 256, *ONE)

    assert [(each["domain"], each["tokens"]) for each in said["domains"]] == [(name, 600) for name in DOMAINS]
    assert read_profile(prof).domain("law").routed_tokens.sum() == 600 * 4 * 2
    assert prof.with_suffix(".report.html").is_file()

    as_json("mask", "--profile", prof, "--domain", "math", "--keep", 8, "--out", mask)
    as_json("build", "--parent", parent, "--mask", mask, "--out", out)
    verified = ("verify", "--parent", parent, "--mask", mask, "--specialist", out)
    said = as_json(*verified, "--text", CORPORA / "economics.jsonl", "--max-tokens", 600, *ONE)
    assert said["is_well"]
    assert said["proof"]["aligned"]["exact_tokens"] == said["proof"]["aligned"]["tokens"] == 600
    assert out.with_suffix(".verify.report.html").is_file()


def test_a_killed_run_goes_on_where_its_state_was_saved(parent: Path, corpus: Path, tmp_path: Path) -> None:
    """kill -9 in the middle, the same command again: the same bytes as without, and no litter."""

    def command(out: Path) -> list[str]:
        options = f"--parent {parent} --corpus a={corpus} --corpus b={corpus} --out {out} --flush-seconds 0 --no-report"
        return [sys.executable, "-m", "gateway.cli", "profile", *options.split(), "--threads", "1", "--json"]

    whole, broken = tmp_path / "whole" / "p.npz", tmp_path / "broken" / "p.npz"
    for path in (whole, broken):
        path.parent.mkdir()
    subprocess.run(command(whole), cwd=REPOSITORY, check=True, capture_output=True)
    state = broken.with_name("p.npz.partial")
    with subprocess.Popen(command(broken), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while not state.exists():
            try:
                run.wait(timeout=0.005)
                pytest.fail("the run ended before its state was saved")
            except subprocess.TimeoutExpired:
                continue
        run.kill()
    assert state.exists()
    assert not broken.exists()

    done = subprocess.run(command(broken), cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["resumed"] is True
    assert broken.read_bytes() == whole.read_bytes()
    assert [path.name for path in broken.parent.iterdir()] == ["p.npz"]


def test_until_stable_reports_its_curve(parent: Path, corpus: Path, tmp_path: Path) -> None:
    """An easy rule is satisfied before the corpus ends, a hard one not at all, and both say so."""
    options = ("profile", "--parent", parent, "--corpus", f"a={corpus}", "--until-stable", "--increment", 500, *ONE)
    easy = as_json(*options, "--out", tmp_path / "easy.npz", "--jaccard", 0.2)["domains"][0]
    hard = as_json(*options, "--out", tmp_path / "hard.npz", "--jaccard", 1.5)["domains"][0]

    assert (easy["settled"], hard["settled"]) == (True, False)
    assert easy["tokens"] < hard["tokens"]
    assert easy["state"]["jaccard_low"] <= easy["state"]["jaccard"] <= easy["state"]["jaccard_high"]
    captions = [each.get("caption") for each in json.loads((tmp_path / "easy.report.json").read_text())["sections"]]
    assert "Stability of the mask" in captions


def test_a_table_is_printed_for_people(parent: Path, corpus: Path, tmp_path: Path) -> None:
    """Units and intervals in the terminal, without a report if none is wanted."""
    out = tmp_path / "p.npz"
    done = coe(
        "profile", "--parent", parent, "--corpus", f"a={corpus}", "--out", out, "--max-tokens", 900, "--no-report"
    )

    assert done.exit_code == 0, done.stderr
    assert "entropy, nats" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "p.npz", "parent.gguf"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--corpus": "math"}, "DOMAIN=FILE"),
        ({"--corpus": "a=missing.jsonl"}, "missing.jsonl"),
        ({"--parent": "missing.gguf"}, "missing.gguf"),
        ({"--context": "1"}, "context"),
        ({"--generate": "5000"}, "generate"),
        ({"--max-tokens": "0"}, "max-tokens"),
        ({"--until-stable": "", "--keep": "99"}, "keep"),
        ({"--no-contributions": "", "--signal": "contribution"}, "signal"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    parent: Path, corpus: Path, tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    """The line names what has to change, and nothing is written."""
    options = {"--parent": str(parent), "--corpus": f"a={corpus}", "--out": str(tmp_path / "p.npz")} | changes
    done = coe("profile", *[word for pair in options.items() for word in pair if word])

    assert done.exit_code == 2
    assert done.stderr.startswith("coe: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not (tmp_path / "p.npz").exists()


def test_a_dense_parent_is_refused(corpus: Path, tmp_path: Path) -> None:
    """There are no gates to watch."""
    dense = write_pico_llama(tmp_path / "dense.gguf")
    done = coe("profile", "--parent", dense, "--corpus", f"a={corpus}", "--out", tmp_path / "p.npz")

    assert done.exit_code == 2
    assert "dense" in done.stderr


@pytest.fixture
def specialist(parent: Path, tmp_path: Path) -> tuple[Path, list[object]]:
    """A specialist, and the options that verify it."""
    mask, out = tmp_path / "x.mask.json", tmp_path / "x.gguf"
    mask.write_text(json.dumps({"0": [0, 3, 4, 5, 9, 11, 12, 15], "1": [1, 2, 3, 5, 8, 13, 14, 15]}))
    as_json("build", "--parent", parent, "--mask", mask, "--out", out)
    text = tmp_path / "text.txt"
    text.write_text("Some words that were held out. " * 20)
    return out, ["--parent", parent, "--mask", mask, "--specialist", out, "--text", text, *ONE]


def test_verify_proves_and_reports(specialist: tuple[Path, list[object]]) -> None:
    """A table with the verdict; the page and its data lie beside the file."""
    out, options = specialist
    done = coe("verify", *options)

    assert done.exit_code == 0, done.stderr
    assert "proven" in done.stdout
    assert "perplexity, text" in done.stdout
    assert out.with_suffix(".verify.report.html").is_file()
    assert out.with_suffix(".verify.report.json").is_file()


@pytest.mark.parametrize("role", [Role.DOWN_EXPS, Role.GATE_INP])
def test_one_wrong_byte_fails(specialist: tuple[Path, list[object]], role: Role) -> None:
    """The last bit of one number of one expert is enough; the tensor is named and the exit code is 1."""
    out, options = specialist
    tensor = layout(read_header(out)).layer(1).tensors[role]
    data = bytearray(out.read_bytes())
    data[tensor.offset(5)] ^= 1
    out.write_bytes(data)
    done = coe("verify", *options)

    assert done.exit_code == 1
    assert "NOT proven" in done.stdout
    assert tensor.info.name in done.stdout


def test_gate_rows_in_another_order_fail(specialist: tuple[Path, list[object]]) -> None:
    """Every byte is one of the parent's, and in the wrong place."""
    out, options = specialist
    gate = layout(read_header(out)).layer(0).tensors[Role.GATE_INP]
    data = bytearray(out.read_bytes())
    rows = [bytes(data[gate.offset(row) : gate.offset(row) + gate.bytes_per_expert]) for row in range(8)]
    data[gate.offset(0) : gate.offset(0) + gate.info.num_bytes] = b"".join(reversed(rows))
    out.write_bytes(data)
    done = coe("verify", *options, "--json")

    assert done.exit_code == 1
    said = json.loads(done.stdout)
    assert (said["is_well"], said["proof"]) == (False, None)


def test_a_mask_for_another_parent_is_refused(specialist: tuple[Path, list[object]], tmp_path: Path) -> None:
    """Layers that the parent does not have are wrong input, not a failed proof."""
    _, options = specialist
    other = tmp_path / "other.mask.json"
    other.write_text(json.dumps({"0": [0], "7": [1]}))
    done = coe("verify", *options, "--mask", other)

    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
