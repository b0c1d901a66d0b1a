"""A college as the commands describe it: what each specialist is, whether it can be served, and what it takes.

Reads files and the machine's memory, loads no model. The gateway itself serves from the catalogue, not from this.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.memory import engine_footprint, engine_room, memory_budget, ram_budget
from gateway.settings import Settings
from specialists.catalogue import load_catalogue
from specialists.engine.protocol import EngineSpec
from specialists.errors import CatalogueError, ModelTooLarge
from specialists.manifest import SpecialistManifest
from specialists.pool.budget import MemoryReading
from specialists.pool.footprint import Footprint
from specialists.pool.room import NO_LIMIT, Room


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One specialist or encoder. `footprint` is that of its engine, which specialists with the same one share.

    Size and footprint are None where `unavailable` says why; `notes` say what it gets otherwise than asked for.
    """

    tag: str
    domains: tuple[str, ...]
    engine: EngineSpec
    size_bytes: int | None
    footprint: Footprint | None
    unavailable: str | None
    notes: tuple[str, ...] = ()

    @property
    def makes_embeddings(self) -> bool:
        return self.engine.pooling is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class College:
    """`error` says why the file cannot be used at all; then there are no entries. `uses_gpu`: llama.cpp does here."""

    path: Path
    budget_bytes: int
    ram_budget_bytes: int = NO_LIMIT
    default: str = ""
    entries: tuple[Entry, ...] = ()
    error: str | None = None
    uses_gpu: bool = False

    def engines(self) -> dict[EngineSpec, list[Entry]]:
        """The engines this college would run, each with the specialists that share it."""
        found: dict[EngineSpec, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.engine, []).append(entry)
        return found

    @property
    def budget(self) -> Room:
        return Room(self.budget_bytes, self.ram_budget_bytes)

    def room(self, entry: Entry) -> Room | None:
        """What the entry's engine takes of both budgets; None when its footprint is not known."""
        if entry.footprint is None:
            return None
        return engine_room(entry.footprint, machine_has_gpu=self.uses_gpu, uses_gpu=entry.engine.gpu_layers != 0)

    def fits(self, entry: Entry) -> bool | None:
        """Whether the entry's engine fits the budgets by itself; None when its footprint is not known."""
        need = self.room(entry)
        return None if need is None else self.budget.holds(need)


def describe(
    settings: Settings, reading: MemoryReading, *, footprint: Callable[[EngineSpec], Footprint] = engine_footprint
) -> College:
    """The college that the settings name. Raises InvalidSetting; a bad college becomes its `error`.

    `footprint` says what an engine takes. Where it raises ModelTooLarge, its specialists cannot be served.
    """
    budget_bytes = memory_budget(settings, reading)
    ram_budget_bytes = ram_budget(settings, reading, budget_bytes)
    try:
        catalogue = load_catalogue(settings.college)
    except CatalogueError as error:
        return College(
            path=settings.college, budget_bytes=budget_bytes, ram_budget_bytes=ram_budget_bytes, error=str(error)
        )
    footprints: dict[EngineSpec, Footprint] = {}
    too_large: dict[EngineSpec, str] = {}
    for spec in {each.engine for each in catalogue.models.values() if each.unavailable is None}:
        try:
            footprints[spec] = footprint(spec)
        except ModelTooLarge as error:
            too_large[spec] = str(error)
    return College(
        path=settings.college,
        budget_bytes=budget_bytes,
        ram_budget_bytes=ram_budget_bytes,
        default=catalogue.default,
        uses_gpu=reading.device_free_bytes is not None,
        entries=tuple(
            _entry(manifest, footprints.get(manifest.engine), too_large.get(manifest.engine))
            for manifest in catalogue.models.values()
        ),
    )


def _entry(manifest: SpecialistManifest, footprint: Footprint | None, too_large: str | None) -> Entry:
    here = manifest.unavailable is None
    return Entry(
        tag=manifest.tag,
        domains=manifest.domains,
        engine=manifest.engine,
        size_bytes=manifest.engine.model_path.stat().st_size if here else None,
        footprint=footprint if here else None,
        unavailable=manifest.unavailable or too_large,
        notes=manifest.notes,
    )
