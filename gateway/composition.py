"""From settings to the services of a real gateway: the college on disk, the pool, and engines as child processes."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from gateway.downloads import DownloadDesk
from gateway.embeddings import EmbeddingService
from gateway.library import Library
from gateway.lifecycle import Lifecycle
from gateway.load_times import LoadTimes
from gateway.memory import InvalidSetting, device_share, engine_footprint, memory_budget, read_engine_memory
from gateway.observability import Metrics
from gateway.policy import RequestPolicy
from gateway.routing import SupervisorChooser
from gateway.services import Services
from gateway.settings import Settings
from gateway.shelf import ShelfStore
from gateway.supervision import build_supervisor
from modelfiles.hub import HuggingFaceHub
from specialists.catalogue import Catalogue, load_catalogue, specialist_from_hub
from specialists.engine.client import EngineClient
from specialists.engine.protocol import Engine, EngineSpec
from specialists.pool.budget import format_bytes
from specialists.pool.pool import EngineState, PoolSettings, SpecialistPool

logger = logging.getLogger("gateway")


def build_services(settings: Settings) -> Services:
    """Everything a gateway runs on; call it on the event loop that will serve.

    Raises CatalogueError for a bad college, and InvalidSetting when the budget is no size or no engine ever fits it.
    """
    catalogue = load_catalogue(settings.college)
    engines = _engines(catalogue)
    reading = read_engine_memory()
    budget_bytes = memory_budget(settings, reading)
    _require_room(engines, budget_bytes)
    library = _library(catalogue, settings)
    metrics = Metrics(catalogue.specialists)
    load_times = LoadTimes(metrics, cache(lambda spec: engine_footprint(spec).weights_bytes))  # reads a file's header
    pool = SpecialistPool(
        budget_bytes=budget_bytes,
        footprint=lambda spec: engine_footprint(spec).total_bytes,
        engine_factory=lambda spec: _engine(spec, settings),
        observer=load_times,
        settings=PoolSettings(max_queue=settings.max_queue),
    )
    metrics.watch_memory(lambda: budget_bytes, lambda: pool.status().used_bytes)
    supervisor = SupervisorChooser(
        supervisor=build_supervisor(settings, default=catalogue.default),
        specialists=library.college,
        resident=lambda: [engine.spec for engine in pool.status().engines if engine.state is EngineState.READY],
        load_seconds=load_times.expected_seconds,
    )
    logger.info(
        "college %s: specialists %d, engines %d, default %s, memory budget %s",
        catalogue.name, len(catalogue.specialists), len(engines), catalogue.default, format_bytes(budget_bytes),
    )  # fmt: skip
    lifecycle = Lifecycle()
    return Services(
        settings=settings,
        catalogue=library,
        pool=pool,
        metrics=metrics,
        supervisor=supervisor,
        library=library,
        downloads=DownloadDesk(HuggingFaceHub(), is_draining=lambda: lifecycle.is_draining),
        embeddings=EmbeddingService(max_waiting=settings.max_queue),
        device_share=cache(lambda spec: device_share(spec, reading)),
        lifecycle=lifecycle,
        on_start=_Preload(pool, _pinned(catalogue)).start,
    )


def _library(catalogue: Catalogue, settings: Settings) -> Library:
    """Raises CatalogueError or InvalidSetting."""
    try:
        home = settings.home.expanduser()
    except RuntimeError as error:  # no such user, or one without a home
        raise InvalidSetting(f"home (COE_HOME): {error}; name a folder") from None
    return Library(
        catalogue,
        ShelfStore(home),
        policy=RequestPolicy(temperature=settings.temperature_policy),
        draft=specialist_from_hub,
        reload=lambda: load_catalogue(settings.college),
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
