"""From settings to the services of a real gateway: the college on disk, the pool, and engines as child processes."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache

from gateway.auth import KeyDesk
from gateway.downloads import DownloadDesk
from gateway.embeddings import EmbeddingService
from gateway.footprints import FootprintPlanner, open_planner
from gateway.keys import KeyFile, KeyFileError
from gateway.knowledge.librarian import Librarian, index_path, knowledge_folder
from gateway.library import Library
from gateway.lifecycle import Lifecycle
from gateway.load_times import LoadTimes
from gateway.measured_engine import MeasuredEngine, device_bytes, resident_bytes
from gateway.memory import (
    InvalidSetting,
    MemorySplit,
    device_share,
    engine_footprint,
    memory_budget,
    read_engine_memory,
)
from gateway.observability import Metrics
from gateway.policy import RequestPolicy
from gateway.pool_metrics import PoolMetrics
from gateway.reread import CollegeReread
from gateway.routing import SupervisorChooser
from gateway.services import Services
from gateway.settings import Settings
from gateway.shelf import ShelfStore
from gateway.supervision import build_supervisor, transfer_model
from modelfiles.hub import HuggingFaceHub
from specialists.catalogue import Catalogue, load_catalogue, specialist_from_hub
from specialists.engine.protocol import Engine, EngineSpec
from specialists.errors import CatalogueError, ModelTooLarge
from specialists.manifest import SpecialistManifest
from specialists.pool.budget import MemoryReading, format_bytes, read_memory
from specialists.pool.device_memory import DeviceMemory
from specialists.pool.pool import EngineState, PoolSettings, SpecialistPool
from specialists.pool.status import EngineReport, PoolStatus

logger = logging.getLogger("gateway")


def build_services(settings: Settings) -> Services:
    """Everything a gateway runs on; call it on the event loop that will serve.

    Raises CatalogueError for a bad college, and InvalidSetting when the budget is no size or no engine ever fits it.
    """
    catalogue = load_catalogue(settings.college)
    engines = _engines(catalogue)
    reading = read_engine_memory()
    budget_bytes = memory_budget(settings, reading)
    planner = open_planner(settings, reading, budget_bytes)
    _require_room(engines, planner, budget_bytes)
    library = _library(catalogue, settings)
    metrics = Metrics(catalogue.specialists)
    load_times = LoadTimes(metrics, cache(lambda spec: engine_footprint(spec).weights_bytes))  # reads a file's header
    pool = SpecialistPool(
        budget=planner.budget,
        room=planner.charge,
        engine_factory=lambda spec: _engine(spec, settings, planner),
        observer=load_times,
        settings=PoolSettings(max_queue=settings.max_queue),
        device_memory=_device_memory(reading, planner),
    )
    metrics.watch_memory(lambda: budget_bytes, lambda: pool.status().used_bytes)
    metrics.registry.register(PoolMetrics(pool.status))
    metrics.watch_footprints(lambda: footprints(pool.status(), library.college.values()))
    supervisor = SupervisorChooser(
        supervisor=build_supervisor(settings, default=catalogue.default, transfer=transfer_model(catalogue)),
        specialists=library.college,
        resident=lambda: [
            replace(engine.spec, replica=0) for engine in pool.status().engines if engine.state is EngineState.READY
        ],
        load_seconds=load_times.expected_seconds,
    )
    logger.info(
        "college %s: specialists %d, engines %d, default %s, memory budget %s, RAM %s",
        catalogue.name, len(catalogue.specialists), len(engines), catalogue.default, format_bytes(budget_bytes),
        format_bytes(planner.budget.ram_bytes),
    )  # fmt: skip
    lifecycle = Lifecycle()
    return Services(
        settings=settings,
        catalogue=library,
        pool=pool,
        metrics=metrics,
        keys=_keys(settings, metrics),
        supervisor=supervisor,
        library=library,
        downloads=DownloadDesk(HuggingFaceHub(), is_draining=lambda: lifecycle.is_draining),
        librarian=_librarian(catalogue, settings, metrics),
        embeddings=EmbeddingService(max_waiting=settings.max_queue),
        memory_of=_memory_of(planner, reading),
        lifecycle=lifecycle,
        reread=CollegeReread(library, pool, lambda college: _serve_anew(college, metrics, supervisor)),
        on_start=_Preload(pool, catalogue).start,
    )


def _serve_anew(college: Catalogue, metrics: Metrics, chooser: SupervisorChooser) -> None:
    """What else depends on who is in the college."""
    metrics.know(college.specialists)
    chooser.supervisor.default = college.default
    try:
        chooser.supervisor.transfer = transfer_model(college)
    except CatalogueError as error:
        logger.error("%s; specialists are chosen by the table that was read before", error)


def _keys(settings: Settings, metrics: Metrics) -> KeyDesk:
    """Raises InvalidSetting when the file of keys cannot be read."""
    try:
        desk = KeyDesk(
            api_key=settings.api_key.get_secret_value() if settings.api_key is not None else None,
            file=KeyFile(settings.key_path),
            observer=metrics,
            clock=time.monotonic,
        )
        return desk.open()
    except KeyFileError as error:
        raise InvalidSetting(f"keys_file (COE_KEYS_FILE, or keys.json in COE_HOME): {error}") from None


def _device_memory(reading: MemoryReading, planner: FootprintPlanner) -> DeviceMemory | None:
    """None where engines take no GPU's memory: what they take is free as soon as they have ended."""
    if reading.device_free_bytes is None:
        return None

    async def read_free() -> int | None:
        return (await asyncio.to_thread(read_memory)).device_free_bytes

    def share(spec: EngineSpec) -> float:
        """What counts against a GPU's budget is what lies there."""
        return 1.0 if planner.uses_gpu(planner.placed(spec)) else 0.0

    return DeviceMemory(read_free=read_free, share=share)


def _memory_of(planner: FootprintPlanner, reading: MemoryReading) -> Callable[[EngineReport], MemorySplit]:
    """As planned; where there is no plan, by layers."""
    share = cache(lambda spec: device_share(spec, reading))  # reads a file's header

    def memory_of(engine: EngineReport) -> MemorySplit:
        by_layers = MemorySplit(engine.footprint_bytes, round(engine.footprint_bytes * share(engine.spec)))
        return planner.split(engine.spec) or by_layers

    return memory_of


def _librarian(catalogue: Catalogue, settings: Settings, metrics: Metrics) -> Librarian:
    """Whoever is to look things up and has no index yet is named in the log; answers say it as well."""
    librarian = Librarian(folder=knowledge_folder(settings.home), observer=metrics)
    for each in catalogue.specialists.values():
        if each.knowledge is not None and not index_path(librarian.folder, each.tag).is_file():
            logger.warning("%s has no index: coe knowledge add DIR --specialist %s", each.tag, each.tag)
    return librarian


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


def footprints(status: PoolStatus, specialists: Iterable[SpecialistManifest]) -> dict[str, float]:
    """Bytes by tag of the specialists in memory; those that share an engine share its footprint evenly."""
    sharers: dict[EngineSpec, list[str]] = {}
    for manifest in specialists:
        sharers.setdefault(manifest.engine, []).append(manifest.tag)
    found: dict[str, float] = {}
    for engine in status.engines:
        tags = sharers.get(replace(engine.spec, replica=0), [])
        for tag in tags:
            found[tag] = found.get(tag, 0.0) + (engine.footprint_bytes or engine.ram_bytes) / len(tags)
    return found


def _engine(spec: EngineSpec, settings: Settings, planner: FootprintPlanner) -> Engine:
    placed = planner.placed(spec)
    return MeasuredEngine(
        replace(placed, threads=spec.threads or settings.threads),
        read=device_bytes if planner.uses_gpu(placed) else resident_bytes,
        reads_at_end=not planner.uses_gpu(placed),
        learn=lambda taken_bytes, has_worked: planner.learn(placed, taken_bytes, has_worked=has_worked),
        silence_seconds=settings.engine_silence_seconds,
        load_stall_seconds=settings.load_stall_seconds,
    )


def _engines(catalogue: Catalogue) -> list[EngineSpec]:
    """The engines of the specialists that can be served, each once."""
    return list(dict.fromkeys(each.engine for each in catalogue.specialists.values() if each.unavailable is None))


def _require_room(engines: Iterable[EngineSpec], planner: FootprintPlanner, budget_bytes: int) -> None:
    """A budget below the smallest engine would refuse every request; better not to start.

    The formula is asked first: it leans upwards, and takes no process of its own.
    """
    specs = list(engines)
    if not specs or any(engine_footprint(spec).total_bytes <= budget_bytes for spec in specs):
        return
    complaints: dict[int, str] = {}
    for spec in specs:
        try:
            planner.charge(spec)
        except ModelTooLarge as error:
            complaints[engine_footprint(spec).total_bytes] = str(error)
        else:
            return
    raise InvalidSetting(
        f"memory_budget (--memory-budget or COE_MEMORY_BUDGET): {format_bytes(budget_bytes)} is less than the smallest "
        f"engine needs. {complaints[min(complaints)]}"
    )


class _Preload:
    """Loads engines beside the first requests, not before them, the pinned ones first; holds the task that does."""

    def __init__(self, pool: SpecialistPool, catalogue: Catalogue) -> None:
        able = [each for each in catalogue.models.values() if each.unavailable is None]
        self._pool = pool
        self._pinned = list(dict.fromkeys(each.engine for each in able if each.pin))
        self._others = list(dict.fromkeys(each.engine for each in able if each.preload and not each.pin))
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._pinned or self._others:
            self._task = asyncio.create_task(self._load())

    async def _load(self) -> None:
        await self._pool.preload(self._pinned, pin=True)
        await self._pool.preload(self._others)
