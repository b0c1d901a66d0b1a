"""What is handed to Docker, Compose, systemd, Prometheus and Grafana fits the product and itself."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]
from prometheus_client.parser import text_string_to_metric_families

from deploy import dockerfile
from gateway.observability import Metrics
from gateway.pool_metrics import PoolMetrics
from gateway.settings import Settings
from specialists.pool.status import PoolStatus
from tests.test_house import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/college.json").read_text(encoding="utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text(encoding="utf-8"))
UNIT = (DEPLOY / "systemd/college-of-experts.service").read_text(encoding="utf-8")
VARIABLES = {f"COE_{name.upper()}" for name in Settings.model_fields}
BUILT_IN_METRICS = {"up"}
FUNCTIONS = {"sum", "by", "rate", "increase", "histogram_quantile", "le"}


# ── Dockerfile ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("accel", ["cpu", "cuda"])
def test_both_images_are_built_from_bases_of_one_release(accel: str) -> None:
    """The environment made in the build stage runs under the same Python in the last one."""
    stages = dockerfile.needed(dockerfile.stages(DOCKERFILE, {"ACCEL": accel}))
    bases = {stage.name: stage.base for stage in stages}

    assert list(bases) == [f"build-{accel}", f"run-{accel}", "build", "run"]
    release = {re.sub(r"devel|runtime", "", bases[f"{name}-{accel}"]) for name in ("build", "run")}
    assert len(release) == 1
    assert all(":" in base for base in bases.values() if base not in bases)


def test_the_last_stage_installs_no_compiler_and_is_not_root() -> None:
    """What compiles stays behind; the process has a number of its own, a health check, and volumes for its state."""
    by_name = {stage.name: stage for stage in dockerfile.stages(DOCKERFILE, {"ACCEL": "cpu"})}
    last = by_name["run"]
    installed = " ".join(step.text for name in ("run-cpu", "run-cuda") for step in by_name[name].all("RUN"))

    assert not re.search(r"build-essential|\bgcc|g\+\+|cmake|\bmake\b|-dev\b", installed)
    assert (last.last("USER") or "0").split(":")[0] == "10001"
    assert "healthz" in (last.last("HEALTHCHECK") or "")
    assert dockerfile.command(last.last("ENTRYPOINT") or "") == ["coe"]
    assert {"/models", "/state"} == set(dockerfile.command(last.last("VOLUME") or ""))


def test_the_image_sets_only_variables_that_exist() -> None:
    """And keeps what is made while serving on the volume."""
    variables: dict[str, str] = {}
    for step in dockerfile.stages(DOCKERFILE, {})[-1].all("ENV"):
        variables |= dockerfile.environment(step, {"PATH": "/bin"})

    assert {name for name in variables if name.startswith("COE_")} <= VARIABLES
    assert variables["COE_HOME"] == "/state"
    assert variables["PATH"] == "/opt/coe/bin:/bin"


@pytest.mark.parametrize(
    ("text", "instructions"),
    [
        ("FROM a AS b\nRUN x \\\n  && y\n", [("FROM", "a AS b", 1), ("RUN", "x && y", 2)]),
        ("# c\nFROM a\n\nRUN x \\\n# between\n y", [("FROM", "a", 2), ("RUN", "x y", 4)]),
        ('CMD ["a", "b"]', [("CMD", '["a", "b"]', 1)]),
    ],
)
def test_a_dockerfile_is_read_as_docker_reads_it(text: str, instructions: list[tuple[str, str, int]]) -> None:
    """Continuations are joined, comments vanish, also between them."""
    assert [(each.keyword, each.text, each.line) for each in dockerfile.instructions(text)] == instructions


def test_an_instruction_that_is_not_understood_is_refused() -> None:
    """Rather than passed over, which would prove something else."""
    with pytest.raises(ValueError, match="ADD"):
        list(dockerfile.instructions("FROM a\nADD b c"))


def test_variables_are_filled_in_as_given_or_by_default() -> None:
    """An ARG before the first stage decides about FROM; only the stages that are needed are built."""
    text = "ARG A=x\nFROM one AS x\nFROM two AS y\nFROM ${A} AS last\nCOPY --from=y /a /b\n"

    assert [stage.name for stage in dockerfile.needed(dockerfile.stages(text, {}))] == ["x", "y", "last"]
    assert [stage.name for stage in dockerfile.needed(dockerfile.stages(text, {"A": "y"}))] == ["y", "last"]


# ── Compose ──────────────────────────────────────────────────────────────────


def test_compose_opens_ports_to_this_machine_alone() -> None:
    """Unless the operator says otherwise; nobody's dashboard is on the street by default."""
    ports = [port for service in COMPOSE["services"].values() for port in service["ports"]]

    assert all(port.startswith(("${COE_BIND:-127.0.0.1}:", "127.0.0.1:")) for port in ports)


def test_compose_reserves_a_gpu_and_keeps_state_on_volumes() -> None:
    """One NVIDIA GPU for the GPU gateway; weights and state outlive a container; each volume is declared."""
    gpu = COMPOSE["services"]["college-gpu"]
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    named = [volume.split(":")[0] for service in COMPOSE["services"].values() for volume in service["volumes"]]

    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert gpu["volumes"] == ["models:/models", "state:/state"]
    assert {name for name in named if not name.startswith(".")} == set(COMPOSE["volumes"])
    assert [name for name in named if name.startswith(".") and not (REPOSITORY / name).is_dir()] == []


def test_monitoring_is_optional() -> None:
    """`docker compose up` starts the CPU gateway and nothing else; images of others are pinned."""
    started = [name for name, service in COMPOSE["services"].items() if "profiles" not in service]
    others = [service["image"] for service in COMPOSE["services"].values() if "build" not in service]

    assert started == ["college"]
    assert all(re.search(r":v?\d+\.\d+\.\d+$", image) for image in others)


def test_a_container_is_given_more_time_to_stop_than_answers_get() -> None:
    """Docker and systemd kill only after the gateway has had its grace."""
    grace = Settings.model_fields["shutdown_grace_seconds"].default
    stop_seconds = re.search(r"^TimeoutStopSec=(\d+)$", UNIT, flags=re.MULTILINE)

    assert int(COMPOSE["services"]["college"]["stop_grace_period"].removesuffix("s")) >= grace + 2
    assert stop_seconds is not None
    assert int(stop_seconds[1]) >= grace + 2


# ── systemd ──────────────────────────────────────────────────────────────────


def test_the_unit_names_what_is_there() -> None:
    """Its settings exist, its command is ours, and a bad setting does not make it restart for ever."""
    given = set(re.findall(r"\b(COE_[A-Z_]+)=", UNIT))
    sections = re.findall(r"^\[(\w+)\]$", UNIT, flags=re.MULTILINE)

    assert given <= VARIABLES
    assert sections == ["Unit", "Service", "Install"]
    assert re.search(r"^ExecStart=\S+/\.venv/bin/coe serve$", UNIT, flags=re.MULTILINE)
    assert "RestartPreventExitStatus=2" in UNIT


# ── Prometheus and Grafana ───────────────────────────────────────────────────


@pytest.fixture(scope="module")
def samples() -> set[str]:
    """The names of all samples that a gateway which has done everything once would show."""
    metrics = Metrics(["a"])
    metrics.watch_footprints(lambda: {"a": 1.0})
    metrics.registry.register(PoolMetrics(lambda: PoolStatus(budget_bytes=1, used_bytes=0, engines=(), waiting=0)))
    families = list(text_string_to_metric_families(metrics.render().decode()))
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
    return {family.name + suffix for family in families for suffix in suffixes.get(family.type, [])}


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for group in ALERTS["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def names_in(expression: str) -> set[str]:
    """The metrics an expression reads: its words outside labels, ranges, groupings and functions."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\bby \([^)]*\)|\d[\w.]*", " ", expression)
    return set(re.findall(r"[a-z_]\w*", bare)) - FUNCTIONS - BUILT_IN_METRICS


def test_every_metric_that_is_shown_or_watched_exists(samples: set[str]) -> None:
    """In our registry, with the suffix that Prometheus gives its kind."""
    assert {name for expression in expressions() for name in names_in(expression)} - samples == set()


def test_labels_that_are_grouped_by_exist() -> None:
    """So that no graph is silently empty."""
    known = {"le", "job", "status", "route", "specialist", "kind", "domain", "outcome", "reason", "key", "engine"}
    used = {
        label.strip()
        for expression in expressions()
        for found in re.findall(r"by \(([^)]*)\)|\{([^}]*)\}", expression)
        for part in found
        for label in re.findall(r"\w+(?==|!=|=~|,|$|\s*$)", part)
    }

    assert used <= known | {"completion", "ended", "evicted", "college"}


def test_every_kind_of_metric_is_shown(samples: set[str]) -> None:
    """The dashboard leaves out nothing that the gateway counts."""
    shown = {name for expression in expressions() for name in names_in(expression)}
    stems = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in shown}
    counted = {re.sub(r"_(bucket|sum|count|total|created)$", "", name) for name in samples}

    assert counted - stems <= {"coe_redrawn_first_tokens", "coe_engine_bytes"}


def test_the_dashboard_is_one_that_grafana_provisions() -> None:
    """Panels lie beside each other, have numbers of their own, and ask the provisioned data source."""
    provisioned = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    [source] = provisioned["datasources"]
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len(ids) == len(set(ids))
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}


def test_the_scraper_reads_the_rules_and_asks_the_services_that_there_are() -> None:
    """Targets are services of the compose file on the port they listen on; each alert says what to do."""
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    targets = config["scrape_configs"][0]["static_configs"][0]["targets"]
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]

    assert config["rule_files"] == [Path("alerts.yml").name]
    assert {target.partition(":")[0] for target in targets} <= set(COMPOSE["services"])
    assert {target.partition(":")[2] for target in targets} == {"8000"}
    assert all(rule["annotations"]["summary"] and rule["annotations"]["mend"] for rule in rules)
