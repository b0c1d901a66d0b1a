"""Keys are kept as digests, compared in constant time, and may change while the gateway runs."""

import ast
import inspect
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway import keys
from gateway.app import create_app
from gateway.auth import OPERATOR, KeyDesk
from gateway.cli import app as coe
from gateway.keys import ApiKey, KeyFile, KeyFileError, digest_of, find_key, new_secret
from gateway.observability import Metrics
from gateway.services import Services
from tests.fakes import FakeClock, Script
from tests.gateway.college import FakeCatalogue, FakePool, chat, client_of, settings

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


def key(name: str, secret: str, **fields: Any) -> ApiKey:
    return ApiKey(name=name, sha256=digest_of(secret.encode()), **fields)


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


class House:
    """A gateway with a file of keys and a clock of its own."""

    def __init__(self, folder: Path, *given: ApiKey, api_key: str | None = None, pool: FakePool | None = None) -> None:
        self.file = KeyFile(folder / "keys.json")
        for each in given:
            self.file.add(each)
        self.clock = FakeClock()
        self.pool = pool or FakePool()
        catalogue = FakeCatalogue()
        self.metrics = Metrics(catalogue.specialists)
        self.desk = KeyDesk(api_key=api_key, file=self.file, observer=self.metrics, clock=self.clock).open()
        self.app = create_app(
            Services(
                settings=settings(api_key=api_key), catalogue=catalogue, pool=self.pool, metrics=self.metrics,
                keys=self.desk,
            )
        )  # fmt: skip


# ── the keys themselves ──────────────────────────────────────────────────────


def test_a_secret_is_found_among_many_and_no_other_is() -> None:
    """By its digest, wherever it stands."""
    known = [key(f"k{number}", f"secret-{number}") for number in range(20)]

    assert find_key(known, b"secret-13") is known[13]
    assert find_key(known, b"secret-20") is None
    assert find_key(known, b"") is None
    assert find_key([], b"secret-0") is None


def test_comparing_takes_as_long_for_a_hit_as_for_a_miss() -> None:
    """Structurally: digests go through compare_digest alone, and the loop has no way out before its end."""
    [function] = ast.parse(inspect.getsource(keys.find_key)).body
    called = {
        node.func.attr for node in ast.walk(function) if isinstance(node, ast.Call) and hasattr(node.func, "attr")
    }
    compared = [node for node in ast.walk(function) if isinstance(node, ast.Compare)]
    exits = [node for node in ast.walk(function) if isinstance(node, ast.Break | ast.Continue)]
    returns = [node for node in ast.walk(function) if isinstance(node, ast.Return)]

    assert "compare_digest" in called
    assert (compared, exits, len(returns)) == ([], [], 1)


def test_secrets_are_long_and_never_alike() -> None:
    """256 random bits behind a prefix that scanners for leaked secrets can know."""
    made = {new_secret() for _ in range(100)}

    assert len(made) == 100
    assert all(secret.startswith("sk-coe-") and len(secret) >= 50 for secret in made)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": "../etc"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a" * 65}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"sha256": "0" * 63}, "sha256"),
        ({"priority": 11}, "priority"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"tokens_per_minute": -1}, "tokens_per_minute"),
    ],
)
def test_what_is_no_key_is_refused_by_field(fields: dict[str, Any], named: str) -> None:
    """The error says which field and what it may be."""
    with pytest.raises(ValueError, match=named):
        ApiKey(**({"name": "ann", "sha256": "0" * 64} | fields))


# ── the file ─────────────────────────────────────────────────────────────────


def test_the_file_holds_no_secret_and_is_its_owners_alone(tmp_path: Path) -> None:
    """Digests only, mode 600, and what was added is what is read."""
    file = KeyFile(tmp_path / "home" / "keys.json")
    file.add(key("ann", "hunter2", priority=3, requests_per_minute=60))
    file.add(key("bob", "swordfish"))

    assert "hunter2" not in file.path.read_text()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [each.name for each in file.read()] == ["ann", "bob"]
    file.remove("ann")
    assert [each.name for each in file.read()] == ["bob"]


def test_names_are_taken_once_and_removed_only_if_there(tmp_path: Path) -> None:
    """Both refusals name the key."""
    file = KeyFile(tmp_path / "keys.json")
    file.add(key("ann", "one"))

    with pytest.raises(KeyFileError, match="ann"):
        file.add(key("ann", "two"))
    with pytest.raises(KeyFileError, match="bob"):
        file.remove("bob")


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        '{"keys": [{"name": "ann", "sha256": "short"}]}',
        json.dumps({"keys": [{"name": "ann", "sha256": "0" * 64, "role": "admin"}]}),
        json.dumps({"keys": [{"name": name, "sha256": "0" * 64} for name in ("ann", "bob")]}),
        '{"keys": "all"}',
    ],
)
def test_a_file_that_is_not_ours_is_refused_whole(tmp_path: Path, text: str) -> None:
    """No key of a damaged file counts, and the message names the file."""
    (tmp_path / "keys.json").write_text(text)

    with pytest.raises(KeyFileError, match=r"keys\.json"):
        KeyFile(tmp_path / "keys.json").read()


# ── the gateway ──────────────────────────────────────────────────────────────


async def test_each_key_opens_and_the_log_and_metrics_have_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Several people, one gateway; what they used is counted by name, and no secret is ever written."""
    house = House(tmp_path, key("ann", "one"), key("bob", "two"), api_key="own")
    with caplog.at_level("INFO", logger="gateway.access"):
        async with client_of(house.app) as client:
            for secret in ("one", "two", "own"):
                assert (await client.post(CHAT, json=chat(), headers=bearer(secret))).status_code == 200
            assert (await client.post(CHAT, json=chat(), headers=bearer("three"))).status_code == 401
            metrics = (await client.get("/metrics")).text

    names = [getattr(record, "fields", {})["key"] for record in caplog.records if record.name == "gateway.access"]
    assert [name for name in names if name] == ["ann", "bob", OPERATOR]
    assert 'coe_key_tokens_total{key="ann",kind="completion"} 2.0' in metrics
    assert 'coe_key_requests_total{key="bob",outcome="admitted"} 1.0' in metrics
    assert "one" not in {word for record in caplog.records for word in record.getMessage().split()}


async def test_keys_come_and_go_while_the_gateway_runs(tmp_path: Path) -> None:
    """Within a second, without a restart; once keys were there, none left means that nobody may ask."""
    house = House(tmp_path)
    async with client_of(house.app) as client:
        assert (await client.get("/v1/models")).status_code == 200
        house.file.add(key("ann", "one"))
        house.clock.advance(1)
        assert (await client.get("/v1/models")).status_code == 401
        assert (await client.get("/v1/models", headers=bearer("one"))).status_code == 200
        house.file.remove("ann")
        house.clock.advance(1)
        assert (await client.get("/v1/models", headers=bearer("one"))).status_code == 401
        assert (await client.get("/v1/models")).status_code == 401


async def test_a_file_damaged_while_serving_changes_nothing(tmp_path: Path) -> None:
    """The keys stay as they were: neither locked out nor thrown open."""
    house = House(tmp_path, key("ann", "one"))
    async with client_of(house.app) as client:
        house.file.path.write_text("{")
        house.clock.advance(1)

        assert (await client.get("/v1/models", headers=bearer("one"))).status_code == 200
        assert (await client.get("/v1/models")).status_code == 401


async def test_a_key_has_so_many_requests_a_minute(tmp_path: Path) -> None:
    """The next is a 429 in OpenAI's shape with Retry-After, and goes through once that has passed; reading is free."""
    house = House(tmp_path, key("ann", "one", requests_per_minute=2))
    async with client_of(house.app) as client:
        first, second, third = [await client.post(CHAT, json=chat(), headers=bearer("one")) for _ in range(3)]
        read = await client.get("/v1/models", headers=bearer("one"))
        in_ollamas_words = await client.post("/api/chat", json=chat(stream=False), headers=bearer("one"))
        house.clock.advance(float(third.headers["retry-after"]))
        fourth = await client.post(CHAT, json=chat(), headers=bearer("one"))

    assert [each.status_code for each in (first, second, third, read, fourth)] == [200, 200, 429, 200, 200]
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"] == "30s"
    assert third.json()["error"]["code"] == "rate_limit_exceeded"
    assert third.headers["retry-after"] == "30"
    assert (in_ollamas_words.status_code, type(in_ollamas_words.json()["error"])) == (429, str)
    assert len(house.pool.submitted) == 3


async def test_a_key_has_so_many_tokens_a_minute(tmp_path: Path) -> None:
    """Prompts and answers count when an answer ends, streamed or not; a debt is waited for."""
    pool = FakePool(Script(prompt_tokens=100, completion_tokens=50))
    house = House(tmp_path, key("ann", "one", tokens_per_minute=120), key("bob", "two"), pool=pool)
    async with client_of(house.app) as client:
        first = await client.post(CHAT, json=chat(stream=True), headers=bearer("one"))
        second = await client.post(CHAT, json=chat(), headers=bearer("one"))
        others = await client.post(CHAT, json=chat(), headers=bearer("two"))
        house.clock.advance(float(second.headers["retry-after"]))
        third = await client.post(CHAT, json=chat(), headers=bearer("one"))

    assert [each.status_code for each in (first, second, others, third)] == [200, 429, 200, 200]
    assert second.headers["x-ratelimit-remaining-tokens"] == "0"
    assert second.headers["retry-after"] == "16"  # 31 tokens at 2 a second
    assert "x-ratelimit-limit-tokens" not in others.headers


async def test_many_choices_are_all_paid_for(tmp_path: Path) -> None:
    """Generations that run in tasks of their own are still the caller's."""
    house = House(tmp_path, key("ann", "one"), pool=FakePool(Script(prompt_tokens=10, completion_tokens=5)))
    async with client_of(house.app) as client:
        await client.post(CHAT, json=chat(n=3), headers=bearer("one"))
        metrics = (await client.get("/metrics")).text

    assert 'coe_key_tokens_total{key="ann",kind="completion"} 15.0' in metrics


async def test_a_keys_priority_reaches_the_engine(tmp_path: Path) -> None:
    """Each generation carries it; without a key it is 0."""
    house = House(tmp_path, key("ann", "one", priority=7), key("bob", "two"))
    async with client_of(house.app) as client:
        for secret in ("one", "two"):
            await client.post(CHAT, json=chat(), headers=bearer(secret))

    assert [request.priority for request in house.pool.submitted] == [7, 0]


# ── the command ──────────────────────────────────────────────────────────────


def test_the_command_makes_lists_and_removes_keys(tmp_path: Path) -> None:
    """The key is printed once, opens, is listed without itself, and is gone when removed."""
    file = str(tmp_path / "keys.json")
    runner = CliRunner()
    made = runner.invoke(coe, ["keys", "add", "ann", "--priority", "2", "--tokens-per-minute", "9000", "--file", file])
    listed = runner.invoke(coe, ["keys", "list", "--json", "--file", file])
    shown = runner.invoke(coe, ["keys", "list", "--file", file])
    secret = made.stdout.strip()

    assert (made.exit_code, listed.exit_code, shown.exit_code) == (0, 0, 0)
    found = find_key(KeyFile(tmp_path / "keys.json").read(), secret.encode())
    assert found is not None
    assert (found.name, found.priority, found.tokens_per_minute) == ("ann", 2, 9000)
    assert json.loads(listed.stdout)[0]["name"] == "ann"
    assert "sha256" not in listed.stdout
    assert secret not in listed.stdout + shown.stdout
    assert runner.invoke(coe, ["keys", "remove", "ann", "--file", file]).exit_code == 0
    assert KeyFile(tmp_path / "keys.json").read() == ()


@pytest.mark.parametrize("arguments", [["add", "a b"], ["add", "ann", "--priority", "99"], ["remove", "nobody"]])
def test_wrong_usage_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str]) -> None:
    """It names what is wrong."""
    done = CliRunner().invoke(coe, ["keys", *arguments, "--file", str(tmp_path / "keys.json")])

    assert done.exit_code == 2
    assert done.stderr.startswith("coe: ")
    assert done.stderr.count("\n") == 1
