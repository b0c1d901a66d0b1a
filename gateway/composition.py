"""From settings to the services of a real gateway: the college on disk, the pool, and engines as child processes."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from gateway.memory import InvalidSetting, engine_footprint, memory_budget
from gateway.observability import Metrics
from gateway.routing import SupervisorChooser, load_classifier
from gateway.services import Services
from gateway.settings import Settings
from specialists.catalogue import Catalogue, load_catalogue
from specialists.engine.client import EngineClient
from specialists.engine.protocol import Engine, EngineSpec
from specialists.pool.budget import format_bytes, read_memory
from specialists.pool.pool import EngineState, PoolSettings, SpecialistPool
from supervisor.supervisor import Supervisor

logger = logging.getLogger("gateway")


def build_services(settings: Settings) -> Services:
    """Everything a gateway runs on; call it on the event loop that will serve.

    Raises CatalogueError for a bad college, and InvalidSetting when the budget is no size or no engine ever fits it.
    """
    catalogue = load_catalogue(settings.college)
    engines = _engines(catalogue)
    budget_bytes = memory_budget(settings, read_memory())
    _require_room(engines, budget_bytes)
    metrics = Metrics(catalogue.specialists)
    pool = SpecialistPool(
        budget_bytes=budget_bytes,
        footprint=lambda spec: engine_footprint(spec).total_bytes,
        engine_factory=lambda spec: _engine(spec, settings),
        observer=metrics,
        settings=PoolSettings(max_queue=settings.max_queue),
    )
    metrics.watch_memory(lambda: budget_bytes, lambda: pool.status().used_bytes)
    supervisor = SupervisorChooser(
        supervisor=Supervisor(default=catalogue.default, classifier=load_classifier(settings.embedder or "")),
        specialists=catalogue.specialists,
        resident=lambda: [engine.spec for engine in pool.status().engines if engine.state is EngineState.READY],
        footprint_bytes=cache(lambda spec: engine_footprint(spec).weights_bytes),  # reads the file's header
    )
    logger.info(
        "college %s: specialists %d, engines %d, default %s, memory budget %s",
        catalogue.name, len(catalogue.specialists), len(engines), catalogue.default, format_bytes(budget_bytes),
    )  # fmt: skip
    return Services(
        settings=settings,
        catalogue=catalogue,
        pool=pool,
        metrics=metrics,
        supervisor=supervisor,
        on_start=_Preload(pool, _pinned(catalogue)).start,
    )


def _engine(spec: EngineSpec, settings: Settings) -> Engine:
    return EngineClient(
        replace(spec, threads=spec.threads or settings.threads),
        silence_seconds=settings.engine_silence_seconds,
        load_stall_seconds=settings.load_stall_seconds,
    )


def _engines(catalogue: Catalogue) -> list[EngineSpec]:
    """The engines of the specialists that can be served, each once."""
    return list(dict.fromkeys(each.engine for each in catalogue.specialists.values() if each.unavailable is None))


def _pinned(catalogue: Catalogue) -> list[EngineSpec]:
    wanted = (each.engine for each in catalogue.specialists.values() if each.pin and each.unavailable is None)
    return list(dict.fromkeys(wanted))


def _require_room(engines: Iterable[EngineSpec], budget_bytes: int) -> None:
    """A budget below the smallest engine would refuse every request; better not to start."""
    footprints = {spec: engine_footprint(spec) for spec in engines}
    if not footprints or any(footprint.total_bytes <= budget_bytes for footprint in footprints.values()):
        return
    spec, smallest = min(footprints.items(), key=lambda item: item[1].total_bytes)
    raise InvalidSetting(
        f"memory_budget (--memory-budget or COE_MEMORY_BUDGET): {format_bytes(budget_bytes)} is less than the smallest "
        f"engine needs, {spec.model_path.name}: {smallest.explain()}; raise it, or lower context or parallel"
    )


class _Preload:
    """Loads pinned engines beside the first requests, not before them; holds the task that does."""

    def __init__(self, pool: SpecialistPool, specs: list[EngineSpec]) -> None:
        self._pool = pool
        self._specs = specs
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._specs:
            self._task = asyncio.create_task(self._pool.preload(self._specs, pin=True))
