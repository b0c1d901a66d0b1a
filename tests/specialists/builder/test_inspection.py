"""What `coe inspect` says of models, masks and profiles."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.cli import app
from specialists.builder.histogram import DomainProfile, Profile, ProfileShape, write_profile
from specialists.builder.inspection import GgufSummary, MaskSummary, ProfileSummary, inspect, tensor_groups
from specialists.expert_mask import ExpertMask, MaskError, write_mask
from specialists.gguf_file import GgufError, read_header
from tests.pico import PACKED, PicoShape, write_pico_gemma, write_pico_llama
from tests.specialists.builder.test_imatrix import write_odd_expert


def test_a_mixture_is_summed_up(tmp_path: Path) -> None:
    """Sizes by kind add up to the tensors'; experts and their bytes are there."""
    found = inspect(write_pico_gemma(tmp_path / "m.gguf", PACKED))

    assert isinstance(found, GgufSummary)
    assert sum(group.num_bytes for group in found.groups) == found.tensor_bytes
    assert sum(group.num_tensors for group in found.groups) == len(found.tensors)
    assert {group.name: group.types for group in found.groups}["experts"] == ("F32", "Q4_K", "Q8_0")
    assert found.experts is not None
    assert (found.experts.num_experts, found.experts.num_used, found.experts.layers) == (8, 2, (0, 1))
    assert found.experts.bytes_per_expert["gate_up_exps"] == 64 * 144
    assert found.metadata["gemma4.expert_count"] == "8"
    assert found.metadata["tokenizer.ggml.tokens"] == "262 string items"


def test_a_dense_model_has_no_experts(tmp_path: Path) -> None:
    """And nothing to say about why."""
    found = inspect(write_pico_llama(tmp_path / "m.gguf"))

    assert isinstance(found, GgufSummary)
    assert (found.experts, found.not_cut_because) == (None, None)


def test_a_mixture_that_cannot_be_cut_says_why(tmp_path: Path) -> None:
    """It is shown all the same."""
    found = inspect(write_odd_expert(tmp_path / "m.gguf"))

    assert isinstance(found, GgufSummary)
    assert found.experts is None
    assert "no tensor of any" in (found.not_cut_because or "")


def test_every_tensor_is_of_one_kind(tmp_path: Path) -> None:
    """None is left over in a model whose parts we know."""
    names = {group.name for group in tensor_groups(read_header(write_pico_gemma(tmp_path / "m.gguf", PicoShape())))}

    assert "other" not in names


def test_a_mask_is_summed_up(tmp_path: Path) -> None:
    """Whatever its file is called."""
    path = tmp_path / "kept.gguf"
    write_mask(ExpertMask(kept={0: (1, 2)}, num_experts=8, domain="math"), path)

    found = inspect(path)

    assert isinstance(found, MaskSummary)
    assert (found.domain, found.num_experts, dict(found.kept)) == ("math", 8, {0: (1, 2)})


def test_a_profile_is_summed_up(tmp_path: Path) -> None:
    """Domains with their records and tokens."""
    shape = ProfileShape(layers=2, experts=4, ranks=2, replicates=3)
    domain = DomainProfile.zeros(shape, corpus="sha256:1")
    profile = Profile(layers=(0, 3), domains={"law": domain}, parent="sampled-sha256:2")
    path = tmp_path / "p.npz"
    write_profile(profile, path)

    found = inspect(path)

    assert isinstance(found, ProfileSummary)
    assert (found.layers, found.num_experts, found.num_used) == ((0, 3), 4, 2)
    assert found.domains["law"] == {"records": 0, "tokens": 0, "corpus": "sha256:1"}


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", GgufError), (b"GGUF" + bytes(60), GgufError), (b"{]", MaskError), (b"\x7fELF", GgufError)],
)
def test_anything_else_is_refused(content: bytes, error: type[Exception], tmp_path: Path) -> None:
    """By the reader of the kind that its first bytes claim."""
    path = tmp_path / "x"
    path.write_bytes(content)

    with pytest.raises(error):
        inspect(path)


def test_the_command_prints_tables(tmp_path: Path) -> None:
    """For people: names, units and the experts; each tensor only when asked for."""
    path = write_pico_gemma(tmp_path / "m.gguf", PACKED)
    short = CliRunner().invoke(app, ["inspect", str(path)])
    long = CliRunner().invoke(app, ["inspect", str(path), "--tensors"])

    assert (short.exit_code, long.exit_code) == (0, 0)
    assert "8, 2 used for each token" in short.stdout
    assert "256 × 64 × 8" not in short.stdout
    assert "256 × 64 × 8" in long.stdout


def test_the_command_prints_json(tmp_path: Path) -> None:
    """For programs: one object that says which kind it is."""
    path = write_pico_gemma(tmp_path / "m.gguf")
    done = CliRunner().invoke(app, ["inspect", str(path), "--json"])
    said = json.loads(done.stdout)

    assert (said["kind"], said["experts"]["num_experts"]) == ("gguf", 8)
    assert said["tensor_bytes"] == int(np.sum([tensor["num_bytes"] for tensor in said["tensors"]]))


def test_a_plain_map_needs_its_meaning(tmp_path: Path) -> None:
    """The command takes it from options, and says which when they are missing."""
    path = tmp_path / "ids.json"
    path.write_text('{"0": [1, 2]}')
    refused = CliRunner().invoke(app, ["inspect", str(path)])
    done = CliRunner().invoke(app, ["inspect", str(path), "--experts", "8", "--ids", "dropped"])

    assert (refused.exit_code, done.exit_code) == (2, 0)
    assert "--ids" in refused.stderr
    assert "0 3 4 5 6 7" in done.stdout


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    """With its name, and exit code 1."""
    done = CliRunner().invoke(app, ["inspect", str(tmp_path / "none.gguf")])

    assert done.exit_code == 1
    assert done.stderr.startswith("coe: ")
    assert "none.gguf: No such file" in done.stderr
    assert done.stderr.count("\n") == 1
