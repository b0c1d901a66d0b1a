"""The commands as a person or a program calls them, on real files."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.pull import pull_weights
from modelfiles.errors import DownloadFailed
from modelfiles.hub import Progress
from specialists.errors import UnknownSpecialist
from tests.pico import write_pico_gemma

MIB = 1024**2

COLLEGE = """
[college]
name = "pico"
default = "pico-general:f32"

[[specialist]]
tag = "pico-general:f32"
domains = ["general"]
model = "pico.gguf"
context = 512

[[specialist]]
tag = "pico-math:f32"
domains = ["math", "physics"]
model = "pico.gguf"
context = 512

[[specialist]]
tag = "pico-law:f32"
domains = ["law"]
model = "nowhere.gguf"
"""


@pytest.fixture
def college(tmp_path: Path) -> Path:
    """Two specialists that share an engine, and one without weights."""
    write_pico_gemma(tmp_path / "pico.gguf")
    path = tmp_path / "college.toml"
    path.write_text(COLLEGE)
    return path


def coe(*arguments: object, env: Mapping[str, str | None] | None = None, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=env, input=stdin)


def told(*arguments: object) -> Any:
    """What a command that succeeds says as JSON."""
    result = coe(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_help_lists_every_command() -> None:
    """`coe --help` shows the commands that this package promises."""
    text = coe("--help").output

    assert all(name in text for name in ("serve", "chat", "models", "doctor", "plan", "pull"))


def test_models_says_what_each_specialist_is(college: Path) -> None:
    """Tags, domains, sizes, the default, and why one cannot be served."""
    general, math, law = told("models", "--college", college)

    assert (general["tag"], general["default"], general["available"]) == ("pico-general:f32", True, True)
    assert (math["domains"], math["context_tokens"]) == (["math", "physics"], 512)
    assert general["size_bytes"] == (college.parent / "pico.gguf").stat().st_size
    assert (law["available"], law["size_bytes"]) == (False, None)
    assert "nowhere.gguf" in law["unavailable"]


def test_tables_hold_what_the_json_holds(college: Path) -> None:
    """People see every tag unbroken, and the reason of the one that is out of reach."""
    for command in ("models", "plan"):
        shown = coe(command, "--college", college).stdout
        assert all(tag in shown for tag in ("pico-general:f32", "pico-math:f32", "pico-law:f32"))
        assert "nowhere.gguf" in shown


def test_models_says_what_a_specialist_gets_otherwise_than_asked_for(college: Path) -> None:
    """A context beyond the model's own is in the table and in the JSON."""
    college.write_text(college.read_text().replace("context = 512", "context = 99999"))
    general, *_ = told("models", "--college", college)

    assert general["context_tokens"] == 4096
    assert general["notes"][0].startswith("context 99999 is more than the 4096 tokens")
    assert "context 99999 is more than the 4096 tokens" in coe("models", "--college", college).stdout


def test_plan_counts_a_shared_engine_once(college: Path) -> None:
    """Specialists with the same weights are one engine with one footprint, judged against the budget."""
    roomy = told("plan", "--college", college, "--memory-budget", "8GiB")
    tight = told("plan", "--college", college, "--memory-budget", "1MiB")
    shared, missing = roomy["engines"]

    assert shared["specialists"] == ["pico-general:f32", "pico-math:f32"]
    assert 0 < shared["footprint_bytes"] < 512 * MIB
    assert shared["footprint_bytes"] == sum(
        shared["footprint"][part]
        for part in ("weights_bytes", "full_cache_bytes", "sliding_cache_bytes", "compute_bytes", "process_bytes")
    )
    assert (shared["fits"], tight["engines"][0]["fits"]) == (True, False)
    assert (missing["footprint_bytes"], missing["fits"]) == (None, None)
    assert (roomy["budget_bytes"], tight["budget_bytes"]) == (8 * 1024 * MIB, MIB)


def test_doctor_exits_well_only_when_nothing_failed(college: Path) -> None:
    """A specialist without weights is a warning; a default that cannot ever fit is a failure."""
    well = coe("doctor", "--college", college, "--port", 0, "--json")
    ill = coe("doctor", "--college", college, "--port", 0, "--memory-budget", "1MiB", "--json")

    def statuses(result: Result) -> dict[str, str]:
        return {finding["name"]: finding["status"] for finding in json.loads(result.stdout)}

    assert (well.exit_code, statuses(well)["weights of pico-law:f32"], statuses(well)["memory"]) == (0, "warn", "ok")
    assert (ill.exit_code, statuses(ill)["memory"]) == (1, "fail")


@pytest.mark.parametrize(
    ("arguments", "env", "words"),
    [
        (["models", "--college", "nowhere.toml"], {}, ["nowhere.toml", "--college"]),
        (["plan", "--memory-budget", "much"], {}, ["memory_budget", "'much'", "15GiB"]),
        (["plan"], {"COE_MEMORY_BUDGET": "much"}, ["COE_MEMORY_BUDGET", "'much'"]),
        (["serve", "--port", "99999"], {}, ["port", "65535"]),
        (["serve"], {"COE_MAX_QUEUE": "many"}, ["COE_MAX_QUEUE", "integer"]),
        (["pull", "--college", "nowhere.toml"], {}, ["nowhere.toml"]),
    ],
)
def test_what_a_person_can_mend_is_one_line_and_exit_code_2(
    arguments: list[str], env: dict[str, str], words: list[str]
) -> None:
    """The line names the field and the mend; there is never a traceback."""
    cleared: dict[str, str | None] = {"COE_COLLEGE": None, "COE_MEMORY_BUDGET": None, "COE_PORT": None}
    result = coe(*arguments, env=cleared | env)

    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert all(word in result.stderr for word in words)


def test_serve_refuses_a_bad_college_before_it_listens() -> None:
    """As a process: one line that names the file, no traceback, exit code 2."""
    command = [sys.executable, "-m", "gateway.cli", "serve", "--port", "0", "--college", "nowhere.toml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere.toml" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_option_wins_over_the_environment(college: Path) -> None:
    """COE_MEMORY_BUDGET holds where no option is given."""
    env = {"COE_MEMORY_BUDGET": "3GiB", "COE_COLLEGE": str(college)}

    assert json.loads(coe("plan", "--json", env=env).stdout)["budget_bytes"] == 3 * 1024 * MIB
    both = coe("plan", "--json", "--memory-budget", "5GiB", env=env)
    assert json.loads(both.stdout)["budget_bytes"] == 5 * 1024 * MIB


class _College(http.server.BaseHTTPRequestHandler):
    """Lists one model and answers every chat with one word."""

    def do_GET(self) -> None:
        self._send("application/json", json.dumps({"data": [{"id": "pico:f32", "owned_by": "coe"}]}).encode())

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = {"choices": [{"delta": {"content": f"{asked['model']} hears."}, "finish_reason": "stop"}]}
        self._send("text/event-stream", f"data: {json.dumps(said)}\n\ndata: [DONE]\n\n".encode())

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Standard error belongs to the command under test."""


@contextmanager
def listening() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _College) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_models_can_ask_a_running_gateway() -> None:
    """With --url the list is what the gateway serves; an address may end in /v1."""
    with listening() as url:
        assert told("models", "--url", f"{url}/v1")[0]["id"] == "pico:f32"
        assert "pico:f32" in coe("models", "--url", url).stdout


def test_chat_works_in_a_pipe() -> None:
    """One line in, one answer out; the tag that was named is the one that is asked."""
    with listening() as url:
        result = coe("chat", "pico:f32", "--url", url, stdin="hello\n")

    assert (result.exit_code, result.stdout) == (0, "pico:f32 hears.\n")


def test_no_gateway_is_said_and_is_a_failure() -> None:
    """Exit code 1, and the mend."""
    with listening() as url:
        pass
    for result in (coe("chat", "--url", url, stdin="hello\n"), coe("models", "--url", url)):
        assert result.exit_code == 1
        assert "coe serve" in result.stderr


class RecordingHub:
    """A hub with one repository; `pulled` says what was fetched."""

    def __init__(self, weights: Path, *, online: bool = True) -> None:
        self.weights = weights
        self.online = online
        self.pulled: list[str] = []

    def cached_files(self, repo: str) -> Mapping[str, Path]:
        return {"model-Q4_K_M.gguf": self.weights} if repo in self.pulled else {}

    def list_files(self, repo: str) -> Sequence[str]:
        if not self.online:
            raise DownloadFailed(f"hf.co/{repo} could not be listed: no network")
        return ["model-Q4_K_M.gguf"]

    def download(self, repo: str, files: Sequence[str], on_progress: Progress) -> list[Path]:
        self.pulled.append(repo)
        on_progress(50, 100)
        on_progress(100, 100)
        return [self.weights]


HUB_COLLEGE = """
[college]
name = "hub"
default = "a:q4"

[[specialist]]
tag = "a:q4"
model = "hf.co/owner/a"

[[specialist]]
tag = "again:q4"
model = "hf.co/owner/a"

[[specialist]]
tag = "b:q4"
model = "hf.co/owner/b"
"""


@pytest.fixture
def hub_college(tmp_path: Path) -> Path:
    path = tmp_path / "college.toml"
    path.write_text(HUB_COLLEGE)
    return path


def test_pull_fetches_each_repository_once(hub_college: Path, tmp_path: Path) -> None:
    """All of them when none is named, only the named ones otherwise; shared weights are not fetched twice."""
    weights = write_pico_gemma(tmp_path / "pico.gguf")
    everything, one = RecordingHub(weights), RecordingHub(weights)
    quiet = Console(quiet=True)

    assert pull_weights(hub_college, [], quiet, hub=everything) == []
    assert pull_weights(hub_college, ["b:q4"], quiet, hub=one) == []
    assert (everything.pulled, one.pulled) == (["owner/a", "owner/b"], ["owner/b"])


def test_pull_without_a_network_names_every_failure(hub_college: Path, tmp_path: Path) -> None:
    """Each repository that could not be had is named, with what can be done; an unknown tag is refused."""
    hub = RecordingHub(tmp_path / "pico.gguf", online=False)
    failures = pull_weights(hub_college, [], Console(quiet=True), hub=hub)

    assert ["hf.co/owner/a" in failures[0], "hf.co/owner/b" in failures[1]] == [True, True]
    assert all("online" in failure for failure in failures)
    with pytest.raises(UnknownSpecialist):
        pull_weights(hub_college, ["c:q4"], Console(quiet=True), hub=hub)


def test_the_commands_stay_quiet_about_what_they_report(college: Path) -> None:
    """As a process: standard error is empty although a specialist's weights are missing, for the table says so."""
    command = [sys.executable, "-m", "gateway.cli", "models", "--college", str(college)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stderr == ""
    assert "pico-law:f32" in done.stdout
