"""`coe build` as a person calls it: what is printed, the exit codes, and that nothing is left behind."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from specialists.builder.staging import staged
from specialists.builder.terminal import ended_cleanly
from specialists.expert_mask import ExpertMask, write_mask
from tests.pico import PACKED, write_pico_gemma


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """The options that name a parent and a mask for it."""
    parent, mask = write_pico_gemma(tmp_path / "parent.gguf", PACKED), tmp_path / "m.mask.json"
    write_mask(ExpertMask(kept={0: (0, 2), 1: (1, 7)}, num_experts=8, domain="math"), mask)
    return ["--parent", str(parent), "--mask", str(mask)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "built").mkdir()
    return tmp_path / "built" / "math.gguf"


def coe(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_it_builds(inputs: list[str], out: Path) -> None:
    """A table for people, with sizes in units and the digest."""
    done = coe("build", *inputs, "--out", out)

    assert done.exit_code == 0, done.stderr
    assert "2 of 8 kept, 2 used, 2 layers" in done.stdout
    assert out.is_file()


def test_json_is_the_manifest(inputs: list[str], out: Path) -> None:
    """Programs get on standard output what stands in the manifest."""
    done = coe("build", *inputs, "--out", out, "--mode", "zero", "--tag", "pico-math:q4", "--json")

    said = json.loads(done.stdout)
    assert said == json.loads(out.with_suffix(".manifest.json").read_text())
    assert (said["mode"], said["tag"]) == ("zero", "pico-math:q4")


def test_a_plain_map_of_dropped_ids(inputs: list[str], out: Path) -> None:
    """Published drop maps are taken as they are, once their meaning is said."""
    plain = out.parent.parent / "map.json"
    plain.write_text('{"0": [0, 1, 2], "1": [5, 6, 7]}')
    refused = coe("build", *inputs[:2], "--mask", plain, "--out", out)
    done = coe("build", *inputs[:2], "--mask", plain, "--ids", "dropped", "--out", out, "--json")

    assert (refused.exit_code, done.exit_code) == (2, 0)
    assert json.loads(done.stdout)["experts"]["kept"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x.bin"], "must end in .gguf"),
        (["--out", "x.gguf", "--tag", "no tag"], "--tag: 'no tag' is not a name"),
        (["--out", "x.gguf", "--tag", "auto"], "--tag: 'auto' is what clients write"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], message: str, inputs: list[str]) -> None:
    """Exit code 2, and the option that is meant."""
    done = coe("build", *inputs, *arguments)

    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def limited(num_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


def test_a_disk_that_takes_no_more_leaves_nothing_behind(inputs: list[str], out: Path) -> None:
    """When a write fails for want of room: exit code 1, one line, an empty folder."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "build", *inputs, "--out", str(out)],
        capture_output=True, text=True, check=False, preexec_fn=lambda: limited(300_000),
    )  # fmt: skip

    assert done.returncode == 1, done.stderr
    assert "coe: File too large" in done.stderr
    assert list(out.parent.iterdir()) == []


def test_sigterm_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ended from outside, a command leaves as it would on Ctrl-C, so that temporary files are removed."""

    def work() -> None:
        with ended_cleanly(), staged([tmp_path / "a.gguf"]):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        work()

    assert ended.value.code == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_command_does_not_load_llama_cpp(inputs: list[str], out: Path) -> None:
    """Surgery is on bytes: a build of an ordinary model needs no llama.cpp."""
    code = f"""
import sys
from gateway.cli import app
app({["build", *inputs, "--out", str(out)]!r}, standalone_mode=False)
sys.exit("llama_cpp" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
