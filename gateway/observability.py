"""What operators see: request ids, one access line per request, and Prometheus metrics.

Each app has its own registry, so two apps in one process never share a counter. Label values come from closed sets
(route templates, statuses, the college's tags, the operator's names of keys), so that no client can make the metrics
grow. Reading them never wakes a model. It implements what the pool, the answers and the keys report to, and knows none
of them.
"""

import json
import logging
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import reply_for, respond
from gateway.lifecycle import Lifecycle
from gateway.streaming import ClientLeft
from specialists.engine.protocol import EngineSpec
from specialists.request import LoopReport, Usage

access_logger = logging.getLogger("gateway.access")
logger = logging.getLogger("gateway")

CLIENT_CLOSED_REQUEST = 499  # as nginx logs it; nobody is left to read the status
OTHERS = "(made while serving)"  # stands for all personas and pulled models, so that nobody can make metrics grow
_IN_MESSAGE = ("method", "route", "status")
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")
_WAITS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOKEN_GAPS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 5)


class Metrics:
    """The counters of one gateway; a PoolObserver, a GenerationObserver and a KeyObserver."""

    def __init__(self, specialists: Iterable[str]) -> None:
        self._known = frozenset(specialists)
        self.registry = registry = CollectorRegistry(auto_describe=True)
        self._requests = Counter(
            "coe_requests", "Requests by route, HTTP status and specialist.",
            ("route", "status", "specialist"), registry=registry,
        )  # fmt: skip
        self._tokens = Counter("coe_tokens", "Tokens by kind.", ("specialist", "kind"), registry=registry)
        self._first_token = Histogram(
            "coe_time_to_first_token_seconds", "From request to first text.",
            ("specialist",), buckets=_WAITS, registry=registry,
        )  # fmt: skip
        self._gap = Histogram(
            "coe_inter_token_seconds", "Between two texts of one answer.",
            ("specialist",), buckets=_TOKEN_GAPS, registry=registry,
        )  # fmt: skip
        self._key_requests = Counter(
            "coe_key_requests", "POST requests by API key and outcome.", ("key", "outcome"), registry=registry
        )
        self._key_tokens = Counter("coe_key_tokens", "Tokens by API key and kind.", ("key", "kind"), registry=registry)
        self._lookups = Histogram(
            "coe_lookup_seconds", "Looking up what a specialist's documents say.",
            ("specialist", "outcome"), buckets=_WAITS, registry=registry,
        )  # fmt: skip
        self._calculations = Counter(
            "coe_calculations", "Calculations made for answers.", ("specialist", "outcome"), registry=registry
        )
        by_domain = ("specialist", "domain")
        self._guarded = Counter(
            "coe_guarded_answers", "Answers watched by the loop guard, by what came of it.",
            (*by_domain, "outcome"), registry=registry,
        )  # fmt: skip
        self._loop_hits = Counter("coe_loop_hits", "Loops found in answers.", by_domain, registry=registry)
        self._rewinds = Counter("coe_rewinds", "Times an answer was taken back.", by_domain, registry=registry)
        self._discarded = Counter("coe_discarded_tokens", "Tokens taken back.", by_domain, registry=registry)
        self._redrawn = Counter(
            "coe_redrawn_first_tokens", "Answers that would have been empty and were begun once more.",
            by_domain, registry=registry,
        )  # fmt: skip
        self._queue_wait = Histogram(
            "coe_queue_wait_seconds", "From asking for a specialist to having it.", buckets=_WAITS, registry=registry
        )
        self._loads = Counter("coe_loads", "Loads by outcome.", ("outcome",), registry=registry)
        self._load_seconds = Histogram("coe_load_seconds", "Duration of loads.", buckets=_WAITS, registry=registry)
        self._unloads = Counter("coe_unloads", "Unloads by reason.", ("reason",), registry=registry)
        self._morphs = Counter(
            "coe_morphs", "Frames that became another specialist.", ("specialist",), registry=registry
        )
        self._morph_bytes = Counter("coe_morph_bytes", "Bytes that morphs have written.", registry=registry)
        self._morph_seconds = Histogram("coe_morph_seconds", "Duration of morphs.", buckets=_WAITS, registry=registry)
        self._crashes = Counter("coe_engine_crashes", "Engines that ended unasked.", registry=registry)
        self._in_flight = Gauge("coe_in_flight", "Requests being handled.", registry=registry)
        self._detached = Gauge("coe_detached_streams", "Answers being made that nobody reads.", registry=registry)
        self._recorded = Gauge("coe_resumable_bytes", "Memory of the streams that can be resumed.", registry=registry)
        self._budget = Gauge("coe_budget_bytes", "Memory that models may take together.", registry=registry)
        self._resident = Gauge("coe_resident_bytes", "Memory planned for the loaded models.", registry=registry)
        self._timed = {
            tag: (self._first_token.labels(tag), self._gap.labels(tag)) for tag in (*sorted(self._known), OTHERS)
        }  # a lookup of labels costs more than the measurement itself

    def know(self, specialists: Iterable[str]) -> None:
        """Count these by their own names from now on, beside those that are known."""
        self._known |= frozenset(specialists)
        for tag in self._known - self._timed.keys():
            self._timed[tag] = (self._first_token.labels(tag), self._gap.labels(tag))

    def watch_memory(self, budget_bytes: Callable[[], float], resident_bytes: Callable[[], float]) -> None:
        """Ask these two whenever the metrics are read."""
        self._budget.set_function(budget_bytes)
        self._resident.set_function(resident_bytes)

    def watch_footprints(self, footprints: Callable[[], Mapping[str, float]]) -> None:
        """Ask this whenever the metrics are read: bytes by specialist, of those in memory."""
        self.registry.register(_Footprints(lambda: self._by_known_name(footprints())))

    def _by_known_name(self, footprints: Mapping[str, float]) -> Mapping[str, float]:
        summed: dict[str, float] = {}
        for specialist, num_bytes in footprints.items():
            name = specialist if specialist in self._known else OTHERS
            summed[name] = summed.get(name, 0.0) + num_bytes
        return summed

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def watch_work(self, num_in_flight: Callable[[], float]) -> None:
        """Ask this whenever the metrics are read."""
        self._in_flight.set_function(num_in_flight)

    def watch_streams(self, num_detached: Callable[[], float], num_bytes: Callable[[], float]) -> None:
        """Ask these two whenever the metrics are read."""
        self._detached.set_function(num_detached)
        self._recorded.set_function(num_bytes)

    def request_ended(self, *, route: str, status: int, specialist: str) -> None:
        self._requests.labels(route, str(status), specialist if specialist in self._known else "").inc()

    def first_token(self, specialist: str, *, seconds: float) -> None:
        self._timed.get(specialist, self._timed[OTHERS])[0].observe(seconds)

    def next_token(self, specialist: str, *, seconds: float) -> None:
        self._timed.get(specialist, self._timed[OTHERS])[1].observe(seconds)

    def generated(self, specialist: str, usage: Usage) -> None:
        specialist = specialist if specialist in self._known else OTHERS
        self._tokens.labels(specialist, "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(specialist, "cached").inc(usage.cached_tokens)
        self._tokens.labels(specialist, "completion").inc(usage.completion_tokens)

    def key_asked(self, key: str, *, outcome: str) -> None:
        self._key_requests.labels(key, outcome).inc()

    def key_spent(self, key: str, *, prompt_tokens: int, completion_tokens: int) -> None:
        self._key_tokens.labels(key, "prompt").inc(prompt_tokens)
        self._key_tokens.labels(key, "completion").inc(completion_tokens)

    def looked_up(self, specialist: str, *, seconds: float, outcome: str) -> None:
        specialist = specialist if specialist in self._known else OTHERS
        self._lookups.labels(specialist, outcome).observe(seconds)

    def calculated(self, specialist: str, *, is_error: bool) -> None:
        specialist = specialist if specialist in self._known else OTHERS
        self._calculations.labels(specialist, "error" if is_error else "result").inc()

    def guarded(self, specialist: str, domain: str, report: LoopReport) -> None:
        labels = (specialist if specialist in self._known else OTHERS, domain)
        self._guarded.labels(*labels, _outcome(report)).inc()
        self._loop_hits.labels(*labels).inc(report.hits)
        self._rewinds.labels(*labels).inc(report.rewinds)
        self._discarded.labels(*labels).inc(report.tokens_discarded)
        self._redrawn.labels(*labels).inc(report.first_token_redrawn)

    def load_finished(self, spec: EngineSpec, *, seconds: float, outcome: str) -> None:
        self._loads.labels(outcome).inc()
        self._load_seconds.observe(seconds)

    def morphed(self, spec: EngineSpec, *, name: str, num_bytes: int, seconds: float) -> None:
        self._morphs.labels(name if name in self._known else OTHERS).inc()
        self._morph_bytes.inc(num_bytes)
        self._morph_seconds.observe(seconds)

    def unloaded(self, spec: EngineSpec, *, reason: str) -> None:
        self._unloads.labels(reason).inc()

    def crashed(self, spec: EngineSpec) -> None:
        self._crashes.inc()

    def waited(self, *, seconds: float) -> None:
        self._queue_wait.observe(seconds)


class _Footprints(Collector):
    """A gauge whose specialists come and go."""

    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        text = "Memory planned for the specialists that are loaded; those that share an engine share it evenly."
        family = GaugeMetricFamily("coe_footprint_bytes", text, labels=["specialist"])
        for specialist, num_bytes in self._read().items():
            family.add_metric([specialist], num_bytes)
        yield family


def _outcome(report: LoopReport) -> str:
    """Nothing seen, seen and left alone, rescued, or ended where it began to repeat itself."""
    if not report.hits:
        return "clean"
    if report.rung is None:
        return "seen"
    return "ended" if report.rung == "end" else "rescued"


class Observability:
    """The outermost ASGI layer: names each request, counts it, logs it, and turns what nobody expected into a 500.

    What inner layers know is left in `scope["state"]`: `specialist`, `outcome`, `key` (its name), and `headers` that go
    out with any answer. The request's own id is read there.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        lifecycle: Lifecycle,
        clock: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: f"req_{secrets.token_hex(12)}",
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._lifecycle = lifecycle
        self._clock = clock
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = _presented_id(scope) or self._new_id()
        begun = self._clock()
        status = CLIENT_CLOSED_REQUEST
        has_started = False

        async def named_send(message: Message) -> None:
            nonlocal status, has_started
            if message["type"] == "http.response.start":
                has_started, status = True, message["status"]
                message["headers"] = [*message.get("headers", ()), *_named(request_id, state.get("headers", {}))]
            await send(message)

        self._lifecycle.request_began()
        try:
            await self._app(scope, receive, named_send)
        except ClientLeft:
            state["outcome"] = "client_left"
        except Exception as error:
            logger.exception("request %s failed", request_id)
            state["outcome"] = "internal_error"
            if has_started:
                raise
            await respond(reply_for(error, request_id=request_id), scope)(scope, receive, named_send)
        finally:
            self._lifecycle.request_ended()
            specialist = state.get("specialist", "")
            self._metrics.request_ended(route=_route(scope), status=status, specialist=specialist)
            _log_access(scope, state, status=status, seconds=self._clock() - begun)


def _presented_id(scope: Scope) -> str | None:
    """The client's own x-request-id, unless it is longer or stranger than an id should be."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return None


def _named(request_id: str, headers: Mapping[str, str]) -> Iterator[tuple[bytes, bytes]]:
    yield b"x-request-id", request_id.encode("ascii")
    for name, value in headers.items():
        yield name.encode("ascii"), value.encode("ascii")


def _route(scope: Scope) -> str:
    """The template of the route that matched, such as /v1/models/{model}; never a path a client made up."""
    return getattr(scope.get("route"), "path", "unmatched")


def _log_access(scope: Scope, state: MutableMapping[str, Any], *, status: int, seconds: float) -> None:
    fields = {
        "request_id": state["request_id"],
        "method": scope["method"],
        "route": _route(scope),
        "status": status,
        "seconds": round(seconds, 4),
        "client": (scope.get("client") or ("",))[0],
        "key": state.get("key", ""),
        "specialist": state.get("specialist", ""),
        "outcome": state.get("outcome", ""),
    }
    level = logging.DEBUG if fields["route"] in ("/healthz", "/readyz", "/metrics") else logging.INFO
    access_logger.log(level, "%s %s %s", scope["method"], fields["route"], status, extra={"fields": fields})


class LineFormatter(logging.Formatter):
    """Plain lines, or one JSON object a line; fields of an access record follow the message."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        if not self._as_json:
            said = (f"{name}={value}" for name, value in fields.items() if name not in _IN_MESSAGE and value != "")
            return " ".join([super().format(record), *said])
        line = {"time": self.formatTime(record), "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": record.getMessage()} | fields
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(*, level: str, as_json: bool) -> None:
    """Send all log lines to standard error, once; a closed or full one costs lines, never requests."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(as_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.raiseExceptions = False
    for name, least in (("uvicorn.error", logging.ERROR), ("httpx", logging.WARNING), ("asyncio", logging.WARNING)):
        logging.getLogger(name).setLevel(least)  # a stranger's garbage on the wire is no news
